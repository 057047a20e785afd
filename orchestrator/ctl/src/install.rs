//! `coxctl install`: a revision from a bundle or a folder onto the device.
//!
//! Order: read and check everything here, upload what the device lacks, install the manifest, look again whether an object was
//! collected meanwhile, then run. Nothing is changed on the device that a cut could leave half done: an upload is a part that
//! goes on next time, a manifest is there or not.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Bundle, BundleError, Uploaded};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::manifest::Rejected;
use model::{ObjectId, RevisionId};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::cli::InstallArgs;
use crate::commands::Context;
use crate::failure::{Exit, Failure};
use crate::follow::{self, Judged};
use crate::terminal::print;
use crate::units;

/// Uploads at the same time.
const UPLOADS: usize = 4;
/// How often objects that went away meanwhile are uploaded again.
const ROUNDS: usize = 3;

/// What was done, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Installed {
    revision: RevisionId,
    manifest: ObjectId,
    objects: Objects,
    result: Option<Judged>,
}

/// Objects of the revision.
#[derive(Debug, Default, Serialize)]
struct Objects {
    /// How many it needs.
    needed: usize,
    /// How many were uploaded.
    uploaded: usize,
    /// Bytes that were uploaded.
    bytes: u64,
}

/// `coxctl install`.
pub(crate) async fn install(context: &Context, args: InstallArgs) -> Result<Exit, Failure> {
    context.interrupted.replace(
        "no revision was installed; the same command goes on where the uploads ended".to_owned(),
    );
    let source = args.source.clone();
    let bundle = blocking(move || Bundle::open(&source))
        .await?
        .map_err(bundle_failure)?;
    let bundle = Arc::new(bundle);
    let digest = bundle.manifest().digest();
    let revision = match args.name {
        Some(name) => name,
        None => format!("locals/{}", digest.short())
            .parse()
            .expect("twelve digits are the name of a revision"),
    };
    if let Some(message) = &args.message {
        check_message(message)?;
    }
    let mut scratch = Scratch::beside(&args.source);
    let mut installed = Installed {
        revision: revision.clone(),
        manifest: digest,
        objects: Objects {
            needed: bundle.manifest().objects().len(),
            ..Objects::default()
        },
        result: None,
    };
    upload_missing(context, &bundle, &mut scratch, &mut installed.objects).await?;
    let manifest = bundle.manifest().bytes().to_vec();
    context
        .client
        .put_manifest(&revision, manifest.into())
        .await?;
    context.interrupted.replace(format!(
        "{revision} is installed; the same command checks that its objects are there"
    ));
    // From now on the revision keeps its objects; what was collected before that is sent again.
    upload_missing(context, &bundle, &mut scratch, &mut installed.objects).await?;
    drop(scratch);
    if let Some(message) = &args.message {
        context
            .client
            .put_commit_message(&revision, message)
            .await?;
    }
    if !context.json {
        print(&summary(&installed))?;
    }
    let mut exit = Exit::Good;
    if args.run {
        let how = follow::How {
            again: args.again,
            in_place: false,
        };
        let watch = follow::start(context, &revision, how).await?;
        if args.wait {
            let judged = watch
                .wait(context, Duration::from_secs(args.timeout))
                .await?;
            exit = judged.exit();
            if !context.json {
                print(&follow::sentence(context, &judged))?;
            }
            installed.result = Some(judged);
        } else if !context.json {
            print(&format!(
                "{revision} is being tried; `coxctl progress {revision} --wait` waits for the result\n"
            ))?;
        }
    }
    if context.json {
        context.show(&installed, |_| String::new())?;
    }
    Ok(exit)
}

fn check_message(message: &str) -> Result<(), Failure> {
    let max = model::limits::COMMIT_MESSAGE_BYTES_MAX;
    if message.is_empty() || message.len() > max {
        let what = format!(
            "a commit message has 1 to {max} bytes, not {}",
            message.len()
        );
        return Err(Failure::new(Exit::Usage, what).remedy("give another --message"));
    }
    Ok(())
}

fn summary(installed: &Installed) -> String {
    let Objects {
        needed,
        uploaded,
        bytes,
    } = installed.objects;
    let sent = match uploaded {
        0 => "all were on the device already".to_owned(),
        _ => format!("{uploaded} uploaded ({})", units::bytes(bytes)),
    };
    format!(
        "installed {} (manifest {}): {}, {sent}\n",
        installed.revision,
        installed.manifest.short(),
        units::count(needed, "object")
    )
}

