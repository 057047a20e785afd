//! Payloads for clouds, in every form.

use std::fs;

use clap::Parser;
use serde_json::json;

use super::super::AuthorError;
use super::{Home, run};

#[derive(Parser)]
struct PayloadCli {
    #[command(subcommand)]
    command: super::super::PayloadCommand,
}

/// Makes a payload; as `--json` shows it.
fn payload(words: &[&str]) -> Result<serde_json::Value, AuthorError> {
    let words = std::iter::once("payload").chain(words.iter().copied());
    let cli = PayloadCli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    let made = cli.command.run()?;
    assert!(!made.lines().is_empty());
    Ok(serde_json::to_value(made).unwrap())
}

#[test]
fn payloads_in_all_forms() {
    let home = Home::new();
    let dir = home.text("rev");
    run(&["new", &dir]).unwrap();
    for name in ["web", "app"] {
        let root = home.rootfs(&format!("root-{name}"));
        fs::write(home.path(&format!("root-{name}/name")), name).unwrap();
        let words = [
            "add-container",
            &dir,
            name,
            "--rootfs",
            &root,
            "--command",
            "/bin/web",
        ];
        run(&words).unwrap();
    }
    fs::write(home.path("conf"), "port 80").unwrap();
    run(&[
        "set-config",
        &dir,
        "web",
        "/etc/web.conf",
        &home.text("conf"),
    ])
    .unwrap();
    let old = home.text("old.tgz");
    run(&["export", &dir, &old]).unwrap();
    fs::write(home.path("conf"), "port 81").unwrap();
    run(&[
        "set-config",
        &dir,
        "web",
        "/etc/web.conf",
        &home.text("conf"),
    ])
    .unwrap();
    run(&["remove-container", &dir, "app"]).unwrap();

    let made = payload(&["bundle", &dir, &home.text("a.tar")]).unwrap();
    assert_eq!(made["files"].as_array().unwrap().len(), 1);
    assert!(client::Bundle::open(&home.path("a.tar")).is_ok());
    payload(&["bundle", &dir, &home.text("a.tgz"), "--gzip"]).unwrap();

    let made = payload(&["separate", &dir, &home.text("all")]).unwrap();
    let names: Vec<&str> = made["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(names[0], "manifest.json");
    assert_eq!(names.len(), 3, "the image and the file: {names:?}");
    for (file, name) in made["files"].as_array().unwrap().iter().zip(&names).skip(1) {
        assert_eq!(file["sha256"], **name);
    }
    let made = payload(&["separate", &dir, &home.text("new"), "--base", &old]).unwrap();
    assert_eq!(made["files"].as_array().unwrap().len(), 2, "{made}");
    let again = payload(&["separate", &dir, &home.text("new")]);
    assert!(matches!(again, Err(AuthorError::Exists { .. })));

    let made = payload(&["patch", &dir, &home.text("diff"), "--base", &old]).unwrap();
    assert_eq!(made["files"].as_array().unwrap().len(), 2, "{made}");
    let text = fs::read(home.path("diff/patch.json")).unwrap();
    let patch: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let removed: Vec<&str> = patch["#remove"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap())
        .collect();
    assert!(removed.iter().all(|key| key.starts_with("app/")) && removed.len() >= 2);
    assert!(patch["_config/web/etc/web.conf"].is_string());
    assert!(patch.get("web/run.json").is_none(), "only what differs");

    let words = [
        "patch",
        &dir,
        &home.text("part"),
        "--container",
        "web",
        "--remove",
        "old",
    ];
    payload(&words).unwrap();
    let text = fs::read(home.path("part/patch.json")).unwrap();
    let patch: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(patch["#replace"], json!(["web"]));
    assert_eq!(patch["#remove"], json!(["old"]));
    assert_eq!(patch["web/run.json"]["name"], "web");
    assert!(matches!(
        payload(&["patch", &dir, &home.text("x")]),
        Err(AuthorError::NoPayload { .. })
    ));
    assert!(matches!(
        payload(&["patch", &dir, &home.text("x"), "--container", "none"]),
        Err(AuthorError::NoContainer { .. })
    ));

    let made = payload(&["plain", &dir, &home.text("plain"), "web"]).unwrap();
    assert_eq!(made["rule"], "web.squashfs=web");
    assert!(home.path("plain/web.squashfs").exists());
    assert!(payload(&["plain", &dir, &home.text("y"), "web", "--name", "a b"]).is_err());
}
