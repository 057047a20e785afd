//! A sick revision: from the crash of its container until the old container runs again, beside `ctr run`.

use std::time::Duration;

use acceptance::manifest::Manifest;
use serde_json::json;

use crate::Options;
use crate::figure::{Figure, limit, time as shown};
use crate::peer::ctr::Ctr;
use crate::samples::Samples;
use crate::subject::{SLEEP, Subject};
use crate::watch::{Doomed, pid};

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    // Long enough for the crash to come while the revision is still on trial.
    let mut subject = Subject::start(&[("commit-delay", "3s")]);
    let mut peer = Ctr::start(&subject.image);
    let good = subject.sleeper(Manifest::new(), "victim", json!({}));
    subject.install("locals/good", &good);
    let (mut ours, mut theirs) = <(Samples, Samples)>::default();
    for n in 0..options.repeat {
        theirs.push_time(peer.run(SLEEP));
        peer.clear();
        let old = pid(&subject.watch.status(), "victim").expect("it runs");
        // A failed revision is remembered by its manifest: each must be another one.
        let revision = format!("locals/sick-{n}");
        let script = format!("sleep 1; exit 7 # {n}");
        let sick = Manifest::new().container(
            "victim",
            &subject.image,
            &["/bin/sh", "-c", &script],
            json!({}),
        );
        subject.device.put_revision(&revision, &sick);
        subject.run(&revision);
        let (crashing, _) = subject.watch.runs("victim", Some(old));
        let crashed = Doomed::new(crashing).expect("it sleeps a second").ended();
        let ((), runs) = subject
            .watch
            .until("the old container runs again", |status| {
                let new = pid(status, "victim").filter(|pid| *pid != crashing)?;
                (status["running"] == "locals/good" && new != old).then_some(())
            });
        ours.push_time(runs - crashed);
        subject.watch.settled("locals/good");
    }
    let to_reach = limit(theirs.median(), 1.0, Duration::from_millis(200));
    vec![Figure {
        what: "rollback of a sick revision, from its crash until the old container runs".to_owned(),
        ours: shown(ours.median()),
        peer: format!("`ctr run` {}", shown(theirs.median())),
        ratio: Some(ours.median() / theirs.median()),
        to_reach: "<= 1.0 x + 200 ms".to_owned(),
        verdict: (ours.median() <= to_reach).into(),
    }]
}
