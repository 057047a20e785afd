//! Cases about files: their links, names, hashes and ranges.

use serde_json::json;

use super::{
    Case, PLAIN, Sent, Stage, Until, each_file, leads_to, no_object, plain, sent, spoiled, success,
    with_file,
};
use crate::hawkbit::{Release, decode};

/// A deployment with an object that never comes.
const PATIENT: Case = Case {
    until: Until::Seconds(15),
    judge: |sent| {
        sent.must_not("deploymentBase", "closed/success")?;
        let wanted = sent.files.iter().map(|(name, _)| name);
        let objects: Vec<&String> = wanted.filter(|name| *name != "manifest.json").collect();
        let reads = sent.all.iter().filter(|one| {
            let name = decode(sent::last(&one.request));
            objects.contains(&&name)
        });
        match (reads.count(), sent.polls()) {
            (1..=30, 2..) => Ok(()),
            (reads, polls) => Err(format!("{reads} reads and {polls} polls in 15 s")),
        }
    },
    ..PLAIN
};

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
        what: "a read without Range costs a row of the action's quota, and so does a HEAD or a checksum; few large reads cost little",
        judge: |sent| {
            success(sent)?;
            let files = sent.all.iter().map(|one| &one.request);
            let files: Vec<_> = files
                .filter(|request| request.path.contains("/artifacts/"))
                .collect();
            let costly = files.iter().filter(|request| {
                let has_range = request.method == "GET" && request.header("range").is_some();
                !has_range || request.path.ends_with(".MD5SUM")
            });
            match (costly.count(), files.len()) {
                (0, 0..=12) => Ok(()),
                (costly, all) => Err(format!(
                    "{all} reads of three files, {costly} of them cost a row"
                )),
            }
        },
        ..PLAIN
    },
    Case {
        name: "range-200",
        what: "a Range that covers the whole file is answered 200 by older servers",
        setup: |setup| setup.release = Release::V0_9_0,
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
        mangle: |request, answer, _| no_object(answer, request, 404),
        ..PATIENT
    },
    Case {
        name: "files-unavailable",
        what: "a file stays 503: polled on, and not hammered",
        mangle: |request, answer, _| no_object(answer, request, 503),
        ..PATIENT
    },
    Case {
        name: "link-refused",
        what: "a file's name makes a link that the server answers with 400: never success, and not hammered",
        stage: Stage::BadName,
        ..PATIENT
    },
    Case {
        name: "no-ranges",
        what: "another host breaks off, and sends the whole file to who asks for the rest: 200 is from byte 0",
        mangle: |request, answer, scene| {
            each_file(answer, request, |file| {
                let name = file["filename"].as_str().unwrap_or_default();
                let href = format!("{}/{name}?breaks", scene.elsewhere);
                file["_links"] = json!({"download-http": {"href": href}});
            })
        },
        judge: was_elsewhere,
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
        mangle: |request, answer, _| spoiled(answer, request),
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
        what: "files are called ../../…: a text, not a path",
        mangle: |request, answer, _| {
            each_file(answer, request, |file| {
                let name = file["filename"].as_str().unwrap_or_default();
                if name != "manifest.json" {
                    file["filename"] = json!(format!("../../{name}"));
                }
            })
        },
        ..PLAIN
    },
];
