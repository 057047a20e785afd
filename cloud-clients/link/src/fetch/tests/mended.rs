//! What goes wrong once and is made good by the client itself: another mirror, another look, a disk that is cleared.

use super::*;

/// The length that a server has told counts as little as the bytes that it has sent.
#[tokio::test]
async fn a_wrong_length_is_forgotten_with_the_wrong_bytes() {
    let server = Server::start().await;
    let big = noise(300_000, 17);
    let json = manifest(&[&big]);
    let login = b"<html>please log in to this network</html>".to_vec();
    let links = |good: &str, bytes: &[u8]| {
        vec![
            server.has("/login", Manner::of(login.clone())),
            server.has(good, Manner::of(bytes.to_vec())),
        ]
    };
    let mut artifacts = vec![
        artifact("json", &json, links("/m", &json)),
        artifact("a", &big, links("/a", &big)),
    ];
    for artifact in &mut artifacts {
        artifact.bytes = None;
    }
    let run = Run::of(artifacts);
    let events = run.go(|| None).await;
    assert!(is_fetched(&events), "{events:?}");
    assert!(run.has(&big));
}

/// Others write too: what the device can do without goes, as its own refusal advises, before a download is given up.
#[tokio::test]
async fn a_disk_that_fills_up_is_cleared_once() {
    let server = Server::start().await;
    let big = noise(600_000, 18);
    let json = manifest(&[&big]);
    let packed = gzip(&bundle(&json, &[&big], false));
    let separate = vec![
        artifact(
            "json",
            &json,
            vec![server.has("/m", Manner::of(json.clone()))],
        ),
        artifact("a", &big, vec![server.has("/a", Manner::of(big.clone()))]),
    ];
    let link = vec![server.has("/b", Manner::of(packed.clone()))];
    let whole = vec![artifact("a.tgz", &packed, link)];
    for artifacts in [separate, whole] {
        for rubbish in [0, 1] {
            let run = Run::of(artifacts.clone());
            run.device.inside().full_after = Some(200_000);
            run.device.inside().rubbish = rubbish;
            let events = run.go(|| None).await;
            if rubbish > 0 {
                assert!(is_fetched(&events), "{events:?}");
                assert!(run.has(&big));
            } else {
                assert_eq!(rejected(&events).code, Code::NoSpace);
            }
            assert_eq!(run.device.inside().collections, 1);
        }
    }
}

#[tokio::test]
async fn a_bundle_that_was_damaged_on_its_way_comes_from_the_next_mirror() {
    let server = Server::start().await;
    let one = noise(100_000, 19);
    let json = manifest(&[&one]);
    let good = bundle(&json, &[&one], false);
    let mut damaged = good.clone();
    let place = damaged.len() - 1024 - 5000;
    damaged[place] ^= 1;
    let links = vec![
        server.has("/damaged", Manner::of(damaged)),
        server.has("/good", Manner::of(good.clone())),
    ];
    let run = Run::of(vec![artifact("a.tar", &good, links)]);
    let events = run.go(|| None).await;
    assert!(is_fetched(&events), "{events:?}");
    assert!(run.has(&one));
}
