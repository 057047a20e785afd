//! Storages as a real Pantavisor left them (`trees/`, recorded) are judged and taken over, and nothing of Pantavisor's is touched.
//!
//! The trees name what lies where; manifests come from the recordings of the same device. Images, which are large, are stood in for by
//! a few bytes, and the manifests name those.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use linux::disk::LinuxDisk;
use model::metadata::MetaKind;
use model::{Instant, Marker, ObjectId, RevisionId};
use serde_json::Value;
use store::{Options, Store, TakeoverRecord, judge};

const IMAGES: [&str; 2] = [
    "c5b37d4fb5ed11bef346c3ea4453c8dcff3a0829e476ca02869d80fdd1317e8a",
    "efdc00d098dce394a0f4267ffc0e913f3254d1bfc65f5fae10dd41a263bd4c6e",
];

fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(beside(path)).unwrap()).unwrap()
}

/// The name under which an image's stand-in lies.
fn renamed(text: &str) -> String {
    IMAGES.iter().fold(text.to_owned(), |text, image| {
        text.replace(image, &ObjectId::of(image.as_bytes()).to_string())
    })
}

/// What was put as this revision.
fn manifest(revision: &str) -> String {
    let recordings = [
        "steps",
        "lifecycle-good-no-reboot",
        "lifecycle-fail-bad-init",
    ];
    let lines = recordings.map(|name| {
        let path = format!("../server/tests/recordings/{name}.jsonl");
        fs::read_to_string(beside(&path)).unwrap()
    });
    let target = format!("/steps/{revision}");
    lines
        .iter()
        .flat_map(|text| text.lines())
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["request"]["path"] == *target)
        .find_map(|line| {
            let asked = ["/request/body", "/response/body"];
            let mut bodies = asked.iter().filter_map(|at| line.pointer(at)?.as_str());
            bodies.find(|body| body.len() > 1000).map(str::to_owned)
        })
        .unwrap()
}

