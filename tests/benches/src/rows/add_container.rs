//! The first container of a device that ran none, from the command until its process runs, beside `ctr run`.

use std::time::Duration;

use acceptance::manifest::Manifest;
use serde_json::json;

use crate::Options;
use crate::figure::{Figure, limit, time as shown};
use crate::peer::ctr::Ctr;
use crate::samples::Samples;
use crate::subject::{SLEEP, Subject};

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let mut subject = Subject::start(&[]);
    let mut peer = Ctr::start(&subject.image);
    let one = subject.sleeper(Manifest::new(), "one", json!({}));
    subject.install("locals/none", &Manifest::new());
    subject.device.put_revision("locals/one", &one);
    let (mut ours, mut theirs) = <(Samples, Samples)>::default();
    for _ in 0..options.repeat * 2 {
        theirs.push_time(peer.run(SLEEP));
        peer.clear();
        let start = subject.run("locals/one");
        let (_, runs) = subject.watch.runs("one", None);
        ours.push_time(runs - start);
        subject.watch.settled("locals/one");
        subject.run_without("locals/none", &["one"]);
    }
    let to_reach = limit(theirs.median(), 1.0, Duration::from_millis(100));
    vec![Figure {
        what: "adding one container, from the command until its process runs".to_owned(),
        ours: shown(ours.median()),
        peer: format!("`ctr run` {}", shown(theirs.median())),
        ratio: Some(ours.median() / theirs.median()),
        to_reach: "<= 1.0 x + 100 ms".to_owned(),
        verdict: (ours.median() <= to_reach).into(),
    }]
}
