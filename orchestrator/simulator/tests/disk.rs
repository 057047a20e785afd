//! One contract suite for `store::disk::Disk`, on the simulated disk and on the machine's; and a whole store on the machine's.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use linux::disk::LinuxDisk;
use model::{Instant, ObjectId, Progress, RevisionId, State};
use store::disk::{Disk, EntryKind, ReadFile as _, WriteFile as _};
use store::{Begun, HashedUpload, NewRevision, Options, Reading, Store, UploadError, Verdict};

fn p(path: &str) -> &Path {
    Path::new(path)
}

fn write<D: Disk>(disk: &D, path: &str, bytes: &[u8]) {
    let mut file = disk.create(p(path)).unwrap();
    file.append(bytes).unwrap();
    file.start_writeback();
    file.sync().unwrap();
}

fn kind_of<T: std::fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn names<D: Disk>(disk: &D, path: &str) -> Vec<(String, EntryKind)> {
    let entries = disk.list(p(path)).unwrap().into_iter();
    entries.map(|entry| (entry.name, entry.kind)).collect()
}

/// Every promise of the trait that can be seen while the power is on.
fn contract<D: Disk>(disk: &D) {
    files(disk);
    renames(disk);
    folders_and_links(disk);
    assert!(disk.space().unwrap().free <= disk.space().unwrap().total);
    for outside in ["/etc/passwd", "../x", "a/../../x"] {
        let opened = disk.open(p(outside)).err().map(|error| error.kind());
        assert!(
            matches!(opened, Some(ErrorKind::InvalidInput | ErrorKind::NotFound)),
            "{outside} is outside: {opened:?}"
        );
    }
}

fn files<D: Disk>(disk: &D) {
    write(disk, "a", b"hello");
    assert_eq!(disk.read(p("a"), 5).unwrap(), b"hello");
    assert_eq!(kind_of(disk.read(p("a"), 4)), ErrorKind::FileTooLarge);
    assert_eq!(kind_of(disk.read(p("none"), 4)), ErrorKind::NotFound);
    assert_eq!(
        disk.open(p("none")).err().unwrap().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        disk.open_append(p("none")).err().unwrap().kind(),
        ErrorKind::NotFound
    );
    let mut more = disk.open_append(p("a")).unwrap();
    more.append(b", world").unwrap();
    more.start_writeback();
    more.append(b"").unwrap();
    more.sync().unwrap();
    let mut file = disk.open(p("a")).unwrap();
    assert_eq!(file.len().unwrap(), 12);
    let mut buffer = [0; 5];
    assert_eq!(file.read_at(7, &mut buffer).unwrap(), 5);
    assert_eq!(&buffer, b"world");
    assert_eq!(file.read_at(10, &mut buffer).unwrap(), 2);
    assert_eq!(file.read_at(12, &mut buffer).unwrap(), 0);
    assert_eq!(file.read_at(99, &mut buffer).unwrap(), 0);
    write(disk, "a", b"new");
    assert_eq!(disk.read(p("a"), 99).unwrap(), b"new", "create empties");
    write(disk, "empty", b"");
    assert_eq!(disk.read(p("empty"), 0).unwrap(), b"");
    disk.set_read_only(p("a")).unwrap();
    let found = disk.metadata(p("a")).unwrap();
    assert_eq!((found.kind, found.len), (EntryKind::File, 3));
    assert_eq!(kind_of(disk.metadata(p("none"))), ErrorKind::NotFound);
    assert_eq!(kind_of(disk.metadata(p("none/below"))), ErrorKind::NotFound);
    disk.remove_file(p("empty")).unwrap();
    assert_eq!(kind_of(disk.remove_file(p("empty"))), ErrorKind::NotFound);
}

