//! Twenty containers from nothing to all running, beside twenty times `ctr run` one after the other.

use acceptance::manifest::Manifest;
use serde_json::json;

use crate::Options;
use crate::figure::{Figure, time as shown};
use crate::peer::ctr::Ctr;
use crate::samples::Samples;
use crate::subject::{SLEEP, Subject};
use crate::watch::pid;

const COUNT: usize = 20;

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let mut subject = Subject::start(&[]);
    let mut peer = Ctr::start(&subject.image);
    let names: Vec<String> = (0..COUNT).map(|n| format!("c{n:02}")).collect();
    let all = names.iter().fold(
        Manifest::with_groups(&[("app", "STARTED", 60)]),
        |m, name| subject.sleeper(m, name, json!({})),
    );
    subject.install("locals/none", &Manifest::new());
    subject.device.put_revision("locals/twenty", &all);
    let (mut ours, mut theirs) = <(Samples, Samples)>::default();
    for _ in 0..options.repeat.min(3) {
        let mut sum = 0.0;
        for _ in 0..COUNT {
            sum += peer.run(SLEEP).as_secs_f64();
        }
        theirs.push(sum);
        peer.clear();
        let start = subject.run("locals/twenty");
        let ((), run) = subject.watch.until("all twenty run", |status| {
            names
                .iter()
                .all(|name| pid(status, name).is_some())
                .then_some(())
        });
        ours.push_time(run - start);
        subject.watch.settled("locals/twenty");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        subject.run_without("locals/none", &names);
    }
    let ratio = ours.median() / theirs.median();
    vec![Figure {
        what: format!("{COUNT} containers from nothing to all running"),
        ours: shown(ours.median()),
        peer: format!("{COUNT} x `ctr run` {}", shown(theirs.median())),
        ratio: Some(ratio),
        to_reach: "<= 0.6 x".to_owned(),
        verdict: (ratio <= 0.6).into(),
    }]
}
