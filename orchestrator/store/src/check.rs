//! Looking whether what should boot is whole: a list of objects at start, or a whole storage that no device is using.
//!
//! [`Store::verify_objects`] moves corrupt objects to quarantine, as a running device must; [`judge`] changes nothing at all.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use model::failure::BadObject;
use model::{Manifest, Marker, ObjectId, Progress, RevisionId, State, limits};

use crate::disk::{Disk, EntryKind};
use crate::objects::{Hasher, Reading, Verdict, read_through};
use crate::revisions::PROGRESS_BYTES_MAX;
use crate::{Failed, Store, absent, explain, failed, layout, marker, takeover};

impl<D: Disk> Store<D> {
    /// Verifies objects, each with the manifest key that needs it, and tells those that cannot be used.
    pub fn verify_objects(
        &self,
        objects: &[(ObjectId, String)],
        reading: Reading,
    ) -> Vec<BadObject> {
        let mut bad = Vec::new();
        for (object, key) in objects {
            let problem = match self.verify_object(object, reading) {
                Ok(Verdict::Good) => continue,
                Ok(Verdict::Missing) => "missing".to_owned(),
                Ok(Verdict::Corrupt) => "corrupt".to_owned(),
                Ok(Verdict::Unreadable(error)) => format!("unreadable: {error}"),
                Err(error) => format!(
                    "corrupt, and could not be moved to quarantine: {}",
                    explain(&error)
                ),
            };
            bad.push(BadObject {
                object: *object,
                key: key.clone(),
                problem,
            });
        }
        bad
    }
}

/// Why a revision may be booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It is being tried and has tries left.
    Trial,
    /// It is the one to boot.
    Committed,
    /// It was committed before that.
    Previous,
    /// It was committed once; the newest of these comes first.
    Done,
    /// It is revision 0.
    Factory,
    /// It held its goals once, in Pantavisor's exact way, and was never committed.
    Updated,
    /// It is only kept.
    Kept,
}

/// What is known of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionJudgement {
    /// Which.
    pub revision: RevisionId,
    /// Why it may be booted.
    pub role: Role,
    /// Why its manifest cannot be used; `None` when it can.
    pub problem: Option<String>,
    /// Objects that it needs and that cannot be used.
    pub bad: Vec<BadObject>,
    /// Objects that it needs.
    pub objects: usize,
}

impl RevisionJudgement {
    /// Whether a boot can run it.
    pub fn is_complete(&self) -> bool {
        self.problem.is_none() && self.bad.is_empty()
    }
}

/// What is known of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The marker.
    pub marker: Option<Marker>,
    /// Why it cannot be used, or why its copy had to be.
    pub marker_problem: Option<String>,
    /// Every revision, in the order in which a boot would try them.
    pub revisions: Vec<RevisionJudgement>,
    /// Objects that no revision needs, and their bytes.
    pub unneeded: (u64, u64),
    /// What is wrong, could be repaired, or could be cleaned up, in words, each with what to do.
    pub remarks: Vec<String>,
}

impl Judgement {
    /// The revision that the next boot runs: the first one in the order of roles that is complete. Revisions that are only
    /// kept are never booted by themselves.
    pub fn boots(&self) -> Option<&RevisionId> {
        let mut bootable = self.revisions.iter().filter(|one| one.role < Role::Kept);
        bootable
            .find(|one| one.is_complete())
            .map(|one| &one.revision)
    }
}

