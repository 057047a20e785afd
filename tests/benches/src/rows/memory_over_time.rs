//! Whether memory grows with what a device has done: resident size after many updates and many requests, beside that after 100.

use std::path::Path;
use std::time::Duration;

use acceptance::manifest::Manifest;
use serde_json::json;

use crate::Options;
use crate::figure::{Figure, bytes};
use crate::subject::Subject;
use crate::{interrupt, load, memory};

const FEW: u32 = 100;

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let mut subject = Subject::start(&[]);
    let quick = |n: u32| {
        Manifest::new().container(
            "job",
            &subject.image,
            &["/bin/quick-to-stop"],
            json!({"env": [format!("VERSION={n}")]}),
        )
    };
    let versions = [quick(0), quick(1)];
    subject.install("locals/v0", &versions[0]);
    subject.install("locals/v1", &versions[1]);
    let after_few = updates(&mut subject, FEW);
    let after_many = updates(&mut subject, options.updates.saturating_sub(FEW));
    let socket = subject.device.run_dir().join("control.sock");
    let requested_few = requests(&subject, &socket, FEW);
    let requested_many = requests(&subject, &socket, options.requests.saturating_sub(FEW));
    vec![
        figure("updates", options.updates, after_few, after_many),
        figure("requests", options.requests, requested_few, requested_many),
    ]
}

fn figure(what: &str, count: u32, few: u64, many: u64) -> Figure {
    #[allow(clippy::cast_precision_loss)] // sizes of processes
    let ratio = many as f64 / few as f64;
    Figure {
        what: format!("resident memory after {count} {what}"),
        ours: bytes(many),
        peer: format!("after {FEW}: {}", bytes(few)),
        ratio: Some(ratio),
        to_reach: "<= 1.1 x".to_owned(),
        verdict: (ratio <= 1.1).into(),
    }
}

fn resident(subject: &Subject) -> u64 {
    std::thread::sleep(Duration::from_secs(1));
    memory::resident(subject.device.pid().expect("coxswain runs"))
}

fn updates(subject: &mut Subject, count: u32) -> u64 {
    for n in 0..count {
        let revision = format!("locals/v{}", n % 2);
        subject.run(&revision);
        subject.watch.settled(&revision);
    }
    resident(subject)
}

/// On a connection for each 10,000.
fn requests(subject: &Subject, socket: &Path, count: u32) -> u64 {
    let mut buffer = vec![0; 64 << 10];
    let mut left = count;
    while left > 0 {
        interrupt::check();
        let mut stream =
            std::os::unix::net::UnixStream::connect(socket).expect("the socket is there");
        let now = left.min(10_000);
        for _ in 0..now {
            load::exchange(&mut stream, &mut buffer);
        }
        left -= now;
    }
    resident(subject)
}
