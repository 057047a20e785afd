//! Every store operation, lived in every way with up to two power cuts.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use model::claim::{Claim, Kept};
use model::failure::{Cause, Failure, Pressure};
use model::marker::Trial;
use model::metadata::{MetaKey, MetaKind};
use model::{Marker, ObjectId, Progress, RevisionId, State, WallTime};
use store::disk::{Disk as _, WriteFile as _};
use store::{Begun, HashedUpload, NewRevision, Options, Reading, UploadError};

use crate::broken::Bug;
use crate::lives::{Explorer, LATER, Operation, Seen, TestStore};

pub(crate) fn revision(name: &str) -> RevisionId {
    name.parse().expect("tests use good names")
}

pub(crate) fn new_progress() -> Progress {
    Progress::new(State::New, model::progress::message::READY_TO_RUN, 0)
}

/// A manifest that needs these objects. The store never parses it here, only the checker looks for names in it.
pub(crate) fn manifest(objects: &[&[u8]], version: u32) -> Vec<u8> {
    let objects: Vec<String> = objects
        .iter()
        .enumerate()
        .map(|(n, bytes)| format!("\"web/{n}\":\"{}\"", ObjectId::of(bytes)))
        .collect();
    let objects = objects.join(",");
    format!("{{\"#spec\":\"pantavisor-service-system@1\",\"v\":{version},{objects}}}").into_bytes()
}

pub(crate) const ONE: &[u8] = b"the first object, long enough to be torn";
const TWO: &[u8] = b"the second object, of another length altogether";

/// One upload in two pieces. `Ok` is the answer that a client gets.
pub(crate) fn upload(store: &TestStore, bytes: &[u8]) -> Result<(), UploadError> {
    let object = ObjectId::of(bytes);
    match store.begin_upload(object, Some(bytes.len() as u64), LATER)? {
        Begun::Exists => Ok(()),
        Begun::Upload(incoming) => {
            let mut upload = HashedUpload::new(incoming)?;
            let (first, second) = bytes.split_at(bytes.len() / 2);
            upload.append(first)?;
            upload.append(second)?;
            upload.finish(LATER)
        }
    }
}

/// A step that is done once: an object that has to be there when it was answered.
pub(crate) fn upload_once(
    store: &TestStore,
    seen: &mut Seen,
    step: &'static str,
    bytes: &[u8],
) -> bool {
    if !seen.done.contains(step) && upload(store, bytes).is_ok() {
        seen.done.insert(step);
        seen.objects.insert(ObjectId::of(bytes));
    }
    seen.done.contains(step)
}

/// A step that changes one thing, until it is answered.
fn change_once<E>(
    seen: &mut Seen,
    step: &'static str,
    changes: &[(&str, Option<&[u8]>)],
    act: impl FnOnce() -> Result<(), E>,
) -> bool {
    if !seen.done.contains(step) {
        for (name, value) in changes {
            seen.attempt(name, *value);
        }
        if act().is_ok() {
            seen.done.insert(step);
            for (name, value) in changes {
                seen.answered(name, *value);
            }
        }
    }
    seen.done.contains(step)
}

pub(crate) fn put(
    store: &TestStore,
    seen: &mut Seen,
    step: &'static str,
    name: &str,
    bytes: &[u8],
) -> bool {
    let progress = new_progress();
    let changes = [
        (format!("manifest:{name}"), Some(bytes)),
        (format!("message:{name}"), Some(&b"hello"[..])),
        (format!("done:{name}"), None),
    ];
    let changes: Vec<(&str, Option<&[u8]>)> = changes
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    change_once(seen, step, &changes, || {
        store.put_revision(NewRevision {
            revision: &revision(name),
            manifest: bytes,
            progress: &progress,
            commit_message: Some(b"hello"),
        })
    })
}

pub(crate) fn set_marker(
    store: &TestStore,
    seen: &mut Seen,
    step: &'static str,
    name: &str,
) -> bool {
    let marker = Marker {
        committed: Some(revision(name)),
        trial: Some(Trial {
            revision: revision(name),
            tries_left: 3,
            by_reboot: false,
        }),
        ..Marker::default()
    };
    change_once(seen, step, &[("marker", Some(name.as_bytes()))], || {
        store.write_marker(&marker).map(drop)
    })
}

/// What happened before, with no faults.
fn prepared(is_done: bool) {
    assert!(is_done, "preparing a storage without faults succeeds");
}

pub(crate) fn nothing(_: &TestStore, _: &mut Seen) {}

pub(crate) fn two_revisions(store: &TestStore, seen: &mut Seen) {
    prepared(upload_once(store, seen, "p1", ONE));
    prepared(put(store, seen, "p2", "locals/a", &manifest(&[ONE], 1)));
    prepared(put(store, seen, "p3", "0", &manifest(&[ONE], 0)));
    prepared(set_marker(store, seen, "p4", "0"));
}

