//! Who reads while something changes is not told of it before it is durable: a client that has seen TESTING would tell a cloud, and
//! after a power cut the device would say INPROGRESS.
//!
//! Just before each sync of a folder a reader looks, in a thread of its own. It may wait; what it is told by then must be what a power
//! cut at that moment leaves.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::progress::{State, message};
use model::{Instant, ObjectId, Progress, RevisionId};
use simulator::disk::Disk as Sim;
use store::{Begun, HashedUpload, NewRevision, Options, Reading, Store, Verdict};

use crate::broken::{Broken, Bug};

/// A reader that could be told is told in this time.
const LOOK: Duration = Duration::from_millis(100);

fn revision() -> RevisionId {
    "locals/x".parse().unwrap()
}

/// What a client sees of a revision: whether it is there, and its progress.
fn look(store: &Store<Broken>) -> Option<String> {
    let entry = store.revision(&revision()).unwrap()?;
    Some(String::from_utf8(entry.progress.unwrap()).unwrap())
}

/// Changes something, and says what readers were told just before each sync of `folder`.
fn told_while(folder: &'static str, change: impl FnOnce(&Store<Broken>)) -> Vec<Option<String>> {
    let broken = Broken::new(Sim::default(), Bug::None);
    let before_sync = broken.before_sync.clone();
    let store = Store::open(broken, Options::default(), Instant::ZERO).store;
    let first = Progress::new(State::InProgress, message::IN_PLACE, 0);
    let manifest = b"{}";
    store
        .put_revision(NewRevision {
            revision: &revision(),
            manifest,
            progress: &first,
            commit_message: None,
        })
        .unwrap();
    let told: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let late: Arc<Mutex<Vec<Receiver<Option<String>>>>> = Arc::default();
    let act = {
        let (store, told, late) = (store.clone(), Arc::clone(&told), Arc::clone(&late));
        move |path: &Path| {
            if path != Path::new(folder) {
                return;
            }
            let (sender, receiver) = channel();
            let store = store.clone();
            std::thread::spawn(move || sender.send(look(&store)));
            match receiver.recv_timeout(LOOK) {
                Ok(seen) => told.lock().unwrap().push(seen),
                Err(_) => late.lock().unwrap().push(receiver),
            }
        }
    };
    *before_sync.0.lock().unwrap() = Some(Box::new(act));
    change(&store);
    *before_sync.0.lock().unwrap() = None;
    let late = std::mem::take(&mut *late.lock().unwrap());
    assert!(
        !late.is_empty() || !told.lock().unwrap().is_empty(),
        "{folder} is synced"
    );
    // Who waited is told what is durable now.
    for receiver in late {
        assert_eq!(receiver.recv_timeout(LOOK * 50).unwrap(), look(&store));
    }
    let told = told.lock().unwrap();
    told.clone()
}

#[test]
fn a_progress_is_told_when_it_is_durable() {
    let testing = Progress::new(State::Testing, message::AWAITING_STABLE, 0);
    let told = told_while("trails/locals/x/.pv", |store| {
        store.set_progress(&revision(), &testing).unwrap();
        assert_eq!(look(store), Some(testing.to_json()));
    });
    assert!(!told.contains(&Some(testing.to_json())), "{told:?}");
}

#[test]
fn a_revision_is_told_when_it_is_durable() {
    let other = Progress::new(State::New, message::NOT_YET_INSTALLED, 0);
    let told = told_while("trails/locals", |store| {
        let new = NewRevision {
            revision: &revision(),
            manifest: b"{ }",
            progress: &other,
            commit_message: None,
        };
        store.put_revision(new).unwrap();
        assert_eq!(look(store), Some(other.to_json()));
    });
    assert!(!told.contains(&Some(other.to_json())), "{told:?}");
}

#[test]
fn a_revision_is_gone_when_that_is_durable() {
    let told = told_while("trails/locals", |store| {
        assert!(store.delete_revision(&revision()).unwrap());
        assert_eq!(look(store), None);
    });
    assert!(!told.contains(&None), "{told:?}");
}

/// Whether somebody who looks in one way or another is told of an object.
type Look = fn(&Store<Broken>, &ObjectId) -> bool;

/// Puts an object, and says what a reader was told just before the sync of the folder of the objects.
fn told_of_an_object(look: Look) -> Vec<bool> {
    let broken = Broken::new(Sim::default(), Bug::None);
    let before_sync = broken.before_sync.clone();
    let store = Store::open(broken, Options::default(), Instant::ZERO).store;
    let bytes = b"bytes that are being put";
    let object = ObjectId::of(bytes);
    let Ok(Begun::Upload(upload)) = store.begin_upload(object, None, Instant::ZERO) else {
        panic!("there is room, and it is not there");
    };
    let mut upload = HashedUpload::new(upload).unwrap();
    upload.append(bytes).unwrap();
    let (told, act_told) = channel();
    let act = {
        let (store, mut looked) = (store.clone(), false);
        move |path: &Path| {
            // The reader may make it durable itself, which is another sync.
            if path != Path::new("objects") || std::mem::replace(&mut looked, true) {
                return;
            }
            let (sender, receiver) = channel();
            let store = store.clone();
            std::thread::spawn(move || sender.send(look(&store, &object)));
            // Who waits is told later, when it is durable.
            if let Ok(seen) = receiver.recv_timeout(LOOK) {
                told.send(seen).unwrap();
            }
        }
    };
    *before_sync.0.lock().unwrap() = Some(Box::new(act));
    upload.finish(Instant::ZERO).unwrap();
    *before_sync.0.lock().unwrap() = None;
    assert!(look(&store, &object), "it is told of once it is durable");
    act_told.into_iter().collect()
}

#[test]
fn an_object_is_told_of_when_its_name_is_durable() {
    let looks: [(&str, Look); 4] = [
        ("size", |store, object| {
            store.object_len(object).unwrap().is_some()
        }),
        ("bytes", |store, object| {
            store.open_object(object).unwrap().is_some()
        }),
        ("list", |store, object| {
            let mut found = false;
            let mut visitor = |listed, _| {
                found |= listed == *object;
                ControlFlow::Continue(())
            };
            store.visit_objects(&mut visitor).unwrap();
            found
        }),
        ("verify", |store, object| {
            store.verify_object(object, Reading::Once).unwrap() == Verdict::Good
        }),
    ];
    for (name, look) in looks {
        let told = told_of_an_object(look);
        assert!(!told.contains(&true), "{name}: {told:?}");
    }
}
