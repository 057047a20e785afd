//! Our hawkBit against the recordings of real ones (`recordings/hawkbit`), exchange by exchange: what is sent is what was sent then,
//! and each answer must be the recorded one. What is told beforehand are only identifiers and the choice of chance, since a real
//! server's depend on all that it did before; what is not compared stands in `compare`, what cannot be reproduced in [`EXCEPTIONS`].

mod compare;
mod player;
mod recording;

use std::collections::BTreeSet;

use clouds::hawkbit::Release;

/// Exchanges that our server does not answer as the real one did: file, beginning of the step's name, why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "openapi-and-misc",
        "OpenAPI",
        "the description of the real server's own code",
    ),
    (
        "openapi-and-misc",
        "swagger UI",
        "a page of another program",
    ),
    (
        "polling-time",
        "all settings",
        "a list of every setting there is",
    ),
];

fn replay(release: Release) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("recordings/hawkbit")
        .join(release.number());
    let files = recording::read_all(&folder);
    let mut exchanges = 0;
    let mut excepted = BTreeSet::new();
    let mut wrong = Vec::new();
    for server in ["A", "Q", "R"] {
        let mut player = player::Player::new(release, server, &files);
        // Some scenarios ran beside others: everything in the order of its time.
        let mut all: Vec<(i64, &recording::Recording, &recording::Exchange)> = files
            .iter()
            .filter(|file| file.server == server)
            .flat_map(|file| {
                file.exchanges
                    .iter()
                    .map(move |one| (file.began + one.at, file, one))
            })
            .collect();
        all.sort_by_key(|(at, _, _)| *at);
        for (at, file, exchange) in all {
            let exception = EXCEPTIONS
                .iter()
                .find(|(name, step, _)| *name == file.name && exchange.step.starts_with(step));
            let problems = player.play(at, exchange);
            exchanges += 1;
            match exception {
                Some(exception) => {
                    excepted.insert(*exception);
                }
                None if !problems.is_empty() => wrong.push(format!(
                    "{}: {} [{} {}]\n    {}",
                    file.name,
                    exchange.step,
                    exchange.method,
                    exchange.target,
                    problems.join("\n    ")
                )),
                None => {}
            }
        }
    }
    assert_eq!(
        exchanges,
        if release == Release::V0_9_0 {
            1546
        } else {
            1531
        }
    );
    assert_eq!(
        excepted.len(),
        EXCEPTIONS.len(),
        "an exception that is none"
    );
    assert!(
        wrong.is_empty(),
        "{} of {exchanges} exchanges with {} are answered otherwise:\n{}",
        wrong.len(),
        release.number(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

#[test]
fn as_0_9_0_did() {
    replay(Release::V0_9_0);
}

#[test]
fn as_1_0_4_did() {
    replay(Release::V1_0_4);
}
