//! Cases about polling, being let in, and answers that are none.

use serde_json::json;

use super::{Case, PLAIN, Sent, Stage, Until, edit, is_details, is_root, leads_to, plain};
use crate::hawkbit::{Request, Response};

fn sleep(answer: Response, request: &Request, text: &str) -> Response {
    if !is_root(request) || answer.status != 200 {
        return answer;
    }
    edit(answer, |root| {
        root["config"]["polling"]["sleep"] = json!(text)
    })
}

fn few_polls(sent: &Sent) -> Result<(), String> {
    match sent.polls() {
        1..=4 => Ok(()),
        count => Err(format!("{count} polls in 8 s")),
    }
}

const SLEEPS: Case = Case {
    stage: Stage::Nothing,
    until: Until::Seconds(8),
    judge: few_polls,
    ..PLAIN
};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "sleep-iso",
        what: "sleep is PT24H40M58.491S: a day, not a hot loop",
        mangle: |request, answer, _| sleep(answer, request, "PT24H40M58.491S"),
        ..SLEEPS
    },
    Case {
        name: "sleep-garbage",
        what: "sleep cannot be read: an interval of the client's own, not 0",
        mangle: |request, answer, _| sleep(answer, request, "aa:bb:cc"),
        ..SLEEPS
    },
    Case {
        name: "sleep-zero",
        what: "sleep is 00:00:00: an interval of the client's own",
        mangle: |request, answer, _| sleep(answer, request, "00:00:00"),
        ..SLEEPS
    },
    Case {
        name: "sleep-and-offer",
        what: "sleep cannot be read, or is PT24H40M58.491S: what the same answer offers is installed",
        mangle: |request, answer, scene| match scene.same % 2 {
            0 => sleep(answer, request, "aa:bb:cc"),
            _ => sleep(answer, request, "PT24H40M58.491S"),
        },
        ..PLAIN
    },
    Case {
        name: "attributes-once",
        what: "attributes are asked for until they came: told once, not at each poll",
        stage: Stage::Nothing,
        until: Until::Seconds(8),
        judge: |sent| match (sent.count("PUT", "/configData"), sent.polls()) {
            (1..=2, 3..) => Ok(()),
            (count, polls) => Err(format!("told {count} times, {polls} polls")),
        },
        ..PLAIN
    },
    Case {
        name: "unauthorized",
        what: "401 without a word: slow and loud, not a flood",
        mangle: |_, _, _| plain(401, ""),
        until: Until::Seconds(8),
        judge: |sent| match sent.all.len() {
            1..=4 => Ok(()),
            count => Err(format!("{count} requests in 8 s")),
        },
        ..PLAIN
    },
    Case {
        name: "root-elsewhere",
        what: "the server's address leads to another host: the token stays at home",
        mangle: |request, _, scene| leads_to(format!("{}{}", scene.elsewhere, request.path)),
        until: Until::Seconds(8),
        judge: |sent| match sent.all.len() {
            1..=6 => Ok(()),
            count => Err(format!("{count} requests in 8 s")),
        },
        ..PLAIN
    },
    Case {
        name: "too-many",
        what: "429 without body, the rate filter: wait, then go on",
        // Twice: the pause after each is the client's own, and may be half a minute.
        mangle: |_, answer, scene| {
            if matches!(scene.before, 1 | 4) {
                plain(429, "")
            } else {
                answer
            }
        },
        ..PLAIN
    },
    Case {
        name: "broken-server",
        what: "500 and garbage now and then: tried again",
        mangle: |_, answer, scene| match scene.before % 5 {
            2 => plain(500, ""),
            4 => plain(200, "<html>proxy error</html>"),
            _ => answer,
        },
        ..PLAIN
    },
    Case {
        name: "no-details",
        what: "modules without a version and with members that nobody knows are no reason to fail",
        mangle: |request, answer, _| {
            if !is_details(request) {
                return answer;
            }
            edit(answer, |body| {
                let chunks = body["deployment"]["chunks"].as_array_mut();
                for chunk in chunks.into_iter().flatten() {
                    if let Some(chunk) = chunk.as_object_mut() {
                        chunk.remove("version");
                        chunk.insert("surprise".to_owned(), json!([1, {"a": null}]));
                    }
                }
            })
        },
        ..PLAIN
    },
    Case {
        name: "two-modules",
        what: "the files stand in two modules, and what tells of the others comes last",
        mangle: |request, answer, _| {
            if !is_details(request) {
                return answer;
            }
            edit(answer, |body| {
                let chunks = body["deployment"]["chunks"].as_array_mut();
                let Some(chunks) = chunks.filter(|chunks| chunks.len() == 1) else {
                    return;
                };
                let mut second = chunks[0].clone();
                second["part"] = json!("bApp");
                second["name"] = json!("another");
                for (chunk, has_manifest) in [(&mut chunks[0], false), (&mut second, true)] {
                    if let Some(files) = chunk["artifacts"].as_array_mut() {
                        files.retain(|file| (file["filename"] == "manifest.json") == has_manifest);
                    }
                }
                chunks.push(second);
            })
        },
        ..PLAIN
    },
    Case {
        name: "null-details",
        what: "details are null for a moment (gooseBit's 404): nothing is refused",
        mangle: |request, answer, scene| {
            if is_details(request) && scene.same == 0 {
                plain(200, "null")
            } else {
                answer
            }
        },
        judge: |sent| {
            sent.must_not("deploymentBase", "closed/failure")?;
            super::success(sent)
        },
        ..PLAIN
    },
    Case {
        name: "unknown-words",
        what: "words that nobody knows allow nothing",
        mangle: |request, answer, _| {
            if !is_details(request) {
                return answer;
            }
            edit(answer, |body| {
                body["deployment"]["download"] = json!("perhaps");
                body["deployment"]["update"] = json!("perhaps");
            })
        },
        until: Until::Seconds(10),
        judge: |sent| {
            sent.must_not("deploymentBase", "closed/success")?;
            let details = sent.count("GET", "/deploymentBase/");
            match (details, sent.count("GET", "/artifacts/")) {
                (1.., 0) => Ok(()),
                (details, files) => Err(format!("{details} reads of details, {files} of files")),
            }
        },
        ..PLAIN
    },
];
