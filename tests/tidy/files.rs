//! What every file must have, and what none may have.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is below the root")
        .to_owned()
}

/// Every file that git knows or would add, with its text.
fn files(ending: &str) -> Vec<(String, String)> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs: the repository is a checkout");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).expect("our file names are UTF-8");
    let files = names
        .lines()
        .filter(|name| name.ends_with(ending))
        .filter_map(|name| {
            let text = std::fs::read_to_string(root().join(name)).ok()?;
            Some((name.to_owned(), text))
        });
    let files: Vec<_> = files.collect();
    assert!(!files.is_empty(), "no file ends with {ending}");
    files
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    let silent: Vec<String> = files(".rs")
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(name, _)| name)
        .collect();
    assert!(
        silent.is_empty(),
        "files without a `//!` header: {silent:?}"
    );
}

#[test]
fn no_file_needs_a_map() {
    const LINES_MAX: usize = 800;
    // A list of cases is read one case at a time.
    const TEST_LINES_MAX: usize = 1000;
    let long: Vec<String> = files(".rs")
        .into_iter()
        .filter_map(|(name, text)| {
            let code = text
                .split("\n#[cfg(test)]\nmod tests")
                .next()
                .unwrap_or(&text)
                .lines()
                .count();
            let limit = if name.contains("tests/") {
                TEST_LINES_MAX
            } else {
                LINES_MAX
            };
            (code > limit).then(|| format!("{name}: {code} lines before its tests"))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_module_is_an_attic() {
    let banned = [
        "util", "utils", "helper", "helpers", "manager", "misc", "common",
    ];
    for (name, _) in files(".rs") {
        for part in Path::new(&name).with_extension("").components() {
            let part = part.as_os_str().to_string_lossy();
            assert!(
                !banned.contains(&part.as_ref()),
                "{name}: {part:?} does not say what is in it"
            );
        }
    }
}

#[test]
fn nothing_is_left_open() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X "),
    ];
    for (name, text) in files(".rs") {
        for (number, line) in text.lines().enumerate() {
            assert!(
                !marks.iter().any(|mark| line.contains(mark)),
                "{name}:{}: {line}",
                number + 1
            );
        }
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in files(".md") {
        let folder = root().join(&name);
        let folder = folder.parent().expect("a file has a folder");
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.contains(' ') {
                continue;
            }
            if !folder.join(path).exists() {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn decisions_are_complete() {
    let pages = files(".md")
        .into_iter()
        .filter(|(name, _)| name.starts_with("orchestrator/decisions/0"));
    for (name, text) in pages {
        for heading in [
            "## Context",
            "## Decision",
            "## Rejected",
            "## Consequences",
        ] {
            assert!(text.contains(heading), "{name} has no {heading:?}");
        }
    }
}