/// Uploads what the device lacks until it lacks nothing.
async fn upload_missing(
    context: &Context,
    bundle: &Arc<Bundle>,
    scratch: &mut Scratch,
    done: &mut Objects,
) -> Result<(), Failure> {
    for _ in 0..ROUNDS {
        let there: BTreeSet<ObjectId> = context
            .client
            .objects()
            .await?
            .into_iter()
            .map(|object| object.sha256)
            .collect();
        let needed = bundle.manifest().objects();
        let missing: BTreeSet<ObjectId> = needed
            .keys()
            .copied()
            .filter(|object| !there.contains(object))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let folder = scratch.folder()?;
        let source = Arc::clone(bundle);
        let files = blocking(move || source.unpack(&missing, &folder)).await?;
        upload(context, files.map_err(bundle_failure)?, done).await?;
    }
    Err(Failure::new(
        Exit::Failed,
        "objects disappear from the device while they are uploaded",
    )
    .remedy("look at the device's log and `coxctl events`; then run the same command again"))
}

/// Uploads these files, several at once.
async fn upload(
    context: &Context,
    files: BTreeMap<ObjectId, PathBuf>,
    done: &mut Objects,
) -> Result<(), Failure> {
    let mut total = 0;
    for path in files.values() {
        let size = std::fs::metadata(path).map_err(|error| Failure::file("read", path, &error))?;
        total += size.len();
    }
    check_space(context, total).await?;
    let bars = Bars::new(context, total);
    let mut waiting = files.into_iter();
    let mut uploads: JoinSet<Result<u64, client::Error>> = JoinSet::new();
    loop {
        while uploads.len() < UPLOADS {
            let Some((object, path)) = waiting.next() else {
                break;
            };
            let (client, bar, all) = (
                context.client.clone(),
                bars.add(&object, &path),
                bars.all.clone(),
            );
            uploads.spawn(async move {
                let shown = bar.clone();
                let progress = move |bytes: u64| {
                    // What a broken attempt lost is sent again; the sum shows what is there.
                    let before = shown.position();
                    shown.set_position(bytes);
                    all.inc(bytes.saturating_sub(before));
                };
                let result = client.upload_file(&object, &path, Arc::new(progress)).await;
                bar.finish_and_clear();
                Ok(match result? {
                    Uploaded::Sent => bar.length().unwrap_or(0),
                    Uploaded::WasThere => 0,
                })
            });
        }
        // On the first failure the others are dropped; their parts stay on the device.
        match uploads.join_next().await {
            None => break,
            Some(Ok(Ok(bytes))) => {
                done.uploaded += 1;
                done.bytes += bytes;
            }
            Some(Ok(Err(error))) => return Err(error.into()),
            Some(Err(error)) => {
                return Err(
                    Failure::new(Exit::Failed, "an upload ended").because(error.to_string())
                );
            }
        }
    }
    bars.all.finish_and_clear();
    Ok(())
}

/// Refuses early what cannot fit; the device decides in the end.
async fn check_space(context: &Context, bytes: u64) -> Result<(), Failure> {
    let Ok(status) = context.client.status().await else {
        return Ok(());
    };
    match status.storage {
        Some(storage) if storage.free_bytes < bytes => Err(Failure::new(
            Exit::NoSpace,
            format!(
                "the objects to upload have {}, the device has {} free",
                units::bytes(bytes),
                units::bytes(storage.free_bytes)
            ),
        )
        .remedy("remove old revisions (`coxctl steps`, `coxctl delete REV`), then `coxctl gc`")),
        Some(_) | None => Ok(()),
    }
}

/// Bars on standard error, when it is a terminal.
struct Bars {
    bars: MultiProgress,
    all: ProgressBar,
}

