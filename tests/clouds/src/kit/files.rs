//! Cases about files: their links, names, hashes and ranges.

use serde_json::json;

use super::{
    Case, PLAIN, Sent, Stage, Until, each_file, is_object, leads_to, plain, success, with_file,
};

/// Reads of an object that never comes, within the time of a case.
fn patient(sent: &Sent) -> Result<(), String> {
    sent.must_not("deploymentBase", "closed/success")?;
    let reads = sent.all.iter().filter(|one| is_object(&one.request));
    match (reads.count(), sent.polls()) {
        (0..=30, 2..) => Ok(()),
        (reads, polls) => Err(format!("{reads} reads and {polls} polls in 15 s")),
    }
}

fn was_elsewhere(sent: &Sent) -> Result<(), String> {
    success(sent)?;
    match sent.elsewhere.len() {
        0 => Err("the files were not read where they are".to_owned()),
        _ => Ok(()),
    }
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "range-always",
        what: "a read without Range costs a row of the action's quota",
        judge: |sent| {
            success(sent)?;
            let bare = sent.all.iter().filter(|one| {
                one.request.path.contains("/artifacts/") && one.request.header("range").is_none()
            });
            match bare.count() {
                0 => Ok(()),
                count => Err(format!("{count} reads without Range")),
            }
        },
        ..PLAIN
    },
    Case {
        name: "range-200",
        what: "a Range that covers the whole file is answered 200 by older servers",
        mangle: |_, mut answer, _| {
            let whole = answer
                .header("content-range")
                .is_some_and(|range| range.starts_with("bytes 0-"));
            if answer.status == 206 && whole {
                answer.status = 200;
            }
            answer
        },
        ..PLAIN
    },
    Case {
        name: "links-gone",
        what: "a file is 404 at first: ask what is wanted, do not hammer",
        mangle: |request, answer, scene| {
            if request.path.contains("/artifacts/") && scene.same < 2 {
                plain(404, "")
            } else {
                answer
            }
        },
        ..PLAIN
    },
    Case {
        name: "links-dead",
        what: "a file stays 404: polled on, and not hammered",
        mangle: |request, answer, _| {
            if is_object(request) {
                plain(404, "")
            } else {
                answer
            }
        },
        until: Until::Seconds(15),
        judge: patient,
        ..PLAIN
    },
    Case {
        name: "files-unavailable",
        what: "a file stays 503: polled on, and not hammered",
        mangle: |request, answer, _| {
            if is_object(request) {
                plain(503, "")
            } else {
                answer
            }
        },
        until: Until::Seconds(15),
        judge: patient,
        ..PLAIN
    },
    Case {
        name: "link-of-a-cdn",
        what: "links lead to another host, by a relation of their own: followed, without the token",
        mangle: |request, answer, scene| {
            each_file(answer, request, |file| {
                let name = file["filename"].as_str().unwrap_or_default();
                let href = format!("{}/{name}?signature=x", scene.elsewhere);
                file["_links"] = json!({"cdn": {"href": href}});
            })
        },
        judge: was_elsewhere,
        ..PLAIN
    },
    Case {
        name: "file-elsewhere",
        what: "a file is redirected to another host: followed, and the token does not follow",
        mangle: |request, answer, scene| match request.path.rsplit_once("/artifacts/") {
            Some((_, name)) => leads_to(format!("{}/{name}", scene.elsewhere)),
            None => answer,
        },
        judge: was_elsewhere,
        ..PLAIN
    },
    Case {
        name: "plus-in-link",
        what: "a link writes a space as +, by which the server does not find it",
        stage: Stage::OddName,
        ..PLAIN
    },
    Case {
        name: "only-sha1",
        what: "hashes are missing or null but sha1 (gooseBit, old data)",
        mangle: |request, answer, _| {
            each_file(answer, request, |file| {
                let sha1 = file["hashes"]["sha1"].clone();
                file["hashes"] = json!({"sha1": sha1, "md5": null});
            })
        },
        ..PLAIN
    },
    Case {
        name: "wrong-hash",
        what: "a file is not what its hash says: an error, never success",
        mangle: |request, mut answer, _| {
            if is_object(request)
                && let Some(byte) = answer.body.last_mut()
            {
                *byte ^= 1;
            }
            answer
        },
        until: Until::Said("deploymentBase", "closed/failure"),
        judge: |sent| {
            sent.must("deploymentBase", "closed/failure")?;
            sent.must_not("deploymentBase", "closed/success")
        },
        ..PLAIN
    },
    Case {
        name: "five-gigabytes",
        what: "a file of 5,000,000,000 bytes that is not needed makes nothing unreadable",
        mangle: |request, answer, _| with_file(answer, request, "other.bin", 5_000_000_000),
        ..PLAIN
    },
    Case {
        name: "file-name-path",
        what: "a file is called ../../x: a text, not a path",
        mangle: |request, answer, _| with_file(answer, request, "../../x", 3),
        ..PLAIN
    },
];
