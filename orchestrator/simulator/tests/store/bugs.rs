//! Seeded bugs: mistakes that are easily made, each of which the checks of `lives` must notice.
//!
//! Most are a promise of the disk that is not kept on its way to the store ([`Bug`]); the rest are other ways to do an operation, as one
//! might write it first, Pantavisor's among them. A bug that nothing notices fails the test.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use model::{Marker, ObjectId};
use store::disk::{Disk as _, WriteFile as _};
use store::{Begun, Options};

use crate::broken::Bug;
use crate::lives::{Explorer, LATER, Operation, Seen, TestStore};
use crate::operations::{
    INSTALL, ONE, OPERATIONS, collect_beside_upload, manifest, nothing, operation, put, revision,
    set_marker, two_revisions, upload_once,
};

/// Bugs below the store.
const DISK_BUGS: &[Bug] = &[
    Bug::NoFileSync,
    Bug::NoFolderSync,
    Bug::NoObjectsFolderSync,
    Bug::NoParentFolderSync,
    Bug::FolderSyncBeforeRename,
    Bug::FileSyncAfterRename,
    Bug::RenameByCopy,
    Bug::RenameByRemove,
    Bug::ExchangeByRemove,
    Bug::TrashInPlace,
    Bug::WriteInPlace,
    Bug::ShortWrite,
    Bug::SyncErrorsSwallowed,
    Bug::FolderSyncErrorsSwallowed,
];

/// Operations done in a wrong way.
const WRONG_OPERATIONS: &[Operation] = &[
    operation("the marker first", two_revisions, marker_first),
    operation(
        "the marker written in place",
        two_revisions,
        marker_in_place,
    ),
    operation("an upload under its final name", nothing, upload_in_place),
    operation(
        "a name before the comparison",
        nothing,
        name_before_comparison,
    ),
    Operation {
        options: no_lease,
        ..operation("no lease", two_revisions, collect_beside_upload)
    },
    operation("collection that keeps nothing", two_revisions, keep_nothing),
    operation("a revision built in its place", nothing, build_in_place),
    operation("an answer before the end", nothing, answer_early),
];

/// What `write_marker` refuses: it has to be done past it.
fn raw_marker(store: &TestStore, name: &str) -> std::io::Result<()> {
    let marker = Marker {
        sequence: 1000,
        committed: Some(revision(name)),
        ..Marker::default()
    };
    let (disk, temp) = (store.disk(), Path::new("boot/.pv-tmp-test"));
    let mut file = disk.create(temp)?;
    file.append(&store::marker::render(&marker))?;
    file.sync()?;
    disk.rename(temp, Path::new("boot/marker"))?;
    disk.sync_dir(Path::new("boot"))
}

fn marker_first(store: &TestStore, seen: &mut Seen) -> bool {
    seen.attempt("marker", Some(b"locals/new"));
    raw_marker(store, "locals/new").is_ok()
        && put(store, seen, "put", "locals/new", &manifest(&[ONE], 9))
}

fn marker_in_place(store: &TestStore, seen: &mut Seen) -> bool {
    seen.attempt("marker", Some(b"locals/a"));
    let marker = Marker {
        sequence: 1000,
        committed: Some(revision("locals/a")),
        ..Marker::default()
    };
    // With the copy written in the same way.
    ["boot/marker", "boot/marker.copy"].iter().all(|path| {
        let file = store.disk().create(Path::new(path));
        file.and_then(|mut file| file.append(&store::marker::render(&marker)))
            .is_ok()
    })
}

fn upload_in_place(store: &TestStore, seen: &mut Seen) -> bool {
    let object = ObjectId::of(ONE);
    let written = store
        .disk()
        .create(&store::layout::object(&object))
        .and_then(|mut file| {
            file.append(ONE)?;
            file.sync()
        })
        .and_then(|()| store.disk().sync_dir(Path::new("objects")));
    if written.is_ok() {
        seen.objects.insert(object);
    }
    written.is_ok()
}

fn name_before_comparison(store: &TestStore, _: &mut Seen) -> bool {
    let object = ObjectId::of(ONE);
    let begun = store.begin_upload(object, None, LATER);
    if let Ok(Begun::Upload(mut incoming)) = begun {
        // The caller says what the digest is without having hashed.
        return incoming.append(b"other bytes").is_ok() && incoming.finish(object, LATER).is_ok();
    }
    true
}

fn no_lease() -> Options {
    Options {
        lease: Duration::ZERO,
        ..Options::default()
    }
}

fn keep_nothing(store: &TestStore, _: &mut Seen) -> bool {
    let lease = store.options().lease;
    store.collect(&[], LATER + lease + lease).is_ok()
}

fn build_in_place(store: &TestStore, _: &mut Seen) -> bool {
    let folder = store::layout::revision(&revision("5"));
    let disk = store.disk();
    let build = || -> std::io::Result<()> {
        disk.create_dir_all(&folder.join(".pvr"))?;
        let mut file = disk.create(&folder.join(".pvr/json"))?;
        file.append(&manifest(&[], 5))?;
        file.sync()?;
        disk.sync_dir(&folder.join(".pvr"))?;
        disk.sync_dir(&folder)?;
        disk.sync_dir(Path::new("trails"))
    };
    build().is_ok()
}

fn answer_early(store: &TestStore, seen: &mut Seen) -> bool {
    seen.objects.insert(ObjectId::of(ONE));
    upload_once(store, seen, "upload", ONE)
}

/// The first operation that shows the bug, and how.
fn noticed(operations: &[Operation], bug: Bug) -> Option<String> {
    operations.iter().find_map(|operation| {
        let explore = || Explorer::new(*operation, bug).explore(1);
        match catch_unwind(AssertUnwindSafe(explore)) {
            Ok(Ok(())) => None,
            Ok(Err(found)) => Some(format!(
                "by {:?}: {}; path:{}",
                operation.name, found.what, found.path
            )),
            // An assertion of the operation itself.
            Err(_) => Some(format!("by {:?}: assertion", operation.name)),
        }
    })
}

#[test]
fn every_seeded_bug_is_noticed() {
    let mut missed = Vec::new();
    let all: Vec<Operation> = OPERATIONS.iter().copied().chain([INSTALL]).collect();
    for bug in DISK_BUGS {
        match noticed(&all, *bug) {
            Some(how) => println!("{bug:?} is noticed {how}"),
            None => missed.push(format!("{bug:?}")),
        }
    }
    for wrong in WRONG_OPERATIONS {
        match noticed(&[*wrong], Bug::None) {
            Some(how) => println!("{:?} is noticed {how}", wrong.name),
            None => missed.push(wrong.name.to_owned()),
        }
    }
    assert_eq!(missed, [] as [String; 0], "these bugs went unnoticed");
}

/// The store itself refuses to write a marker that names what is not there.
#[test]
fn a_marker_cannot_come_first() {
    let disk = simulator::disk::Disk::default();
    let store = store::Store::open(
        crate::broken::Broken::new(disk, Bug::None),
        Options::default(),
        LATER,
    )
    .store;
    assert!(!set_marker(
        &store,
        &mut Seen::default(),
        "marker",
        "locals/none"
    ));
}
