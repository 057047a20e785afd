//! What a container would really run from: the objects on the disk, compared with their names.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use model::ObjectId;
use model::container::Container;

use crate::disk::Disk;

/// Says what is wrong with the objects of a container on the disk as it is now.
pub type Inspect = Rc<dyn Fn(&Container) -> Bytes>;

/// What a container would run from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytes {
    /// What it should be.
    Whole,
    /// Something else.
    Damaged(String),
    /// The disk does not give it.
    Unreadable(String),
}

/// Compares what a container would run from with what it should be.
pub(crate) fn inspector(disk: Disk) -> Inspect {
    let intact: RefCell<BTreeMap<ObjectId, Arc<[u8]>>> = RefCell::default();
    Rc::new(move |container| {
        let found = container.objects().find_map(|object| {
            let path = format!("objects/{object}");
            let Some(bytes) = disk.live_file(&path) else {
                return Some(Bytes::Damaged(format!("object {object}, which is missing")));
            };
            let mut intact = intact.borrow_mut();
            let seen = intact.get(&object);
            if seen.is_some_and(|seen| Arc::ptr_eq(seen, &bytes)) {
                return None;
            }
            if ObjectId::of(&bytes) != object {
                if disk.refuses(&path) {
                    return Some(Bytes::Unreadable(format!(
                        "object {object}: input/output error"
                    )));
                }
                return Some(Bytes::Damaged(format!("object {object}, which is corrupt")));
            }
            intact.insert(object, bytes);
            None
        });
        found.unwrap_or(Bytes::Whole)
    })
}
