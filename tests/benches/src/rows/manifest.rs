//! A manifest of 1 MB with 5,000 keys: parsed and validated, beside `serde_json` that parses the same bytes.

use model::Manifest;

use crate::Options;
use crate::figure::{Figure, time as shown};
use crate::interrupt;
use crate::samples::{Samples, time};

const HASH: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let text = text();
    let (mut ours, mut peer) = <(Samples, Samples)>::default();
    for _ in 0..options.repeat * 20 {
        interrupt::check();
        let (manifest, parsed) = time(|| Manifest::parse(text.as_bytes()));
        ours.push_time(parsed);
        let keys = manifest.map(|manifest| manifest.entries().len());
        assert!(matches!(keys, Ok(5_000)), "{keys:?}");
        let (tree, parsed) = time(|| serde_json::from_slice::<serde_json::Value>(text.as_bytes()));
        peer.push_time(parsed);
        assert!(tree.is_ok(), "{tree:?}");
    }
    let ratio = ours.median() / peer.median();
    vec![Figure {
        what: format!(
            "manifest of {:.1} MB with 5,000 keys: parse and validate",
            text.len() as f64 / 1e6
        ),
        ours: shown(ours.median()),
        peer: format!("serde_json::Value {}", shown(peer.median())),
        ratio: Some(ratio),
        to_reach: "<= 5 x".to_owned(),
        verdict: (ratio <= 5.0).into(),
    }]
}

/// 100 containers, each with its root, its run.json and 48 files, some as objects and some in line; `#spec` is one key more.
fn text() -> String {
    let mut text = String::from("{\"#spec\":\"pantavisor-service-system@1\"");
    let mut keys = 1;
    let mut container = 0;
    let padding = "configuration ".repeat(12);
    while keys < 5_000 {
        let name = format!("container-{container:03}");
        text += &format!(
            ",\"{name}/root.squashfs\":\"{HASH}\",\"{name}/run.json\":{{\"#spec\":\"service-manifest-run@1\",\"name\":\"{name}\",\
             \"type\":\"oci\",\"root-volume\":\"root.squashfs\",\"command\":[\"/bin/service\",\"--port\",\"80\"],\"env\":[\"A=1\",\"B=2\"],\
             \"storage\":{{\"data\":{{\"persistence\":\"permanent\",\"path\":\"/data\"}}}},\
             \"health\":{{\"http\":{{\"port\":80,\"path\":\"/healthz\"}},\"interval\":\"5s\"}}}}"
        );
        keys += 2;
        for file in 0..48 {
            if keys == 5_000 {
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