impl Bars {
    fn new(context: &Context, total: u64) -> Self {
        let target = if context.json {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bars = MultiProgress::with_draw_target(target);
        let all = bars.add(ProgressBar::new(total).with_style(style()));
        all.set_message("upload");
        Self { bars, all }
    }

    fn add(&self, object: &ObjectId, path: &Path) -> ProgressBar {
        let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let bar = self
            .bars
            .insert_before(&self.all, ProgressBar::new(size).with_style(style()));
        bar.set_message(object.short());
        bar
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg:12} {bar:30} {binary_bytes:>11} of {binary_total_bytes:<11} {binary_bytes_per_sec:>13} {eta:>4}",
    )
    .expect("the template is a constant that a test renders")
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Exit::Failed, "reading ended").because(error.to_string()))
}

pub(crate) fn bundle_failure(error: BundleError) -> Failure {
    match &error {
        BundleError::Manifest { source, .. } => rejected(error.to_string(), source),
        BundleError::Read { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::file("read", path, source).remedy("give a bundle (.tgz) or a folder")
        }
        BundleError::Write { path, source } => Failure::file("write", path, source)
            .remedy("name a folder with enough space in the environment variable TMPDIR"),
        BundleError::Read { .. } => {
            let mut failure = Failure::new(Exit::Unacceptable, error.to_string());
            failure = failure.caused_by(&error);
            failure.because.remove(0);
            failure
        }
        BundleError::NoManifest { .. }
        | BundleError::Corrupt { .. }
        | BundleError::Missing { .. }
        | BundleError::TooLarge { .. } => Failure::new(Exit::Unacceptable, error.to_string()),
    }
}

/// A manifest with problems: all of them are shown.
pub(crate) fn rejected(what: String, rejected: &Rejected) -> Failure {
    let mut failure = Failure::new(Exit::Unacceptable, what)
        .remedy("correct the manifest; `coxctl revision` makes manifests that are accepted");
    failure.problems = rejected.problems.iter().map(Into::into).collect();
    let untold = rejected.total.saturating_sub(rejected.problems.len());
    if untold > 0 {
        failure = failure.because(format!("{untold} more problems are not shown"));
    }
    failure
}

/// A folder for what an archive holds, made when it is needed and removed at the end.
struct Scratch {
    /// Where it may be, best place first.
    places: Vec<PathBuf>,
    made: Option<PathBuf>,
}

impl Scratch {
    /// In TMPDIR when it is set, else beside the bundle (there was room for the bundle, while /tmp may be memory), else in /tmp.
    fn beside(bundle: &Path) -> Self {
        let beside = match bundle.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        let named = std::env::var_os("TMPDIR").map(PathBuf::from);
        let places = named
            .into_iter()
            .chain([beside, PathBuf::from("/tmp")])
            .collect();
        Self { places, made: None }
    }

    /// The folder: fresh and only ours, so that nobody can have put links into it.
    fn folder(&mut self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.made {
            return Ok(path.clone());
        }
        let mut failure = Failure::new(Exit::Failed, "there is no place for the bundle's objects");
        for place in &self.places {
            for attempt in 0..100 {
                let path = place.join(format!(".coxctl-{}-{attempt}", std::process::id()));
                match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                    Ok(()) => {
                        self.made = Some(path.clone());
                        return Ok(path);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => {
                        failure = failure.because(format!("{}: {error}", place.display()));
                        break;
                    }
                }
            }
        }
        Err(failure.remedy("name a folder with enough space in the environment variable TMPDIR"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            // What cannot be removed is only scratch.
            std::fs::remove_dir_all(path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_can_be_drawn() {
        let bar = ProgressBar::with_draw_target(Some(10), ProgressDrawTarget::hidden());
        bar.set_style(style());
        bar.set_position(5);
        bar.finish();
    }

    #[test]
    fn scratch_is_ours_and_goes_away() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let mut scratch = Scratch {
            places: vec![place.path().join("none"), place.path().into()],
            made: None,
        };
        // Somebody was there before: that folder is not taken.
        let taken = place
            .path()
            .join(format!(".coxctl-{}-0", std::process::id()));
        std::fs::create_dir(&taken).expect("a folder");
        let folder = scratch.folder().expect("the second place");
        assert_ne!(folder, taken);
        assert_eq!(scratch.folder().expect("the same again"), folder);
        std::fs::write(folder.join("x"), "x").expect("a file");
        drop(scratch);
        assert!(!folder.exists() && taken.exists());
        let mut nowhere = Scratch {
            places: vec![place.path().join("none")],
            made: None,
        };
        assert!(nowhere.folder().is_err());
    }
}