fn upload_one(store: &TestStore, seen: &mut Seen) -> bool {
    upload_once(store, seen, "upload", ONE)
}

/// What was kept is gone on with; what is not right in it is found out.
fn resume(store: &TestStore, seen: &mut Seen) -> bool {
    let object = ObjectId::of(ONE);
    let attempt = || -> Result<(), UploadError> {
        let kept = store.upload_offset(&object)?.unwrap_or(0);
        let expected = Some(ONE.len() as u64);
        match store.resume_upload(object, kept, expected, LATER)? {
            Begun::Exists => Ok(()),
            Begun::Upload(incoming) => {
                let mut upload = HashedUpload::new(incoming)?;
                upload.append(&ONE[usize::try_from(kept).expect("small")..])?;
                upload.finish(LATER)
            }
        }
    };
    if !seen.done.contains("interrupted") {
        if let Ok(Begun::Upload(mut first)) =
            store.begin_upload(object, Some(ONE.len() as u64), LATER)
        {
            drop(first.append(&ONE[..20]));
        }
        seen.done.insert("interrupted");
    }
    if !seen.done.contains("upload") && attempt().is_ok() {
        seen.done.insert("upload");
        seen.objects.insert(object);
    }
    seen.done.contains("upload")
}

/// Two clients send the same object at once; each answer counts.
fn upload_twice_at_once(store: &TestStore, seen: &mut Seen) -> bool {
    let object = ObjectId::of(ONE);
    let begin = || store.begin_upload(object, None, LATER).ok();
    let (first, second) = (begin(), begin());
    let mut answered = 0;
    let (mut first, mut second) = match (first, second) {
        (Some(Begun::Upload(first)), Some(Begun::Upload(second))) => (first, second),
        (first, second) => {
            for begun in [first, second] {
                if matches!(begun, Some(Begun::Exists)) {
                    seen.objects.insert(object);
                    answered += 1;
                }
            }
            return answered == 2;
        }
    };
    drop(first.append(&ONE[..10]));
    if second.append(ONE).is_ok() && second.finish(object, LATER).is_ok() {
        seen.objects.insert(object);
        answered += 1;
    }
    if first.append(&ONE[10..]).is_ok() && first.finish(object, LATER).is_ok() {
        seen.objects.insert(object);
        answered += 1;
    }
    answered == 2
}

fn corrupt_object(store: &TestStore, seen: &mut Seen) {
    seen.rotten.insert(ObjectId::of(ONE));
    let path = store::layout::object(&ObjectId::of(ONE));
    let mut file = store.disk().create(&path).expect("no faults");
    file.append(b"not what its name says").expect("no faults");
    file.sync().expect("no faults");
    store
        .disk()
        .sync_dir(Path::new("objects"))
        .expect("no faults");
}

/// The corrupt one is found, and the good one takes its place.
fn upload_over_corrupt(store: &TestStore, seen: &mut Seen) -> bool {
    upload_once(store, seen, "upload", ONE)
}

fn verify_corrupt(store: &TestStore, seen: &mut Seen) -> bool {
    let object = ObjectId::of(ONE);
    let bad = store.verify_objects(&[(object, "web/root".to_owned())], Reading::Always);
    let quarantined = store.has_object(&object).is_ok_and(|has| !has);
    assert!(!bad.is_empty(), "a corrupt object is never said to be good");
    seen.done.insert("verified");
    quarantined
}

fn put_new(store: &TestStore, seen: &mut Seen) -> bool {
    put(store, seen, "put", "locals/a", &manifest(&[], 1))
}

fn put_numbered(store: &TestStore, seen: &mut Seen) -> bool {
    put(store, seen, "put", "7", &manifest(&[], 7))
}

fn replace_revision(store: &TestStore, seen: &mut Seen) -> bool {
    put(store, seen, "put", "locals/a", &manifest(&[ONE], 2))
}

/// Where names cannot be exchanged the revision may be gone after a cut, but it is never half there.
fn replace_without_exchange(store: &TestStore, seen: &mut Seen) -> bool {
    for name in ["manifest:locals/a", "message:locals/a"] {
        seen.attempt(name, None);
    }
    replace_revision(store, seen)
}

fn delete(store: &TestStore, seen: &mut Seen) -> bool {
    let changes = [("manifest:locals/a", None), ("message:locals/a", None)];
    change_once(seen, "delete", &changes, || {
        store.delete_revision(&revision("locals/a")).map(drop)
    })
}

