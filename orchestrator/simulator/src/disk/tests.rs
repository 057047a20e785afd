//! The disk loses what it may lose and keeps what it must keep.

use std::collections::BTreeSet;

use super::*;
use crate::choices::Choices;

fn write(disk: &Disk, path: &str, bytes: &[u8], sync: bool) {
    let mut file = disk.create(Path::new(path)).unwrap();
    file.append(bytes).unwrap();
    if sync {
        file.sync().unwrap();
    }
}

/// Every durable outcome of a power cut after `work`, each as its files with their contents.
fn outcomes(work: impl Fn(&Disk)) -> BTreeSet<Vec<(String, String)>> {
    let mut choices = Choices::every();
    let mut outcomes = BTreeSet::new();
    loop {
        let disk = Disk::default();
        disk.create_dir_all(Path::new("a/b")).unwrap();
        disk.sync_dir(Path::new("a")).unwrap();
        disk.sync_dir(Path::new(".")).unwrap();
        work(&disk);
        disk.crash(Spread::Every, &mut |options| choices.choose(options));
        let files = disk.durable_files().into_iter().map(|(path, _)| {
            let bytes = disk.live_file(&path).unwrap_or_default();
            (path, String::from_utf8_lossy(&bytes).replace('\0', "0"))
        });
        outcomes.insert(files.collect());
        if !choices.advance() {
            return outcomes;
        }
    }
}

fn files(list: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = list.iter();
    pairs
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect()
}

#[test]
fn an_unsynced_file_is_torn_and_an_unsynced_name_is_lost() {
    let seen = outcomes(|disk| write(disk, "a/f", b"four", false));
    let expected = [
        files(&[]),
        files(&[("a/f", "")]),
        files(&[("a/f", "fo")]),
        files(&[("a/f", "four")]),
        files(&[("a/f", "0000")]),
    ];
    assert_eq!(seen, expected.into());
    let seen = outcomes(|disk| write(disk, "a/f", b"four", true));
    assert_eq!(seen, [files(&[]), files(&[("a/f", "four")])].into());
    let seen = outcomes(|disk| {
        write(disk, "a/f", b"four", true);
        disk.sync_dir(Path::new("a")).unwrap();
    });
    assert_eq!(seen, [files(&[("a/f", "four")])].into());
}

#[test]
fn replacing_a_file_leaves_the_old_or_the_new() {
    let replace = |disk: &Disk| {
        write(disk, "a/f", b"old", true);
        disk.sync_dir(Path::new("a")).unwrap();
        write(disk, "a/t", b"new", true);
        disk.rename(Path::new("a/t"), Path::new("a/f")).unwrap();
    };
    let old = files(&[("a/f", "old")]);
    let both = files(&[("a/f", "old"), ("a/t", "new")]);
    let new = files(&[("a/f", "new")]);
    assert_eq!(outcomes(replace), [old, both, new.clone()].into());
    let synced = |disk: &Disk| {
        replace(disk);
        disk.sync_dir(Path::new("a")).unwrap();
    };
    assert_eq!(outcomes(synced), [new].into());
}

#[test]
fn a_rename_between_folders_never_loses_the_file() {
    for sync in [None, Some("a"), Some("a/b")] {
        let seen = outcomes(|disk| {
            write(disk, "a/b/f", b"x", true);
            disk.sync_dir(Path::new("a/b")).unwrap();
            disk.rename(Path::new("a/b/f"), Path::new("a/f")).unwrap();
            if let Some(folder) = sync {
                disk.sync_dir(Path::new(folder)).unwrap();
            }
        });
        let old = files(&[("a/b/f", "x")]);
        let both = files(&[("a/b/f", "x"), ("a/f", "x")]);
        let new = files(&[("a/f", "x")]);
        match sync {
            None | Some("a/b") => assert_eq!(seen, [old, both, new].into(), "{sync:?}"),
            Some(_) => assert_eq!(seen, [both, new].into(), "the new name is durable"),
        }
    }
}

#[test]
fn a_folder_takes_along_what_is_in_it() {
    let seen = outcomes(|disk| {
        disk.create_dir_all(Path::new("a/new")).unwrap();
        write(disk, "a/new/f", b"x", true);
        disk.sync_dir(Path::new("a/new")).unwrap();
        disk.rename(Path::new("a/new"), Path::new("a/it")).unwrap();
        disk.sync_dir(Path::new("a")).unwrap();
    });
    assert_eq!(seen, [files(&[("a/it/f", "x")])].into());
}

#[test]
fn after_a_cut_nothing_works_and_nothing_changes() {
    let disk = Disk::default();
    disk.plan(Plan {
        cut_at: Some(1),
        fail_at: None,
    });
    let mut file = disk.create(Path::new("f")).unwrap();
    assert!(file.append(b"x").is_err());
    assert!(disk.is_cut());
    assert!(disk.metadata(Path::new("f")).is_err());
    disk.crash(Spread::Every, &mut |options| options - 1);
    assert_eq!(disk.metadata(Path::new("f")).unwrap().len, 0);
}

#[test]
fn an_operation_fails_once_and_a_full_disk_is_full() {
    let disk = Disk::default();
    disk.plan(Plan {
        cut_at: None,
        fail_at: Some(0),
    });
    assert!(disk.create(Path::new("f")).is_err());
    let mut file = disk.create(Path::new("f")).unwrap();
    disk.set_full(true);
    let error = file.append(b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.set_full(false);
    file.append(b"x").unwrap();
    assert_eq!(disk.read(Path::new("f"), 10).unwrap(), b"x");
    assert_eq!(
        disk.read(Path::new("f"), 0).unwrap_err().kind(),
        io::ErrorKind::FileTooLarge
    );
}

#[test]
fn removed_things_are_forgotten_without_mixing_up_the_rest() {
    let disk = Disk::default();
    for n in 0..100 {
        write(&disk, &format!("f{n}"), n.to_string().as_bytes(), true);
    }
    for n in 0..90 {
        disk.remove_file(Path::new(&format!("f{n}"))).unwrap();
    }
    disk.sync_dir(Path::new(".")).unwrap();
    disk.crash(Spread::Every, &mut |_| 0);
    assert!(disk.contents().nodes.len() < 20);
    for n in 90..100 {
        assert_eq!(
            &*disk.live_file(&format!("f{n}")).unwrap(),
            n.to_string().as_bytes()
        );
    }
}

#[test]
fn damage_is_durable() {
    let disk = Disk::default();
    write(&disk, "f", b"x", true);
    assert!(!disk.damage("f", None), "the name is not durable yet");
    disk.sync_dir(Path::new(".")).unwrap();
    assert!(disk.damage("f", Some(b"y")));
    assert_eq!(disk.durable_file("f").as_deref(), Some(&b"y"[..]));
    assert!(disk.damage("f", None));
    assert!(!disk.durably_exists("f"));
    assert!(disk.live_file("f").is_none());
}
