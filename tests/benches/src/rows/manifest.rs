//! A manifest of 1 MB with 5,000 keys: parsed, validated and planned, beside `serde_json` that parses the same bytes.

use lifecycle::plan::Plan;
use model::Manifest;

use crate::Options;
use crate::figure::{Figure, time as shown};
use crate::interrupt;
use crate::samples::{Samples, time};

/// Keys beside `#spec`.
const KEYS: usize = 5_000;
const HASH: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let text = text("1");
    let other = self::text("2");
    let running = Manifest::parse(other.as_bytes()).expect("the manifest is in order");
    let (mut ours, mut peer) = <(Samples, Samples)>::default();
    for _ in 0..options.repeat * 20 {
        interrupt::check();
        let ((manifest, plan), taken) = time(|| {
            let manifest = Manifest::parse(text.as_bytes()).expect("the manifest is in order");
            let plan = Plan::between(Some(&running), &manifest);
            (manifest, plan)
        });
        ours.push_time(taken);
        assert_eq!(manifest.entries().len(), KEYS);
        assert_eq!(plan.changed.len(), manifest.containers().count());
        let (tree, parsed) = time(|| serde_json::from_slice::<serde_json::Value>(text.as_bytes()));
        peer.push_time(parsed);
        assert!(tree.is_ok(), "{tree:?}");
    }
    let ratio = ours.median() / peer.median();
    vec![Figure {
        what: format!(
            "manifest of {:.1} MB with 5,000 keys: parse, validate, plan",
            text.len() as f64 / 1e6
        ),
        ours: shown(ours.median()),
        peer: format!("serde_json::Value {}", shown(peer.median())),
        ratio: Some(ratio),
        to_reach: "<= 5 x".to_owned(),
        verdict: (ratio <= 5.0).into(),
    }]
}

/// 100 containers, each with its root, its run.json and 48 files, some as objects and some in line.
fn text(version: &str) -> String {
    let mut text = String::from("{\"#spec\":\"pantavisor-service-system@1\"");
    let mut keys = 0;
    let mut container = 0;
    let padding = "configuration ".repeat(12);
    while keys < KEYS {
        let name = format!("container-{container:03}");
        text += &format!(
            ",\"{name}/root.squashfs\":\"{HASH}\",\"{name}/run.json\":{{\"#spec\":\"service-manifest-run@1\",\"name\":\"{name}\",\
             \"type\":\"oci\",\"root-volume\":\"root.squashfs\",\"command\":[\"/bin/service\",\"--port\",\"80\"],\"env\":[\"VERSION={version}\",\"B=2\"],\
             \"storage\":{{\"data\":{{\"persistence\":\"permanent\",\"path\":\"/data\"}}}},\
             \"health\":{{\"http\":{{\"port\":80,\"path\":\"/healthz\"}},\"interval\":\"5s\"}}}}"
        );
        keys += 2;
        for file in 0..48 {
            if keys == KEYS {
                break;
            }
            if file % 2 == 0 {
                text +=
                    &format!(",\"_config/{name}/etc/service.d/part-{file:02}.conf\":\"{HASH}\"");
            } else {
                text += &format!(
                    ",\"{name}/extra-{file:02}.json\":{{\"a\":[1,2,3],\"text\":\"{padding}\"}}"
                );
            }
            keys += 1;
        }
        container += 1;
    }
    text.push('}');
    text
}