/// Judges a storage that no device is using. Reads every object; changes nothing.
///
/// # Errors
/// A folder cannot be listed.
pub fn judge<D: Disk>(disk: &D) -> Result<Judgement, Failed> {
    let (marker, marker_problem) = match marker::read(disk) {
        Ok(read) => (read.marker, read.notice),
        Err(error) => (None, Some(explain(&error))),
    };
    let mut remarks: Vec<String> = Vec::new();
    remarks.extend(marker_problem.iter().map(|problem| {
        format!(
            "{problem}; the next start repairs it from the copy that can be read, if there is one"
        )
    }));
    let marker = match (marker, &marker_problem) {
        (None, None) => takeover::find(disk)?.map(|found| {
            remarks.extend(found.odd.iter().map(|odd| format!("Pantavisor's storage: {odd}")));
            remarks.push(
                "Pantavisor left this storage; the first start of coxswain takes it over, and removes nothing of it"
                    .to_owned(),
            );
            found.marker(None, 1)
        }),
        (marker, _) => marker,
    };
    let mut objects = Objects::new(disk);
    let mut revisions = Vec::new();
    for revision in revisions_on(disk)? {
        let role = role_of(disk, &revision, marker.as_ref());
        let folder = disk.metadata(&layout::revision(&revision));
        let changed_ms = folder.map_or(0, |folder| folder.modified_ms);
        revisions.push((
            changed_ms,
            judge_revision(disk, revision, role, &mut objects),
        ));
    }
    // As a start chooses: among those of one role the newest comes first.
    revisions.sort_by(|(a_ms, a), (b_ms, b)| {
        (a.role, b_ms, &b.revision).cmp(&(b.role, a_ms, &a.revision))
    });
    let revisions: Vec<_> = revisions.into_iter().map(|(_, judged)| judged).collect();
    if let Some(marker) = &marker {
        for named in marker.revisions() {
            if !revisions.iter().any(|one| one.revision == *named) {
                remarks.push(format!(
                    "the marker names revision {named}, which is not there; install it again"
                ));
            }
        }
    }
    for one in revisions.iter().filter(|one| !one.is_complete()) {
        remarks.push(remark_on(one));
    }
    let unneeded = objects.unneeded(&mut remarks)?;
    remarks.extend(leftovers(disk)?);
    Ok(Judgement {
        marker,
        marker_problem,
        revisions,
        unneeded,
        remarks,
    })
}

fn role_of<D: Disk>(disk: &D, revision: &RevisionId, marker: Option<&Marker>) -> Role {
    if let Some(marker) = marker {
        let trial = marker.trial.as_ref();
        if trial.is_some_and(|trial| trial.revision == *revision && trial.tries_left > 0) {
            return Role::Trial;
        }
        if marker.committed.as_ref() == Some(revision) {
            return Role::Committed;
        }
        if marker.previous.as_ref() == Some(revision) {
            return Role::Previous;
        }
    }
    let progress = disk
        .read(&layout::progress(revision), PROGRESS_BYTES_MAX)
        .ok();
    let progress = progress.and_then(|bytes| serde_json::from_slice::<Progress>(&bytes).ok());
    let status = progress.map(|progress| progress.status);
    if status == Some(State::Done) || disk.metadata(&layout::done(revision)).is_ok() {
        Role::Done
    } else if revision.is_factory() {
        Role::Factory
    } else if status == Some(State::Updated) {
        Role::Updated
    } else {
        Role::Kept
    }
}

fn remark_on(one: &RevisionJudgement) -> String {
    let revision = &one.revision;
    match &one.problem {
        Some(problem) => format!("revision {revision} cannot run: {problem}; install it again"),
        None => {
            let first = one
                .bad
                .first()
                .map(|bad| format!("{} {}", bad.object, bad.problem));
            format!(
                "revision {revision} cannot run: {} object(s) missing or corrupt, the first {}; upload them again",
                one.bad.len(),
                first.unwrap_or_default()
            )
        }
    }
}

fn judge_revision<D: Disk>(
    disk: &D,
    revision: RevisionId,
    role: Role,
    objects: &mut Objects<'_, D>,
) -> RevisionJudgement {
    let mut judgement = RevisionJudgement {
        revision,
        role,
        problem: None,
        bad: Vec::new(),
        objects: 0,
    };
    match manifest_on(disk, &judgement.revision) {
        Err(problem) => judgement.problem = Some(problem),
        Ok(manifest) => {
            for (object, key) in manifest.objects() {
                judgement.objects += 1;
                if let Some(problem) = objects.problem(object) {
                    judgement.bad.push(BadObject {
                        object,
                        key: key.to_string(),
                        problem,
                    });
                }
            }
        }
    }
    judgement
}