fn renames<D: Disk>(disk: &D) {
    write(disk, "b", b"old");
    disk.rename(p("a"), p("b")).unwrap();
    assert_eq!(disk.read(p("b"), 9).unwrap(), b"new");
    assert_eq!(kind_of(disk.rename(p("a"), p("b"))), ErrorKind::NotFound);
    disk.create_dir_all(p("one/deep")).unwrap();
    disk.create_dir_all(p("one/deep")).unwrap();
    disk.create_dir_all(p("two/full")).unwrap();
    disk.rename(p("b"), p("one/deep/b")).unwrap();
    disk.rename(p("one"), p("renamed")).unwrap();
    assert_eq!(disk.read(p("renamed/deep/b"), 9).unwrap(), b"new");
    let onto_full = kind_of(disk.rename(p("renamed"), p("two")));
    assert_eq!(onto_full, ErrorKind::DirectoryNotEmpty);
    match disk.exchange(p("renamed"), p("two")) {
        Ok(()) => {
            assert_eq!(disk.read(p("two/deep/b"), 9).unwrap(), b"new");
            assert_eq!(
                names(disk, "renamed"),
                [("full".to_owned(), EntryKind::Dir)]
            );
            assert_eq!(
                kind_of(disk.exchange(p("two"), p("none"))),
                ErrorKind::NotFound
            );
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    }
    for folder in [".", "two", "renamed"] {
        disk.sync_dir(p(folder)).unwrap();
    }
    assert_eq!(kind_of(disk.sync_dir(p("none"))), ErrorKind::NotFound);
}

fn folders_and_links<D: Disk>(disk: &D) {
    disk.create_dir_all(p("t/x/y/z")).unwrap();
    write(disk, "t/file", b"1");
    write(disk, "t/x/y/z/file", b"2");
    disk.symlink(p("x/y"), p("t/link")).unwrap();
    disk.symlink(p("../two"), p("t/x/out")).unwrap();
    assert_eq!(
        kind_of(disk.symlink(p("x"), p("t/link"))),
        ErrorKind::AlreadyExists
    );
    assert_eq!(disk.read_link(p("t/link")).unwrap(), p("x/y"));
    assert_eq!(
        kind_of(disk.read_link(p("t/file"))),
        ErrorKind::InvalidInput
    );
    assert_eq!(kind_of(disk.read_link(p("t/none"))), ErrorKind::NotFound);
    assert_eq!(disk.metadata(p("t/link")).unwrap().kind, EntryKind::Link);
    let listed = [
        ("file", EntryKind::File),
        ("link", EntryKind::Link),
        ("x", EntryKind::Dir),
    ];
    assert_eq!(
        names(disk, "t"),
        listed.map(|(name, kind)| (name.to_owned(), kind))
    );
    let mut shown = 0;
    disk.visit(p("t"), &mut |_| {
        shown += 1;
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(shown, 1, "a visit ends when it is asked to");
    assert_eq!(kind_of(disk.list(p("none"))), ErrorKind::NotFound);
    assert!(disk.remove_file(p("t/x")).is_err(), "a folder is no file");
    assert!(disk.create_dir_all(p("t/file/below")).is_err());
    disk.remove_dir_all(p("t")).unwrap();
    assert_eq!(kind_of(disk.metadata(p("t"))), ErrorKind::NotFound);
    assert_eq!(kind_of(disk.remove_dir_all(p("t"))), ErrorKind::NotFound);
    assert!(disk.metadata(p("two")).is_ok(), "links are not followed");
}

#[test]
fn the_simulated_disk_keeps_the_contract() {
    contract(&simulator::disk::Disk::default());
}

fn on_machine() -> (tempfile::TempDir, LinuxDisk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = LinuxDisk::open(folder.path()).unwrap();
    (folder, disk)
}

#[test]
fn the_machines_disk_keeps_the_contract() {
    let (_folder, disk) = on_machine();
    contract(&disk);
}

#[test]
fn links_do_not_lead_out_of_the_storage() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    let (folder, disk) = on_machine();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("out")).unwrap();
    assert!(disk.read(p("out/secret"), 9).is_err());
    assert!(disk.create(p("out/new")).is_err());
    assert!(disk.remove_file(p("out/secret")).is_err());
    assert!(disk.rename(p("out/secret"), p("here")).is_err());
    disk.create_dir_all(p("t")).unwrap();
    disk.rename(p("out"), p("t/out")).unwrap();
    disk.remove_dir_all(p("t")).unwrap();
    assert!(outside.path().join("secret").exists());
}

#[test]
fn deep_and_wide_folders_are_removed() {
    let (folder, disk) = on_machine();
    let top = nested(&folder.path().join("t"), 3000);
    assert!(top.exists());
    for n in 0..5000 {
        std::fs::create_dir(top.join(format!("wide-{n}"))).unwrap();
    }
    std::fs::create_dir_all(top.join(".up-0/a")).unwrap();
    disk.remove_dir_all(p("t")).unwrap();
    assert!(!top.exists());
}

/// A folder in a folder in a folder, deeper than a path may be long.
fn nested(top: &Path, depth: usize) -> PathBuf {
    let base = top.parent().unwrap();
    let mut inner = base.join("inner");
    std::fs::create_dir(&inner).unwrap();
    for n in 0..depth {
        let outer = base.join(format!("outer-{n}"));
        std::fs::create_dir(&outer).unwrap();
        std::fs::rename(&inner, outer.join("d")).unwrap();
        inner = outer;
    }
    std::fs::rename(&inner, top).unwrap();
    top.to_owned()
}

#[test]
fn a_storage_is_taken_once() {
    let (folder, disk) = on_machine();
    disk.lock().unwrap();
    let other = LinuxDisk::open(folder.path()).unwrap();
    assert_eq!(kind_of(other.lock()), ErrorKind::WouldBlock);
    drop(disk);
    other.lock().unwrap();
}

fn opened(disk: LinuxDisk) -> Store<LinuxDisk> {
    let opened = Store::open(disk, Options::default(), Instant(0));
    assert_eq!(opened.notices, [] as [&str; 0]);
    opened.store
}

fn begin(store: &Store<LinuxDisk>, bytes: &[u8]) -> HashedUpload<LinuxDisk> {
    match store.begin_upload(ObjectId::of(bytes), Some(bytes.len() as u64), Instant(0)) {
        Ok(Begun::Upload(incoming)) => HashedUpload::new(incoming).unwrap(),
        Ok(Begun::Exists) => panic!("it is there already"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn uploads_on_the_machine() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, disk) = on_machine();
    let store = opened(disk);
    let bytes = vec![7u8; 3 << 20];
    let object = ObjectId::of(&bytes);

    let mut upload = begin(&store, &bytes);
    upload.append(&bytes[..1 << 20]).unwrap();
    let busy = store.resume_upload(object, 1 << 20, None, Instant(0));
    assert!(matches!(busy, Err(UploadError::Busy)));
    drop(upload);
    assert_eq!(store.upload_offset(&object).unwrap(), Some(1 << 20));
    let wrong = store.resume_upload(object, 5, None, Instant(0));
    assert!(matches!(
        wrong,
        Err(UploadError::WrongOffset { kept: 1_048_576 })
    ));
    let Ok(Begun::Upload(incoming)) = store.resume_upload(object, 1 << 20, None, Instant(0)) else {
        panic!("it can be resumed");
    };
    let mut upload = HashedUpload::new(incoming).unwrap();
    upload.append(&bytes[1 << 20..]).unwrap();
    upload.finish(Instant(0)).unwrap();
    let path = folder.path().join(store::layout::object(&object));
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o444
    );
    assert_eq!(store.upload_offset(&object).unwrap(), None);
    let again = store.begin_upload(object, None, Instant(0));
    assert!(matches!(again, Ok(Begun::Exists)));

    let mut wrong = begin(&store, b"these bytes");
    wrong.append(b"other bytes").unwrap();
    assert!(matches!(
        wrong.finish(Instant(0)),
        Err(UploadError::WrongHash { .. })
    ));
    assert_eq!(
        store.upload_offset(&ObjectId::of(b"these bytes")).unwrap(),
        None
    );
    let mut short = begin(&store, b"these bytes");
    short.append(b"these").unwrap();
    assert!(matches!(
        short.finish(Instant(0)),
        Err(UploadError::Short { .. })
    ));
    assert_eq!(
        store.upload_offset(&ObjectId::of(b"these bytes")).unwrap(),
        Some(5)
    );
    let mut long = begin(&store, b"these bytes");
    assert!(matches!(
        long.append(&[0; 12]),
        Err(UploadError::TooLong { expected: 11 })
    ));
    drop(long);
    begin(&store, b"").finish(Instant(0)).unwrap();
    assert_eq!(store.object_len(&ObjectId::of(b"")).unwrap(), Some(0));
    let huge = store.begin_upload(ObjectId::of(b"huge"), Some(1 << 60), Instant(0));
    assert!(matches!(huge, Err(UploadError::NoSpace { .. })));

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"rotten").unwrap();
    assert_eq!(
        store.verify_object(&object, Reading::Always).unwrap(),
        Verdict::Corrupt
    );
    assert_eq!(
        store.verify_object(&object, Reading::Once).unwrap(),
        Verdict::Missing
    );
}

