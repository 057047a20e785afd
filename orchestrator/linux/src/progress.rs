//! Marks of progress on the disk, for a thread whose standing still resets the machine (decisions/0073).
//!
//! One turn of the loop may have much to do: a kernel to copy to a slow boot partition, a thousand revisions to look at. Whoever follows the
//! progress of its own thread is told after each piece of work that a disk has done for it, never before and never by a timer. A piece is
//! one system call that succeeded: a disk that hangs and one that only fails make no progress. Other threads do not count.

use std::cell::RefCell;

type Told = Box<dyn Fn()>;

thread_local! {
    static TOLD: RefCell<Option<Told>> = const { RefCell::new(None) };
}

/// Has `told` called on this thread whenever a disk ([`crate::disk::LinuxDisk`], [`crate::bootloader`]) has done a piece of work for it,
/// until the thread ends, leaves or follows anew. It must not use a disk itself.
pub fn follow(told: impl Fn() + 'static) {
    TOLD.with(|slot| slot.replace(Some(Box::new(told))));
}

/// Tells nobody any more.
pub fn leave() {
    TOLD.with(|slot| slot.replace(None));
}

/// A piece is done.
pub(crate) fn made() {
    // A thread that ends has nobody to tell any more.
    TOLD.try_with(|slot| {
        if let Ok(told) = slot.try_borrow()
            && let Some(told) = &*told
        {
            told();
        }
    })
    .ok();
}

/// The same, when there was success.
pub(crate) fn if_done<T, E>(result: Result<T, E>) -> Result<T, E> {
    if result.is_ok() {
        made();
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::path::Path;
    use std::rc::Rc;

    use store::disk::{Disk as _, ReadFile as _, WriteFile as _};

    use crate::disk::LinuxDisk;

    #[test]
    fn each_piece_is_told_to_the_thread_that_waited_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LinuxDisk::open(folder.path()).unwrap();
        let told = Rc::new(Cell::new(0));
        let count = Rc::clone(&told);
        follow(move || count.set(count.get() + 1));
        let since = |work: &mut dyn FnMut()| {
            let before = told.get();
            work();
            told.get() - before
        };

        let mut file = disk.create(Path::new("a")).unwrap();
        assert_eq!(since(&mut || file.append(&[1; 1000]).unwrap()), 1);
        assert_eq!(since(&mut || file.sync().unwrap()), 1);
        let mut file = disk.open(Path::new("a")).unwrap();
        let mut bytes = [0; 600];
        assert_eq!(since(&mut || drop(file.read_at(0, &mut bytes))), 1);
        assert_eq!(
            since(&mut || drop(file.read_at(1000, &mut bytes))),
            0,
            "the end is no piece"
        );
        assert_eq!(
            since(&mut || drop(disk.open(Path::new("none")))),
            0,
            "a failure is none"
        );

        // Whatever is many files is as many pieces.
        disk.create_dir_all(Path::new("tree/below")).unwrap();
        for number in 0..50 {
            disk.create(&Path::new("tree/below").join(number.to_string()))
                .unwrap();
        }
        assert!(since(&mut || drop(disk.list(Path::new("tree/below")))) >= 50);
        assert!(since(&mut || disk.remove_dir_all(Path::new("tree")).unwrap()) >= 50);

        // Another thread's work is not ours.
        let path = folder.path().to_owned();
        let elsewhere = move || {
            let disk = LinuxDisk::open(&path).unwrap();
            disk.create(Path::new("b"))
                .unwrap()
                .append(&[1; 10])
                .unwrap();
        };
        assert_eq!(
            since(&mut || std::thread::spawn(elsewhere.clone()).join().unwrap()),
            0
        );

        leave();
        assert_eq!(since(&mut || drop(disk.list(Path::new(".")))), 0);
    }
}