/// Builds the tree of a recording below a folder, with links where links were.
fn rebuild(tree: &Value, root: &Path, variables: &str) {
    let mut linked: BTreeMap<String, String> = BTreeMap::new();
    for group in tree["same_inode"].as_array().unwrap() {
        let names: Vec<_> = group
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let first = renamed(names[0]);
        linked.extend(
            names[1..]
                .iter()
                .map(|name| ((*name).to_owned(), first.clone())),
        );
    }
    for entry in tree["entries"].as_array().unwrap() {
        let name = entry["path"].as_str().unwrap();
        let path = root.join(renamed(name));
        match entry["type"].as_str().unwrap() {
            "dir" => fs::create_dir_all(&path).unwrap(),
            "symlink" => symlink(entry["target"].as_str().unwrap(), &path).unwrap(),
            _ if linked.contains_key(name) => {
                fs::hard_link(root.join(&linked[name]), &path).unwrap()
            }
            _ => {
                let revision = name
                    .strip_prefix("trails/")
                    .and_then(|name| name.strip_suffix("/.pvr/json"));
                let image = IMAGES
                    .iter()
                    .find(|image| name == format!("objects/{image}"));
                let bytes = match (name, revision, image) {
                    ("boot/uboot.txt", ..) => padded(variables),
                    (_, Some(revision), _) => renamed(&manifest(revision)).into_bytes(),
                    (_, None, Some(image)) => image.as_bytes().to_vec(),
                    (_, None, None) => entry["content"].as_str().unwrap_or("").into(),
                };
                fs::write(&path, bytes).unwrap();
            }
        }
        if let (Some(mode), false) = (entry["mode"].as_str(), path.is_symlink()) {
            // Some of its folders cannot be entered but by root, which tests need not be.
            let mode = u32::from_str_radix(mode.trim_start_matches("0o"), 8).unwrap() | 0o700;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// As Pantavisor writes it.
fn padded(variables: &str) -> Vec<u8> {
    let mut bytes = variables.replace(' ', "\0").into_bytes();
    bytes.resize(65536, 0);
    bytes
}

/// Every file with its bytes, every link with its target.
fn contents(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_owned();
        if path.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            found.insert(name, target.to_str().unwrap().into());
        } else if path.is_dir() {
            contents(root, &path, found);
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
}

fn take_over(
    tree: &str,
    variables: &str,
    booted: Option<&str>,
    boots: &str,
) -> (Marker, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    rebuild(&json(tree), root, variables);
    let usrmeta = root.join("cache/usrmeta");
    fs::write(usrmeta.join("place"), "cellar").unwrap();
    fs::create_dir(usrmeta.join("odd")).unwrap();
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    contents(root, root, &mut before);

    let judged = judge(&LinuxDisk::open(root).unwrap()).unwrap();
    assert_eq!(judged.boots().map(RevisionId::as_str), Some(boots));
    assert!(
        judged
            .remarks
            .iter()
            .any(|it| it.contains("Pantavisor left this storage")),
        "{:?}",
        judged.remarks
    );
    contents(root, root, &mut after);
    assert_eq!(before, after, "judging changes nothing");

    let disk = LinuxDisk::open(root).unwrap();
    let opened = Store::open(disk, Options::default(), Instant::ZERO);
    assert_eq!(opened.notices, Vec::<String>::new());
    let store = opened.store;
    let found = store.pantavisor().unwrap().unwrap();
    assert_eq!(found.odd, Vec::<String>::new());
    let odd = store.import_metadata().unwrap();
    let marker = found.marker(booted.map(|it| it.parse().unwrap()).as_ref(), 3);
    let trial = marker.trial.as_ref().map(|trial| trial.revision.clone());
    store.set_takeover(&TakeoverRecord::new(trial)).unwrap();
    store.write_marker(&marker).unwrap();

    let user = store.load_meta(MetaKind::User).unwrap().entries;
    let user: Vec<_> = user
        .iter()
        .map(|(key, value)| (key.as_str(), &value[..]))
        .collect();
    assert_eq!(user, [("place", &b"cellar"[..])]);
    let device = store.load_meta(MetaKind::Device).unwrap().entries;
    assert_eq!(
        device,
        [],
        "what Pantavisor publishes by itself would only be old"
    );
    after.clear();
    contents(root, root, &mut after);
    for (path, bytes) in &before {
        assert_eq!(
            after.get(path),
            Some(bytes),
            "{} is Pantavisor's",
            path.display()
        );
    }
    let judged = judge(&LinuxDisk::open(root).unwrap()).unwrap();
    assert_eq!(judged.boots().map(RevisionId::as_str), Some(boots));
    assert_eq!(judged.marker_problem, None);
    (marker, odd)
}

#[test]
fn a_storage_with_an_update_that_is_not_committed() {
    let tree = "tests/trees/updated.json";
    let (marker, odd) = take_over(tree, "pv_rev=0 pv_try=locals/good1 ", None, "locals/good1");
    assert_eq!(marker.committed.unwrap().as_str(), "0");
    let trial = marker.trial.unwrap();
    assert_eq!(
        (trial.revision.as_str(), trial.by_reboot),
        ("locals/good1", false)
    );
    assert_eq!(odd.len(), 1, "{odd:?}");
    assert!(odd[0].contains("cache/usrmeta/odd is no file"), "{odd:?}");
    let booted = Some("locals/good1");
    let (marker, _) = take_over(
        tree,
        "pv_rev=0 pv_try=locals/good1 ",
        booted,
        "locals/good1",
    );
    assert!(marker.trial.unwrap().by_reboot);
}

#[test]
fn a_storage_after_an_update_that_failed() {
    let (marker, _) = take_over("tests/trees/failed.json", "pv_rev=0 pv_try= ", None, "0");
    assert_eq!(marker.committed.unwrap().as_str(), "0");
    assert_eq!(marker.trial, None);
}
