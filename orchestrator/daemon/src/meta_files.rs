//! Metadata as files for containers, as Pantavisor shows it: `user-meta/<key>` for who may read all, and `user-meta.<container>/<key>`
//! for the keys `<container>.<key>`, which that container sees as its own; `device-meta` alike.
//!
//! A thread of its own follows the view. A file is there whole or not at all. The folder above is closed to users of the host; which
//! part a container gets mounted is decided by the run time. What cannot be written is logged and tried again with the next change.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use device::Handle;
use device::handle::View;
use device::shared::Registration;
use model::metadata::MetaKind;

/// A file on its way to its name; no folder that a container sees.
const NEW: &str = ".new";

type Values = BTreeMap<String, Vec<u8>>;

/// Follows the device's metadata below `folder` until the registration is dropped.
///
/// # Errors
/// The thread could not be started.
pub(crate) fn follow(folder: PathBuf, handle: &Handle) -> io::Result<Registration> {
    let (changed, changes) = sync_channel(1);
    let follower = handle.clone();
    thread::Builder::new()
        .name("metadata".to_owned())
        .spawn(move || Files::new(folder).run(&follower, &changes))?;
    // Full: it will look at the newest view anyway.
    changed.try_send(()).ok();
    Ok(handle.on_event(move || {
        changed.try_send(()).ok();
    }))
}

/// The files as they were written last.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    written: BTreeMap<String, Values>,
}

impl Files {
    fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            written: BTreeMap::new(),
        }
    }

    fn run(mut self, handle: &Handle, changes: &Receiver<()>) {
        while changes.recv().is_ok() {
            if let Err(error) = self.write(wanted(&handle.view())) {
                tracing::warn!(folder = %self.folder.display(), %error, "cannot show metadata to containers");
            }
        }
    }

    /// Makes the folders hold just this. Folders of containers that are gone are emptied, not removed: one may be starting in it.
    fn write(&mut self, wanted: BTreeMap<String, Values>) -> io::Result<()> {
        make_folder(&self.folder, 0o700)?;
        for name in wanted.keys() {
            if !self.written.contains_key(name) {
                let path = self.folder.join(name);
                make_folder(&path, 0o755)?;
                // What an earlier start left is written anew, or removed below.
                let left = names_in(&path)?.into_iter().map(|name| (name, Vec::new()));
                let left: Values = left.collect();
                self.written.insert(name.clone(), left);
                self.write_folder(name, &wanted[name], true)?;
            }
        }
        let known: Vec<String> = self.written.keys().cloned().collect();
        let nothing = Values::new();
        for name in known {
            self.write_folder(&name, wanted.get(&name).unwrap_or(&nothing), false)?;
        }
        Ok(())
    }

    fn write_folder(&mut self, name: &str, wanted: &Values, all: bool) -> io::Result<()> {
        let folder = self.folder.join(name);
        let Some(written) = self.written.get_mut(name) else {
            return Ok(());
        };
        let gone: Vec<String> = written
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            absent_is_fine(fs::remove_file(folder.join(&key)))?;
            written.remove(&key);
        }
        for (key, value) in wanted {
            if all || written.get(key) != Some(value) {
                let new = self.folder.join(NEW);
                fs::write(&new, value)?;
                fs::set_permissions(&new, Permissions::from_mode(0o644))?;
                fs::rename(&new, folder.join(key))?;
                written.insert(key.clone(), value.clone());
            }
        }
        Ok(())
    }
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

