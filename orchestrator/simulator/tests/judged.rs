//! Judging a storage without touching it, and reading the end of logs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use model::{Instant, Marker, ObjectId, Progress, State};
use simulator::disk::Disk as Sim;
use store::check::Role;
use store::disk::{Disk as _, WriteFile as _};
use store::{Begun, HashedUpload, NewRevision, Options, Store};

fn write(disk: &Sim, path: &str, bytes: &[u8]) {
    let path = Path::new(path);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = disk.create(path).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
}

fn upload(store: &Store<Sim>, bytes: &[u8]) -> ObjectId {
    let object = ObjectId::of(bytes);
    if let Begun::Upload(incoming) = store.begin_upload(object, None, Instant(0)).unwrap() {
        let mut upload = HashedUpload::new(incoming).unwrap();
        upload.append(bytes).unwrap();
        upload.finish(Instant(0)).unwrap();
    }
    object
}

fn put(store: &Store<Sim>, name: &str, objects: &[ObjectId]) {
    let mut manifest = "{\"#spec\":\"pantavisor-service-system@1\"".to_owned();
    for (n, object) in objects.iter().enumerate() {
        manifest.push_str(&format!(",\"_config/web/{n}\":\"{object}\""));
    }
    manifest.push('}');
    store
        .put_revision(NewRevision {
            revision: &name.parse().unwrap(),
            manifest: manifest.as_bytes(),
            progress: &Progress::new(State::New, "", 0),
            commit_message: None,
        })
        .unwrap();
}

fn device() -> (Sim, Store<Sim>, ObjectId, ObjectId) {
    let disk = Sim::default();
    let store = Store::open(disk.clone(), Options::default(), Instant(0)).store;
    let (one, two) = (upload(&store, b"one"), upload(&store, b"two"));
    upload(&store, b"nobody needs it");
    put(&store, "0", &[one]);
    put(&store, "locals/new", &[one, two]);
    put(&store, "locals/kept", &[two]);
    let marker = Marker {
        committed: "locals/new".parse().ok(),
        previous: "0".parse().ok(),
        ..Marker::default()
    };
    store.write_marker(&marker).unwrap();
    (disk, store, one, two)
}

fn boots(disk: &Sim) -> Option<String> {
    let before = disk.durable_files();
    let operations = disk.operations_ever();
    let judgement = store::judge(disk).unwrap();
    assert_eq!(
        disk.operations_ever(),
        operations,
        "judging changes nothing"
    );
    assert_eq!(disk.durable_files(), before);
    judgement.boots().map(ToString::to_string)
}

#[test]
fn a_healthy_storage() {
    let (disk, _, _, _) = device();
    let judgement = store::judge(&disk).unwrap();
    assert_eq!(judgement.remarks, [] as [&str; 0]);
    assert_eq!(judgement.unneeded, (1, 15));
    let roles: Vec<_> = judgement.revisions.iter().map(|one| one.role).collect();
    assert_eq!(roles, [Role::Committed, Role::Previous, Role::Kept]);
    assert_eq!(boots(&disk).as_deref(), Some("locals/new"));
}

#[test]
fn what_is_left_when_things_rot() {
    let (disk, _, one, two) = device();
    assert!(disk.damage(&format!("objects/{two}"), Some(b"rotten")));
    assert_eq!(
        boots(&disk).as_deref(),
        Some("0"),
        "the previous one is whole"
    );
    let judgement = store::judge(&disk).unwrap();
    assert_eq!(judgement.revisions[0].bad[0].problem, "corrupt");
    assert_eq!(judgement.remarks.len(), 2, "{:?}", judgement.remarks);
    assert!(disk.damage(&format!("objects/{one}"), None));
    assert_eq!(
        boots(&disk),
        None,
        "a kept revision is not booted by itself"
    );
}

#[test]
fn a_rotten_marker_has_a_copy() {
    let (disk, store, _, _) = device();
    assert!(disk.damage("boot/marker", Some(b"rotten")));
    assert_eq!(boots(&disk).as_deref(), Some("locals/new"));
    drop(store);
    let opened = Store::open(disk.clone(), Options::default(), Instant(0));
    assert_eq!(opened.notices.len(), 1, "{:?}", opened.notices);
    assert_eq!(opened.store.read_marker().unwrap().notice, None, "repaired");
    assert!(disk.damage("boot/marker", Some(b"rotten")));
    assert!(disk.damage("boot/marker.copy", Some(b"{\"version\":9}")));
    assert!(opened.store.read_marker().is_err());
    assert_eq!(
        boots(&disk).as_deref(),
        Some("0"),
        "the factory revision is left"
    );
}

#[test]
fn a_rotten_manifest_is_noticed() {
    let (disk, store, _, _) = device();
    let rotten = b"{\"#spec\":\"pantavisor-service-system@1\"}";
    assert!(disk.damage("trails/locals/new/.pvr/json", Some(rotten)));
    assert!(store.read_manifest(&"locals/new".parse().unwrap()).is_err());
    assert_eq!(boots(&disk).as_deref(), Some("0"));
}

#[test]
fn a_full_disk_can_be_opened() {
    let (disk, store, _, _) = device();
    drop(store);
    disk.set_full(true);
    let store = Store::open(disk.clone(), Options::default(), Instant(0)).store;
    assert!(store.read_marker().unwrap().marker.is_some());
    let empty = Sim::default();
    empty.set_full(true);
    let opened = Store::open(empty, Options::default(), Instant(0));
    assert!(!opened.notices.is_empty());
}

#[test]
fn newest_metadata_first() {
    use model::metadata::MetaKind::Device;
    let disk = Sim::default();
    let store = Store::open(disk.clone(), Options::default(), Instant(0)).store;
    for (key, value) in [("a", "1"), ("..", "2"), ("a%2Fb", "3"), ("a", "4")] {
        store
            .put_meta(Device, &key.parse().unwrap(), value.as_bytes())
            .unwrap();
    }
    drop(store);
    let store = Store::open(disk, Options::default(), Instant(0)).store;
    let entries = store.load_meta(Device).unwrap().entries;
    let entries: Vec<_> = entries
        .iter()
        .map(|(key, value)| (key.as_str(), std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(entries, [("a%2Fb", "3"), ("..", "2"), ("a", "4")]);
}

#[test]
fn the_end_of_a_log() {
    let (disk, store, _, _) = device();
    let (revision, container) = ("0".parse().unwrap(), "web".parse().unwrap());
    let tail = |lines, bytes| store.tail_log(&revision, &container, lines, bytes).unwrap();
    assert_eq!(tail(5, 100), [] as [&str; 0]);
    disk.set_time(1);
    write(&disk, "logs/0/web/console.log.1", b"one\ntwo\n");
    disk.set_time(2);
    write(&disk, "logs/0/web/lxc/console.log", b"three\nfour\n\xff\n");
    disk.set_time(3);
    write(&disk, "logs/0/web/console.log.2.gz", b"packed");
    assert_eq!(tail(2, 100), ["four", "\u{fffd}"]);
    assert_eq!(tail(9, 100), ["one", "two", "three", "four", "\u{fffd}"]);
    assert_eq!(tail(4, 100), ["two", "three", "four", "\u{fffd}"]);
    assert_eq!(tail(9, 10), ["four", "\u{fffd}"], "no line is cut");
}
