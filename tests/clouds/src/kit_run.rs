//! Carries out cases of the kit: a fresh server for each, the client started by whoever asks, the judgement as a line of a table.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acceptance::image::{busybox, object};
use acceptance::manifest::Manifest;
use serde_json::json;

use crate::hawkbit::{Hawkbit as Ours, Hook, Release, Setup, serve_with};
use crate::kit::{Case, Exchange, Log, Sent, Stage, Until};
use crate::management::{Access, Hawkbit, How, Management as _};

/// Longest time that a case waits for a word.
const PATIENCE: Duration = Duration::from_secs(120);

fn publish(operator: &Hawkbit, name: &str) -> u64 {
    let image = busybox(&[]);
    let filler = object(format!("filler of {name}").repeat(500).as_bytes());
    let manifest = Manifest::new()
        .container(
            "web",
            &image,
            &["/bin/sleep", "1000"],
            json!({"group": "app"}),
        )
        .key("web/filler.bin", json!(filler.sha256))
        .text();
    operator.publish(
        name,
        &[
            ("manifest.json", manifest.as_bytes()),
            (&image.sha256, &image.bytes),
            (&filler.sha256, &filler.bytes),
        ],
    )
}

fn stage(operator: &Hawkbit, case: &Case) {
    let assign = |name: &str, how: &How| {
        let set = publish(operator, name);
        operator.assign("device", set, how)
    };
    let name = case.name;
    match case.stage {
        Stage::Nothing => {}
        Stage::Forced => {
            assign(name, &How::Forced);
        }
        Stage::DownloadOnly => {
            assign(name, &How::DownloadOnly);
        }
        Stage::Closed => {
            // The first of January: closed on every other day.
            let how = How::Window("0 0 3 1 1 ? *".to_owned(), "00:00:01".to_owned());
            assign(name, &how);
        }
        Stage::Superseded => {
            assign(&format!("{name}-old"), &How::Forced);
            assign(name, &How::Forced);
        }
    }
}

/// Runs a case; `start` starts the client and gives back what ends it when it is dropped.
///
/// # Errors
/// What the client did wrong.
///
/// # Panics
/// When no server can be started.
pub fn run<C>(case: &Case, start: impl FnOnce(&Access) -> C) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a run time");
    let log = Log::default();
    let began = Instant::now();
    let seen = log.clone();
    let mangle = case.mangle;
    let hook: Hook = Arc::new(move |request, answer| {
        let mut all = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = mangle(request, answer, all.len());
        all.push(Exchange {
            at_ms: began.elapsed().as_millis(),
            request: request.clone(),
            status: answer.status,
        });
        answer
    });
    let mut setup = Setup::stock(Release::V1_0_4);
    setup.polling_min_s = 1;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let server = Ours::new(setup, i64::try_from(now).unwrap_or_default());
    let served = runtime.block_on(serve_with(server, hook)).expect("a port");
    let operator = Hawkbit::new(&served.url(), "admin", "admin", "the kit's server");
    let access = operator.add_device("device");
    stage(&operator, case);
    let client = start(&access);
    match case.until {
        Until::Seconds(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
        Until::Said(word) => {
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end
                && !Sent::new(&log)
                    .words("deploymentBase")
                    .iter()
                    .any(|found| found == word)
            {
                std::thread::sleep(Duration::from_millis(100));
            }
            // What it does afterwards counts too.
            std::thread::sleep(Duration::from_secs(3));
        }
    }
    drop(client);
    (case.judge)(&Sent::new(&log))
}