fn beside(store: &TestStore, seen: &mut Seen) -> bool {
    let name = revision("locals/a");
    let progress = Progress::new(State::Done, model::progress::message::DONE, 0);
    let text = progress.to_json();
    change_once(
        seen,
        "progress",
        &[("progress:locals/a", Some(text.as_bytes()))],
        || store.set_progress(&name, &progress),
    ) && change_once(
        seen,
        "message",
        &[("message:locals/a", Some(b"new"))],
        || store.set_commit_message(&name, b"new"),
    ) && change_once(seen, "done", &[("done:locals/a", Some(b""))], || {
        store.set_done(&name)
    })
}

fn before_beside(store: &TestStore, seen: &mut Seen) {
    prepared(put(store, seen, "p", "locals/a", &manifest(&[], 1)));
    let text = new_progress().to_json();
    seen.answered("progress:locals/a", Some(text.as_bytes()));
}

fn current(store: &TestStore, seen: &mut Seen) -> bool {
    change_once(seen, "one", &[("current", Some(b"locals/a"))], || {
        store.set_current(&revision("locals/a"))
    }) && change_once(seen, "two", &[("current", Some(b"0"))], || {
        store.set_current(&revision("0"))
    })
}

fn marker_twice(store: &TestStore, seen: &mut Seen) -> bool {
    set_marker(store, seen, "one", "locals/a") && set_marker(store, seen, "two", "0")
}

fn key(text: &str) -> MetaKey {
    text.parse().expect("tests use good keys")
}

fn metadata(store: &TestStore, seen: &mut Seen) -> bool {
    let put = |name, value: &[u8]| store.put_meta(MetaKind::User, &key(name), value);
    change_once(seen, "new", &[("meta:..", Some(b"first"))], || {
        put("..", b"first")
    }) && change_once(seen, "again", &[("meta:..", Some(b"second value"))], || {
        put("..", b"second value")
    }) && change_once(seen, "delete", &[("meta:..", None)], || {
        store.delete_meta(MetaKind::User, &key("..")).map(drop)
    })
}

fn stopped(store: &TestStore, seen: &mut Seen) -> bool {
    let names = BTreeSet::from(["web".parse().expect("a good name")]);
    change_once(seen, "stop", &[("stopped", Some(b"web"))], || {
        store.set_stopped(&names)
    }) && change_once(seen, "start", &[("stopped", None)], || {
        store.set_stopped(&BTreeSet::new())
    })
}

fn claims(store: &TestStore, seen: &mut Seen) -> bool {
    let kept = |next: u64, ids: &[u64]| Kept {
        next,
        claims: ids
            .iter()
            .map(|id| Claim {
                id: *id,
                client: "container:hawkbit".parse().expect("a good client"),
                parts: BTreeSet::from(["group:app".parse().expect("a good part")]),
                priority: 100,
                lease_s: 60,
                renewed: true,
            })
            .collect(),
    };
    let set = |next, ids: &[u64]| store.set_claims(&kept(next, ids));
    change_once(seen, "claim", &[("claims", Some(b"2:1"))], || set(2, &[1]))
        && change_once(seen, "another", &[("claims", Some(b"3:1,2"))], || {
            set(3, &[1, 2])
        })
        && change_once(seen, "release", &[("claims", Some(b"3:"))], || set(3, &[]))
}

fn failure(message: &str) -> Failure {
    Failure {
        version: 1,
        id: 0,
        revision: revision("locals/a"),
        manifest: None,
        rolled_back_to: None,
        container: None,
        cause: Cause::Asked,
        message: message.to_owned(),
        time: WallTime(0),
        tries: 1,
        containers: Vec::new(),
        log: vec!["a line".to_owned()],
        pressure: Pressure::default(),
    }
}

/// An answered number stands for its own record for ever.
fn failures(store: &TestStore, seen: &mut Seen) -> bool {
    for step in ["first", "second"] {
        if !seen.done.contains(step) {
            if let Ok(id) = store.add_failure(&failure(step)) {
                let name = format!("failure:{id}");
                assert!(
                    !seen.registers.contains_key(&name),
                    "{id} was given out twice"
                );
                seen.answered(&name, Some(step.as_bytes()));
                seen.done.insert(step);
            } else {
                return false;
            }
        }
    }
    true
}

fn before_collect(store: &TestStore, seen: &mut Seen) {
    two_revisions(store, seen);
    prepared(upload(store, TWO).is_ok());
    prepared(put(store, seen, "p5", "locals/old", &manifest(&[TWO], 1)));
    let disk = store.disk();
    for folder in [
        "logs/locals/old/web",
        "disks/rev/locals/old/web",
        "logs/locals/gone/web",
    ] {
        disk.create_dir_all(Path::new(folder)).expect("no faults");
        let mut file = disk
            .create(&Path::new(folder).join("file"))
            .expect("no faults");
        file.append(b"bytes").expect("no faults");
    }
    let begun = store.begin_upload(ObjectId::of(b"never ended"), None, LATER);
    if let Ok(Begun::Upload(mut part)) = begun {
        part.append(b"never").expect("no faults");
    }
}