fn names_in(path: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What each folder is to hold.
fn wanted(view: &View) -> BTreeMap<String, Values> {
    let mut folders = BTreeMap::new();
    for (kind, pairs) in [
        (MetaKind::User, &view.user_meta),
        (MetaKind::Device, &view.device_meta),
    ] {
        let whole = format!("{}-meta", kind.folder());
        let mut all = Values::new();
        for container in &view.containers {
            folders.insert(format!("{whole}.{}", container.name), Values::new());
        }
        for (key, value) in pairs.iter().filter(|(key, _)| is_file_name(key)) {
            all.insert(key.clone(), value.clone());
            if let Some((container, key)) = owner(view, key) {
                let own = folders.entry(format!("{whole}.{container}"));
                own.or_default().insert(key.to_owned(), value.clone());
            }
        }
        folders.insert(whole, all);
    }
    folders
}

/// Keys may be what no file can be called.
fn is_file_name(key: &str) -> bool {
    !matches!(key, "." | "..")
}

/// The container whose key this is, and the key as it sees it. Of two containers that fit, the one with the longer name.
fn owner<'a>(view: &View, key: &'a str) -> Option<(String, &'a str)> {
    let fitting = view.containers.iter().filter_map(|container| {
        let rest = key.strip_prefix(container.name.as_str())?;
        let rest = rest.strip_prefix('.')?;
        (!rest.is_empty() && is_file_name(rest)).then(|| (container.name.to_string(), rest))
    });
    fitting.max_by_key(|(name, _)| name.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::handle::{ContainerView, Happened, RecoveryView};
    use model::container::{BackoffPolicy, RecoveryPolicy, RestartPolicy};
    use model::{Goal, ObjectId, Status, WallTime};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    fn view(containers: &[&str], user: &[(&str, &str)]) -> View {
        let container = |name: &&str| ContainerView {
            name: name.parse().unwrap(),
            group: "app".parse().unwrap(),
            status: Status::Started,
            goal: Goal::Started,
            restart_policy: RestartPolicy::System,
            roles: Vec::new(),
            recovery: RecoveryView {
                policy: RecoveryPolicy::No,
                max_retries: 0,
                current_retries: 0,
                stable_timeout: Duration::ZERO,
                is_stable: true,
                backoff: BackoffPolicy::Never,
            },
            user_stopped: false,
            pid: None,
            started_at: None,
            restarts: 0,
            exit_code: None,
            out_of_memory: false,
            damaged: None,
            fingerprint: ObjectId::of(b"x"),
            reason: String::new(),
            health_problem: None,
        };
        let pairs = user
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        View {
            containers: containers.iter().map(container).collect(),
            user_meta: Arc::new(pairs.collect()),
            ..View::default()
        }
    }

    /// All files below a folder with what they hold.
    fn found(folder: &Path) -> Vec<String> {
        let mut all = Vec::new();
        for name in names_in(folder).unwrap() {
            for key in names_in(&folder.join(&name)).unwrap() {
                let value = fs::read_to_string(folder.join(&name).join(&key)).unwrap();
                all.push(format!("{name}/{key}={value}"));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn each_container_has_its_own_keys_and_follows_them() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("meta");
        let mut files = Files::new(folder.clone());
        let keys = [
            ("plain", "1"),
            ("web.port", "80"),
            ("web.", "none"),
            ("web...", "a path"),
            ("..", "no file"),
            ("web.x.y", "deep"),
            ("webs.z", "nobody's"),
            (".new", "a key"),
        ];
        files
            .write(wanted(&view(&["web", "web.x"], &keys)))
            .unwrap();
        assert_eq!(
            found(&folder),
            [
                "user-meta.web.x/y=deep",
                "user-meta.web/port=80",
                "user-meta/.new=a key",
                "user-meta/plain=1",
                "user-meta/web...=a path",
                "user-meta/web.=none",
                "user-meta/web.port=80",
                "user-meta/web.x.y=deep",
                "user-meta/webs.z=nobody's",
            ]
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("user-meta.web/port")), 0o644);
        // Another start: what is not there any more goes, what changed is written, a container that is gone sees nothing.
        let mut files = Files::new(folder.clone());
        let next = view(&["web"], &[("web.port", "81")]);
        files
            .write(wanted(&view(&["web", "web.x"], &keys)))
            .unwrap();
        files.write(wanted(&next)).unwrap();
        assert_eq!(
            found(&folder),
            ["user-meta.web/port=81", "user-meta/web.port=81"]
        );
        let mut files = Files::new(folder.clone());
        files.write(wanted(&view(&["web"], &[]))).unwrap();
        assert_eq!(found(&folder), Vec::<String>::new());
        assert!(folder.join("device-meta.web").is_dir());
    }

    #[test]
    fn the_thread_follows_the_view() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("meta");
        let handle = Handle::new(|_, _| {});
        let registration = follow(folder.clone(), &handle).unwrap();
        for value in ["80", "81"] {
            handle.publish(view(&["web"], &[("web.port", value)]));
            handle.record(Happened {
                id: 0,
                time: WallTime(0),
                kind: "meta",
                revision: None,
                container: None,
                message: String::new(),
            });
            handle.wake();
            let path = folder.join("user-meta.web/port");
            let end = Instant::now() + Duration::from_secs(20);
            while fs::read_to_string(&path).ok().as_deref() != Some(value) {
                assert!(Instant::now() < end, "{value} is not shown");
                thread::sleep(Duration::from_millis(5));
            }
        }
        drop(registration);
    }
}
