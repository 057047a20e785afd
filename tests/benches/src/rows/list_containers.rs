//! GET /containers with three containers, on connections that are kept, beside a bare hyper server that says hello.

use std::time::Duration;

use acceptance::manifest::Manifest;
use serde_json::json;

use crate::Options;
use crate::figure::{Figure, time as shown};
use crate::load::{self, Load};
use crate::peer::hello::Hello;
use crate::samples::Samples;
use crate::subject::Subject;

const LENGTH: Duration = Duration::from_secs(2);

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let mut subject = Subject::start(&[]);
    let manifest = ["a", "b", "c"]
        .iter()
        .fold(Manifest::new(), |manifest, name| {
            subject.sleeper(manifest, name, json!({}))
        });
    subject.install("locals/three", &manifest);
    let hello = Hello::start();
    let ours = subject.device.run_dir().join("control.sock");
    let peer = hello.socket();

    let mut figures = Vec::new();
    for connections in [1, 16] {
        let (mut rates, mut waits) = <([Samples; 2], [Samples; 2])>::default();
        for _ in 0..options.repeat {
            for (index, socket) in [&ours, &peer].into_iter().enumerate() {
                let Load { rate, waits: w } = if connections == 1 {
                    load::one(socket, LENGTH)
                } else {
                    load::many(socket, connections, LENGTH)
                };
                rates[index].push(rate);
                waits[index].push(w.p99());
            }
        }
        let [our_rate, peer_rate] = rates.map(|samples| samples.median());
        let [our_wait, peer_wait] = waits.map(|samples| samples.median());
        let ratio = our_rate / peer_rate;
        let quick = connections == 1 || our_wait <= 0.002;
        figures.push(Figure {
            what: format!("GET /containers (3), keep-alive, {connections} connection(s)"),
            ours: format!("{our_rate:.0}/s, p99 {}", shown(our_wait)),
            peer: format!("hyper hello {peer_rate:.0}/s, p99 {}", shown(peer_wait)),
            ratio: Some(ratio),
            to_reach: match connections {
                1 => ">= 0.7 x",
                _ => ">= 0.7 x, p99 <= 2 ms",
            }
            .to_owned(),
            verdict: (ratio >= 0.7 && quick).into(),
        });
    }
    figures
}
