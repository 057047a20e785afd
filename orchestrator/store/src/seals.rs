//! Objects that the file system vouches for (fs-verity): sealed in the background, and not read as a whole before they run.
//!
//! A seal follows from the bytes alone. The record `boot/seals` binds an object to the seal that its file had while all of it was read
//! *after* it was sealed, and had the object's hash; so whatever a cut keeps of seal and record, a file that bears the seal of its
//! record holds the object's bytes, or reading them fails. What is only believed is read as a whole soon after the start. Decision 0098.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use model::ObjectId;
use model::failure::BadObject;

use crate::disk::{Disk, Seal};
use crate::objects::{Reading, Verdict};
use crate::{Failed, Inner, Store, absent, explain, failed, layout, lock};

/// Bytes of the record that are read: some 200 for each object.
const BYTES_MAX: usize = 8 << 20;
/// Objects that the record has room for; more are hashed at each start.
const OBJECTS_MAX: usize = 32_768;
const TITLE: &str = "coxswain-seals 1 ";

/// What is known of seals since the start.
#[derive(Debug, Default)]
pub(crate) struct Seals {
    /// What the record says; `None` before it was read.
    known: Option<BTreeMap<ObjectId, Seal>>,
    /// Objects that count as verified by their seal alone.
    believed: BTreeSet<ObjectId>,
    /// The record on the disk is older.
    changed: bool,
}

/// What came of sealing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sealing {
    /// Objects that cannot be used.
    pub bad: Vec<BadObject>,
    /// Of these at least one was believed by its seal since the start: what runs was chosen by mistake.
    pub misled: bool,
    /// Nothing can be sealed here, so there is no use in going on.
    pub unsupported: bool,
}

enum Outcome {
    Done,
    Unsupported,
    Bad(String),
}

impl<D: Disk> Store<D> {
    /// Seals objects where the file system can, reads each as a whole, and remembers the seals of those that are good; durably when
    /// these are the `last` of several. One that was believed since the start is read too, so damage is found. A corrupt one goes to
    /// quarantine.
    ///
    /// What cannot be sealed now (the disk is full, somebody writes to the file) stays as it is and is hashed at each start.
    pub fn seal_objects(&self, objects: &[(ObjectId, String)], last: bool) -> Sealing {
        let inner = &self.inner;
        let mut sealing = Sealing::default();
        for (object, key) in objects {
            let was_believed = lock(&inner.seals).believed.contains(object);
            let problem = match inner.seal_object(object) {
                Ok(Outcome::Done) => continue,
                Ok(Outcome::Unsupported) => {
                    sealing.unsupported = true;
                    break;
                }
                Ok(Outcome::Bad(problem)) => problem,
                Err(error) => explain(&error),
            };
            sealing.misled |= was_believed;
            sealing.bad.push(BadObject {
                object: *object,
                key: key.clone(),
                problem,
            });
        }
        if last {
            // A record that is older costs only time at the next start.
            drop(inner.write_seals());
        }
        sealing
    }
}

