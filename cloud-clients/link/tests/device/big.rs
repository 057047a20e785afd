//! One large object over a link that breaks every 50 MB: what it costs in bytes, and in memory of the client.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use acceptance::device::Device;
use acceptance::needs_containers;
use sha2::Digest as _;

use crate::cloud::{Place, last_word};
use crate::server::Server;

const BREAK_AFTER: u64 = 50_000_000;
/// Memory of the whole process at its highest.
const MEMORY_KB_MAX: u64 = 12 << 10;

/// Bytes that differ everywhere and cost nothing to make.
fn fill(offset: u64, buffer: &mut [u8]) {
    for (place, eight) in buffer.chunks_mut(8).enumerate() {
        let number = (offset / 8 + place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = number.to_le_bytes();
        eight.copy_from_slice(&bytes[..eight.len()]);
    }
}

fn digest(length: u64) -> String {
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < length {
        let piece = usize::try_from((length - offset).min(1 << 20)).expect("a mebibyte");
        fill(offset, &mut buffer[..piece]);
        hash.update(&buffer[..piece]);
        offset += piece as u64;
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// `LINK_BIG_MIB` sets the size; a multiple of 8 bytes keeps [`fill`] simple.
#[test]
fn a_large_object_over_a_link_that_breaks() {
    needs_containers!();
    let mib: u64 = std::env::var("LINK_BIG_MIB")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1024);
    let length = mib << 20;
    let sha256 = digest(length);
    let device = Device::start_with(&[("commit-delay", "1s")]);
    let server = Server::start(BREAK_AFTER / 8 * 8, 0);
    let manifest = format!(r##"{{"#spec":"pantavisor-service-system@1","x/big":"{sha256}"}}"##);
    let files = [
        (
            "manifest.json".to_owned(),
            server.bytes("manifest.json", manifest.clone().into_bytes()),
            manifest.len() as u64,
            acceptance::image::sha256(manifest.as_bytes()),
        ),
        (
            "big".to_owned(),
            server.file("big", length, std::sync::Arc::new(fill)),
            length,
            sha256.clone(),
        ),
    ];
    let home = tempfile::tempdir().expect("a temporary folder");
    let place = Place {
        folder: home.path().to_owned(),
        socket: device.run_dir().join("control.sock"),
    };
    place.offer("8", &files);
    let start = Instant::now();
    let mut child = place.start(&[]);
    let status = child.wait().expect("our own child");
    let took = start.elapsed();
    let log = std::fs::read_to_string(home.path().join("log")).unwrap_or_default();
    assert!(status.success(), "{log}");
    let last = last_word(home.path()).expect("it ends with the last word");
    assert!(
        last["text"]
            .as_str()
            .is_some_and(|text| text.ends_with("is committed")),
        "{last}\n{log}"
    );
    assert!(device.storage().join("objects").join(&sha256).exists());
    let figures = std::fs::read_to_string(home.path().join("figures")).expect("it writes them");
    let figures: serde_json::Value = serde_json::from_str(&figures).expect("JSON");
    let (peak, taken) = (
        figures["peak_kb"].as_u64().expect("a number"),
        figures["taken"].as_u64().expect("a number"),
    );
    let sent = server.sent.load(Ordering::Relaxed);
    let breaks = server.breaks.load(Ordering::Relaxed);
    println!(
        "{mib} MiB in {:.1} s, {breaks} breaks; fetched {taken} ({:.4} x), sent by the server {sent} ({:.4} x); peak memory {peak} kB",
        took.as_secs_f64(),
        taken as f64 / length as f64,
        sent as f64 / length as f64
    );
    assert!(breaks >= length / BREAK_AFTER);
    assert!(taken * 50 <= length * 51, "{taken} bytes for {length}");
    assert!(sent * 50 <= length * 51, "{sent} sent for {length}");
    assert!(peak <= MEMORY_KB_MAX, "{peak} kB");
    assert!(took < Duration::from_secs(1200));
}
