//! How long a manifest takes, beside `serde_json::Value` on the same bytes: `cargo run --release -p model --example parse_speed`.
#![allow(clippy::disallowed_methods)] // a measurement needs a clock

use std::time::{Duration, Instant};

use model::Manifest;

fn best(mut work: impl FnMut()) -> Duration {
    (0..30)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn main() {
    let hash = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    let mut text = String::from("{\"#spec\":\"pantavisor-service-system@1\"");
    for container in 0..200 {
        let name = format!("container-{container:03}");
        text += &format!(
            ",\"{name}/root.squashfs\":\"{hash}\",\"{name}/run.json\":{{\"name\":\"{name}\",\"type\":\"oci\",\
             \"root-volume\":\"root.squashfs\",\"command\":[\"/bin/service\",\"--port\",\"80\"],\
             \"env\":[\"A=1\",\"B=2\"],\"storage\":{{\"data\":{{\"persistence\":\"permanent\",\"path\":\"/data\"}}}},\
             \"health\":{{\"http\":{{\"port\":80,\"path\":\"/healthz\"}},\"interval\":\"5s\"}}}}"
        );
        for file in 0..23 {
            let path = format!("_config/{name}/etc/service.d/part-{file:02}.conf");
            text += &format!(",\"{path}\":\"{hash}\",\"{name}/x{file}.json\":{{\"a\":[1,2,3]}}");
        }
    }
    text.push('}');
    let parsed = Manifest::parse(text.as_bytes());
    println!("{} bytes, accepted: {}", text.len(), parsed.is_ok());
    if let Ok(manifest) = parsed {
        println!(
            "{} keys, {} containers",
            manifest.entries().len(),
            manifest.containers().count()
        );
    }
    let ours = best(|| drop(Manifest::parse(text.as_bytes())));
    let tree = best(|| drop(serde_json::from_slice::<serde_json::Value>(text.as_bytes())));
    println!(
        "Manifest::parse {ours:?}, serde_json::Value {tree:?}, ratio {:.2}",
        ours.as_secs_f64() / tree.as_secs_f64()
    );
}