fn manifest_on<D: Disk>(disk: &D, revision: &RevisionId) -> Result<Manifest, String> {
    let path = layout::manifest(revision);
    let bytes = disk
        .read(&path, limits::MANIFEST_BYTES_MAX)
        .map_err(|error| explain(&failed("read", &path)(error)))?;
    let expected = disk.read(&layout::manifest_digest(revision), 80).ok();
    let expected = expected.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok());
    if expected.is_some_and(|expected: ObjectId| expected != ObjectId::of(&bytes)) {
        return Err(
            "the manifest is damaged: it has not the hash with which it was put".to_owned(),
        );
    }
    Manifest::parse(&bytes).map_err(|error| explain(&error))
}

/// Objects of a storage, each read at most once.
struct Objects<'a, D: Disk> {
    disk: &'a D,
    known: BTreeMap<ObjectId, Option<String>>,
}

impl<'a, D: Disk> Objects<'a, D> {
    fn new(disk: &'a D) -> Self {
        Self {
            disk,
            known: BTreeMap::new(),
        }
    }

    fn problem(&mut self, object: ObjectId) -> Option<String> {
        let disk = self.disk;
        let known = self.known.entry(object);
        known.or_insert_with(|| read_object(disk, object)).clone()
    }

    /// Objects that nobody asked for, with their bytes; corrupt ones are remarked on.
    fn unneeded(&self, remarks: &mut Vec<String>) -> Result<(u64, u64), Failed> {
        let folder = Path::new(layout::OBJECTS);
        let (mut count, mut bytes) = (0, 0);
        let shown = self.disk.visit(folder, &mut |entry| {
            let object = entry.name.parse::<ObjectId>().ok();
            if let Some(object) = object.filter(|object| !self.known.contains_key(object)) {
                count += 1;
                bytes += self
                    .disk
                    .metadata(&layout::object(&object))
                    .map_or(0, |found| found.len);
                if let Some(problem) = read_object(self.disk, object) {
                    remarks.push(format!("object {object}, which no revision needs, is {problem}; it goes at the next collection"));
                }
            }
            ControlFlow::Continue(())
        });
        absent(shown).map_err(failed("list", folder))?;
        Ok((count, bytes))
    }
}

fn read_object<D: Disk>(disk: &D, object: ObjectId) -> Option<String> {
    let path = layout::object(&object);
    let mut file = match absent(disk.open(&path)) {
        Ok(Some(file)) => file,
        Ok(None) => return Some("missing".to_owned()),
        Err(error) => return Some(format!("unreadable: {error}")),
    };
    let mut hasher = Hasher::new();
    match read_through::<D>(&mut file, &path, &mut |bytes| hasher.update(bytes)) {
        Err(error) => Some(format!("unreadable: {}", explain(&error))),
        Ok(_) if hasher.finish() != object => Some("corrupt".to_owned()),
        Ok(_) => None,
    }
}

fn revisions_on<D: Disk>(disk: &D) -> Result<Vec<RevisionId>, Failed> {
    let mut revisions = Vec::new();
    for (folder, prefix) in [(layout::TRAILS, ""), (layout::LOCALS, "locals/")] {
        let folder = Path::new(folder);
        let shown = disk.visit(folder, &mut |entry| {
            if entry.kind == EntryKind::Dir {
                revisions.extend(format!("{prefix}{}", entry.name).parse::<RevisionId>());
            }
            ControlFlow::Continue(())
        });
        absent(shown).map_err(failed("list", folder))?;
    }
    revisions.sort_unstable();
    Ok(revisions)
}

/// What a cut or an upload left and the next start, upload or collection cleans up.
fn leftovers<D: Disk>(disk: &D) -> Result<Vec<String>, Failed> {
    let mut remarks = Vec::new();
    for (folder, what) in [
        (
            layout::INCOMING,
            "interrupted upload(s); they can be resumed, or go at a collection",
        ),
        (
            layout::QUARANTINE,
            "corrupt object(s) in quarantine; remove them when nobody wants to look at them",
        ),
    ] {
        let folder = Path::new(folder);
        let found = absent(disk.list(folder)).map_err(failed("list", folder))?;
        let count = found.map_or(0, |entries| entries.len());
        if count > 0 {
            remarks.push(format!("{count} {what}"));
        }
    }
    Ok(remarks)
}
