//! An update that adds a container to group `app` or `platform`, how long the socket is silent meanwhile, and who keeps its process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acceptance::http::Socket;
use serde_json::json;

use crate::Options;
use crate::figure::{Figure, limit, time as shown};
use crate::peer::ctr::Ctr;
use crate::samples::Samples;
use crate::subject::{SLEEP, Subject, platform_and_app};
use crate::watch::pid;

/// An answer that takes longer than this counts as no answer.
const SILENT_AFTER: Duration = Duration::from_millis(100);

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let mut subject = Subject::start(&[]);
    let mut peer = Ctr::start(&subject.image);
    let base = subject.sleeper(platform_and_app(), "steady-app", json!({"group": "app"}));
    let base = subject.sleeper(base, "steady-platform", json!({"group": "platform"}));
    subject.install("locals/base", &base);
    let kept = |status: &serde_json::Value| {
        ["steady-app", "steady-platform"].map(|name| pid(status, name).expect("it runs"))
    };
    let before = kept(&subject.watch.status());

    let mut theirs = Samples::default();
    let mut ours = [Samples::default(), Samples::default()];
    let (mut silent, mut longest) = <(Samples, Samples)>::default();
    let groups = ["app", "platform"];
    for group in groups {
        let more = subject.sleeper(base.clone(), "added", json!({"group": group}));
        subject
            .device
            .put_revision(&format!("locals/{group}"), &more);
    }
    for _ in 0..options.repeat {
        for (index, group) in groups.iter().enumerate() {
            theirs.push_time(peer.run(SLEEP));
            peer.clear();
            let over = AtomicBool::new(false);
            let socket = subject.device.socket.clone();
            let (took, (quiet, wait)) = std::thread::scope(|scope| {
                let listener = scope.spawn(|| silence(&socket, &over));
                let revision = format!("locals/{group}");
                let start = subject.run(&revision);
                let (_, runs) = subject.watch.runs("added", None);
                subject.watch.settled(&revision);
                over.store(true, Ordering::SeqCst);
                (runs - start, listener.join().expect("the listener lives"))
            });
            ours[index].push_time(took);
            silent.push_time(quiet);
            longest.push_time(wait);
            subject.run_without("locals/base", &["added"]);
        }
    }
    let after = kept(&subject.watch.status());
    let to_reach = limit(theirs.median(), 1.0, Duration::from_millis(100));
    let mut figures: Vec<Figure> = groups
        .iter()
        .zip(&ours)
        .map(|(group, ours)| Figure {
            what: format!(
                "update that adds a container to group `{group}`, from the command to its process"
            ),
            ours: shown(ours.median()),
            peer: format!("`ctr run` {}", shown(theirs.median())),
            ratio: Some(ours.median() / theirs.median()),
            to_reach: "<= 1.0 x + 100 ms".to_owned(),
            verdict: (ours.median() <= to_reach).into(),
        })
        .collect();
    let same = before == after;
    figures.push(Figure {
        what: format!(
            "the same, socket unreachable for (no answer within {})",
            shown(SILENT_AFTER.as_secs_f64())
        ),
        ours: format!(
            "{} in the worst update, longest wait {}; unchanged containers {} their PID",
            shown(silent.max()),
            shown(longest.max()),
            if same { "kept" } else { "LOST" }
        ),
        peer: "limit".to_owned(),
        ratio: None,
        to_reach: "0 s; PIDs kept".to_owned(),
        verdict: (silent.max() == 0.0 && same).into(),
    });
    figures
}

/// Asks on a new connection each time; tells how long there was no answer, and the longest wait.
fn silence(socket: &Socket, over: &AtomicBool) -> (Duration, Duration) {
    let (mut silent, mut longest) = (Duration::ZERO, Duration::ZERO);
    while !over.load(Ordering::SeqCst) {
        let start = Instant::now();
        let answered = socket
            .get("/containers")
            .is_ok_and(|answer| answer.status == 200);
        let wait = start.elapsed();
        longest = longest.max(wait);
        std::thread::sleep(Duration::from_millis(2));
        if !answered {
            silent += start.elapsed();
        } else if wait > SILENT_AFTER {
            silent += wait;
        }
    }
    (silent, longest)
}