impl<D: Disk> Inner<D> {
    fn seal_object(&self, object: &ObjectId) -> Result<Outcome, Failed> {
        let path = layout::object(object);
        let Some(len) = self.object_len(object)? else {
            self.forget_seal(object);
            return Ok(Outcome::Bad("missing".to_owned()));
        };
        let seal = match self.disk.sealed(&path) {
            Ok(Some(seal)) => Some(seal),
            Ok(None) => match self.seal(&path, len) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Outcome::Unsupported);
                }
                // No room, or somebody has it open: it is hashed at the next start, and tried again then.
                Err(_) => return Ok(Outcome::Done),
                Ok(()) => absent(self.disk.sealed(&path))
                    .map_err(failed("look at the seal of", &path))?
                    .flatten(),
            },
            Err(error) => return Ok(self.distrust(object, format!("unreadable: {error}"))),
        };
        let Some(seal) = seal else {
            return Ok(Outcome::Done);
        };
        // Only now: what is read is what the seal stands for, so the hash and the seal belong together.
        match self.verify_object(object, Reading::Always)? {
            Verdict::Good => {
                let mut seals = lock(&self.seals);
                seals.believed.remove(object);
                let known = seals.known.get_or_insert_default();
                let has_room = known.len() < OBJECTS_MAX || known.contains_key(object);
                if has_room && known.get(object) != Some(&seal) {
                    known.insert(*object, seal);
                    seals.changed = true;
                }
                Ok(Outcome::Done)
            }
            Verdict::Missing => Ok(self.distrust(object, "missing".to_owned())),
            Verdict::Corrupt => Ok(self.distrust(object, "corrupt".to_owned())),
            Verdict::Unreadable(error) => Ok(self.distrust(object, format!("unreadable: {error}"))),
        }
    }

    /// The file's tree of hashes takes a 127th of it; the reserve is left alone.
    fn seal(&self, path: &Path, len: u64) -> io::Result<()> {
        let needed = len / 100 + (64 << 10);
        let left = self.space_left(0).map_err(|error| error.source)?;
        if left.available < needed {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.seal(path)
    }

    /// Durably, as far as the disk takes it, so that the next start reads the object.
    fn distrust(&self, object: &ObjectId, problem: String) -> Outcome {
        self.forget_seal(object);
        drop(self.write_seals());
        Outcome::Bad(problem)
    }

    fn forget_seal(&self, object: &ObjectId) {
        let mut seals = lock(&self.seals);
        seals.believed.remove(object);
        if let Some(known) = &mut seals.known {
            seals.changed |= known.remove(object).is_some();
        }
    }

    /// Whether an object bears the seal of the record, so that it need not be read. It counts as believed from now on.
    pub(crate) fn believes(&self, object: &ObjectId) -> bool {
        if !self.options.seals {
            return false;
        }
        let mut seals = lock(&self.seals);
        if seals.known.is_none() {
            let read = self.read(Path::new(layout::SEALS), BYTES_MAX);
            seals.known = Some(
                read.ok()
                    .flatten()
                    .map_or_else(BTreeMap::new, |bytes| parse(&bytes)),
            );
        }
        let known = seals.known.as_ref().and_then(|known| known.get(object));
        let Some(known) = known else { return false };
        let sealed = self.disk.sealed(&layout::object(object));
        let believed = sealed.is_ok_and(|sealed| sealed.as_ref() == Some(known));
        if believed {
            seals.believed.insert(*object);
        }
        believed
    }

    /// Whether it counts as verified although nobody has read it since the start.
    pub(crate) fn is_only_believed(&self, object: &ObjectId) -> bool {
        lock(&self.seals).believed.contains(object)
    }

    /// It has been read, or it is gone.
    pub(crate) fn is_not_only_believed(&self, object: &ObjectId) {
        lock(&self.seals).believed.remove(object);
    }

    fn write_seals(&self) -> Result<(), Failed> {
        let bytes = {
            let mut seals = lock(&self.seals);
            if !seals.changed {
                return Ok(());
            }
            let known = seals.known.get_or_insert_default();
            known.retain(|object, _| self.object_len(object).is_ok_and(|len| len.is_some()));
            render(known)
        };
        self.replace(Path::new(layout::SEALS), &bytes)?;
        lock(&self.seals).changed = false;
        Ok(())
    }
}

/// One line with the hash of all others, then a line for each object.
fn render(known: &BTreeMap<ObjectId, Seal>) -> Vec<u8> {
    let mut lines = String::new();
    for (object, seal) in known {
        writeln!(lines, "{object} {seal}").expect("memory takes text");
    }
    format!("{TITLE}{}\n{lines}", ObjectId::of(lines.as_bytes())).into_bytes()
}

/// What is damaged, or of a newer version, counts as empty: everything is hashed then.
fn parse(bytes: &[u8]) -> BTreeMap<ObjectId, Seal> {
    let whole = || {
        let text = std::str::from_utf8(bytes).ok()?;
        let (digest, lines) = text.strip_prefix(TITLE)?.split_once('\n')?;
        (digest.parse() == Ok(ObjectId::of(lines.as_bytes()))).then_some(lines)
    };
    let pair = |line: &str| {
        let (object, seal) = line.split_once(' ')?;
        Some((object.parse().ok()?, seal.parse().ok()?))
    };
    let lines = whole().unwrap_or_default().lines();
    lines.take(OBJECTS_MAX).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_empty() {
        let seal = Seal::new(1, &[7; 32]);
        let known: BTreeMap<_, _> = [
            (ObjectId::of(b"a"), seal.clone()),
            (ObjectId::of(b"b"), seal),
        ]
        .into();
        let bytes = render(&known);
        assert_eq!(parse(&bytes), known);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(parse(&other), BTreeMap::new(), "byte {at}");
            assert_eq!(parse(&bytes[..at]), BTreeMap::new(), "cut at {at}");
        }
    }
}