/// A revision is deleted, what only it needed is collected, and what others need stays.
fn delete_and_collect(store: &TestStore, seen: &mut Seen) -> bool {
    let changes = [("manifest:locals/old", None), ("message:locals/old", None)];
    let gone = change_once(seen, "delete", &changes, || {
        store.delete_revision(&revision("locals/old")).map(drop)
    });
    if !gone {
        return false;
    }
    let lease = store.options().lease;
    if store.collect(&[ObjectId::of(ONE)], LATER + lease).is_err() {
        return false;
    }
    for path in [
        store::layout::object(&ObjectId::of(TWO)),
        store::layout::part(&ObjectId::of(b"never ended")),
        "logs/locals/old".into(),
        "disks/rev/locals/old".into(),
        "logs/locals/gone".into(),
    ] {
        assert!(
            store.disk().metadata(&path).is_err(),
            "{} stays",
            path.display()
        );
    }
    true
}

/// An object that was answered survives a collection that knows nothing of it; the same when it was there before.
pub(crate) fn collect_beside_upload(store: &TestStore, seen: &mut Seen) -> bool {
    upload_once(store, seen, "upload", ONE)
        && store.collect(&[], LATER + Duration::from_millis(1)).is_ok()
}

/// From the first byte to the marker.
fn install(store: &TestStore, seen: &mut Seen) -> bool {
    upload_once(store, seen, "object one", ONE)
        && upload_once(store, seen, "object two", TWO)
        && put(
            store,
            seen,
            "revision",
            "locals/new",
            &manifest(&[ONE, TWO], 3),
        )
        && set_marker(store, seen, "marker", "locals/new")
}

pub(crate) const OPERATIONS: &[Operation] = &[
    operation("upload", nothing, upload_one),
    operation("upload resumed", nothing, resume),
    operation("same object twice at once", nothing, upload_twice_at_once),
    operation(
        "upload over a corrupt object",
        corrupt_object,
        upload_over_corrupt,
    ),
    operation("quarantine", corrupt_object, verify_corrupt),
    operation("put a revision", nothing, put_new),
    operation("put a numbered revision", nothing, put_numbered),
    operation("replace a revision", two_revisions, replace_revision),
    operation("delete a revision", two_revisions, delete),
    operation("progress, message, done", before_beside, beside),
    operation("current", two_revisions, current),
    operation("marker", two_revisions, marker_twice),
    operation("metadata", nothing, metadata),
    operation("stopped", nothing, stopped),
    operation("claims", nothing, claims),
    operation("failures", nothing, failures),
    operation("delete and collect", before_collect, delete_and_collect),
    operation(
        "collect beside an upload",
        two_revisions,
        collect_beside_upload,
    ),
];

pub(crate) const INSTALL: Operation = operation("install", two_revisions, install);

pub(crate) const fn operation(
    name: &'static str,
    prepare: fn(&TestStore, &mut Seen),
    act: fn(&TestStore, &mut Seen) -> bool,
) -> Operation {
    Operation {
        name,
        prepare,
        act,
        options: Options::default,
    }
}

fn must_hold(operation: Operation, cuts: u32) {
    must_hold_on(operation, Bug::None, cuts);
}

fn must_hold_on(operation: Operation, disk: Bug, cuts: u32) {
    let mut explorer = Explorer::new(operation, disk);
    let started = std::time::Instant::now();
    if let Err(found) = explorer.explore(cuts) {
        panic!("{}: {}; path:{}", operation.name, found.what, found.path);
    }
    println!(
        "{}: {} lives with up to {cuts} cuts in {:.1} s",
        operation.name,
        explorer.runs,
        started.elapsed().as_secs_f64()
    );
}

#[test]
fn every_operation_holds_at_every_cut() {
    for operation in OPERATIONS {
        must_hold(*operation, 1);
    }
}

#[test]
fn every_operation_holds_at_every_two_cuts() {
    for operation in OPERATIONS {
        must_hold(*operation, 2);
    }
}

#[test]
fn a_replacement_without_exchange_holds_at_every_cut() {
    let operation = operation(
        "replace without exchange",
        two_revisions,
        replace_without_exchange,
    );
    must_hold_on(operation, Bug::CannotExchange, 1);
}

#[test]
fn an_installation_holds_at_every_cut() {
    must_hold(INSTALL, 1);
}