#[test]
fn many_uploads_of_one_object_at_once() {
    let (folder, disk) = on_machine();
    let store = opened(disk);
    let bytes: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let object = ObjectId::of(&bytes);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(
                || match store.begin_upload(object, None, Instant(0)).unwrap() {
                    Begun::Exists => {}
                    Begun::Upload(incoming) => {
                        let mut upload = HashedUpload::new(incoming).unwrap();
                        bytes
                            .chunks(10_000)
                            .for_each(|chunk| upload.append(chunk).unwrap());
                        upload.finish(Instant(0)).unwrap();
                    }
                },
            );
        }
    });
    assert_eq!(
        store.verify_object(&object, Reading::Always).unwrap(),
        Verdict::Good
    );
    let parts = std::fs::read_dir(folder.path().join("objects/.incoming")).unwrap();
    assert_eq!(parts.count(), 0);
    assert!(store.uploads().is_empty());
}

#[test]
fn a_large_storage_opens_without_being_read() {
    let (folder, disk) = on_machine();
    let store = opened(disk);
    let progress = Progress::new(State::New, "", 0);
    let manifest = vec![b' '; 64 << 10];
    for n in 0..200 {
        let revision: RevisionId = n.to_string().parse().unwrap();
        let new = NewRevision {
            revision: &revision,
            manifest: &manifest,
            progress: &progress,
            commit_message: None,
        };
        store.put_revision(new).unwrap();
    }
    for n in 0..5000u32 {
        let object = ObjectId::of(&n.to_le_bytes());
        let path = folder.path().join(store::layout::object(&object));
        std::fs::write(path, b"not read, so nobody minds").unwrap();
    }
    drop(store);
    let disk = LinuxDisk::open(folder.path()).unwrap();
    let started = std::time::Instant::now();
    let store = opened(disk);
    println!("opened in {:?}", started.elapsed());
    assert_eq!(store.revisions().unwrap().len(), 200);
    let mut seen = 0;
    store
        .visit_objects(&mut |_, _| {
            seen += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 5000);
    let leased = store.collect(&[], Instant(1)).unwrap();
    assert_eq!(leased.objects, 0, "everything is leased after the start");
    let later = Instant(0) + store.options().lease;
    assert_eq!(store.collect(&[], later).unwrap().objects, 5000);
}
