//! Memory of `coxswain` that has nothing to do: proportional set size with no container and with three.

use std::time::Duration;

use acceptance::manifest::Manifest;
use serde_json::json;

use crate::Options;
use crate::figure::{Figure, bytes};
use crate::interrupt;
use crate::memory;
use crate::samples::Samples;
use crate::subject::Subject;

const QUIET: Duration = Duration::from_secs(3);

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let (mut none, mut three) = <(Samples, Samples)>::default();
    for _ in 0..options.repeat.min(3) {
        interrupt::check();
        none.push(idle(&[]));
        three.push(idle(&["a", "b", "c"]));
    }
    let each = (three.median() - none.median()).max(0.0) / 3.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // sizes of processes
    let shown = |value: f64| bytes(value as u64);
    vec![
        Figure {
            what: "idle memory (PSS), no container".to_owned(),
            ours: shown(none.median()),
            peer: "limit".to_owned(),
            ratio: None,
            to_reach: "<= 6 MB".to_owned(),
            verdict: (none.median() <= 6e6).into(),
        },
        Figure {
            what: "idle memory (PSS), 3 containers".to_owned(),
            ours: format!("{} ({} each)", shown(three.median()), shown(each)),
            peer: "limit".to_owned(),
            ratio: None,
            to_reach: "<= 64 KiB each".to_owned(),
            verdict: (each <= 65536.0).into(),
        },
    ]
}

/// Bytes after a restart, as the device is found after a boot.
fn idle(containers: &[&str]) -> f64 {
    let mut subject = Subject::start(&[]);
    let manifest = containers.iter().fold(Manifest::new(), |manifest, name| {
        subject.sleeper(manifest, name, json!({}))
    });
    subject.install("locals/idle", &manifest);
    std::thread::sleep(QUIET);
    let pid = subject.device.pid().expect("coxswain runs");
    f64::from(u32::try_from(memory::proportional(pid) / 1024).unwrap_or(u32::MAX)) * 1024.0
}
