//! `coxswain check`: judges a storage tree without a running device, and changes nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use linux::disk::LinuxDisk;
use serde_json::json;
use store::check::Role;
use store::{Judgement, judge};

/// Judges the tree and prints the findings; success means that the next boot runs a complete, verified revision.
pub fn check(storage: &Path, as_json: bool) -> (String, ExitCode) {
    let disk = match LinuxDisk::open(storage) {
        Ok(disk) => disk,
        Err(error) => {
            let text = format!(
                "cannot open the storage {}: {error}; name the folder that holds trails/ and objects/\n",
                storage.display()
            );
            return (text, ExitCode::FAILURE);
        }
    };
    match judge(&disk) {
        Ok(judgement) => {
            let text = if as_json {
                render_json(&judgement)
            } else {
                render(&judgement)
            };
            let code = if judgement.boots().is_some() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
            (text, code)
        }
        Err(error) => (
            format!(
                "cannot judge {}: {}\n",
                storage.display(),
                store::explain(&error)
            ),
            ExitCode::FAILURE,
        ),
    }
}

fn role(role: Role) -> String {
    format!("{role:?}").to_ascii_lowercase()
}

fn render(judgement: &Judgement) -> String {
    let mut text = String::new();
    let mut line = |words: String| writeln!(text, "{words}").expect("a string takes every text");
    match judgement.boots() {
        Some(revision) => line(format!("the next boot runs {revision}")),
        None => {
            line("the next boot runs NOTHING: no complete, verified revision was found".to_owned())
        }
    }
    if let Some(problem) = &judgement.marker_problem {
        line(format!("marker: {problem}"));
    }
    for revision in &judgement.revisions {
        let verdict = match (&revision.problem, revision.bad.len()) {
            (Some(problem), _) => problem.clone(),
            (None, 0) => format!("complete, {} objects verified", revision.objects),
            (None, bad) => format!("{bad} of {} objects cannot be used", revision.objects),
        };
        line(format!(
            "{} ({}): {verdict}",
            revision.revision,
            role(revision.role)
        ));
        for bad in &revision.bad {
            line(format!(
                "  {} needed by {}: {}",
                bad.object, bad.key, bad.problem
            ));
        }
    }
    let (count, bytes) = judgement.unneeded;
    if count > 0 {
        line(format!(
            "{count} objects ({bytes} bytes) are needed by no revision; collection removes them"
        ));
    }
    for remark in &judgement.remarks {
        line(format!("note: {remark}"));
    }
    text
}

fn render_json(judgement: &Judgement) -> String {
    let revisions: Vec<_> = judgement
        .revisions
        .iter()
        .map(|revision| {
            json!({
                "revision": revision.revision,
                "role": role(revision.role),
                "complete": revision.is_complete(),
                "objects": revision.objects,
                "problem": revision.problem,
                "bad": revision.bad,
            })
        })
        .collect();
    let value = json!({
        "boots": judgement.boots(),
        "marker_problem": judgement.marker_problem,
        "revisions": revisions,
        "unneeded": {"objects": judgement.unneeded.0, "bytes": judgement.unneeded.1},
        "remarks": judgement.remarks,
    });
    format!("{value}\n")
}
