//! How long a changed container is away: from the end of its old process until its new one runs, beside `ctr run`.

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
    let mut subject = Subject::start(&[]);
    let mut peer = Ctr::start(&subject.image);
    let command = ["/bin/quick-to-stop"];
    let version = |n: &str| {
        Manifest::new().container(
            "changed",
            &subject.image,
            &command,
            json!({"env": [format!("VERSION={n}")]}),
        )
    };
    let versions = [version("0"), version("1")];
    subject.install("locals/v0", &versions[0]);
    subject.device.put_revision("locals/v1", &versions[1]);
    let (mut ours, mut theirs) = <(Samples, Samples)>::default();
    for n in 1..=options.repeat * 2 {
        theirs.push_time(peer.run(SLEEP));
        peer.clear();
        let old = pid(&subject.watch.status(), "changed").expect("it runs");
        let end = Doomed::new(old).expect("it runs");
        let waiter = std::thread::spawn(|| end.ended());
        let revision = format!("locals/v{}", n % 2);
        subject.run(&revision);
        let (_, runs) = subject.watch.runs("changed", Some(old));
        let ended = waiter.join().expect("the waiter lives");
        ours.push_time(runs.saturating_duration_since(ended));
        subject.watch.settled(&revision);
    }
    let to_reach = limit(theirs.median(), 1.0, Duration::from_millis(200));
    vec![Figure {
        what: "downtime of the changed container, from the end of its old process".to_owned(),
        ours: shown(ours.median()),
        peer: format!("`ctr run` {}", shown(theirs.median())),
        ratio: Some(ours.median() / theirs.median()),
        to_reach: "<= 1.0 x + 200 ms".to_owned(),
        verdict: (ours.median() <= to_reach).into(),
    }]
}
