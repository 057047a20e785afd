//! The storage: found, checked, mounted, grown. Whatever touches its device is done in a child.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use linux::block::{self, Refused, ResizeError, Wanted};
use linux::storage::{self, Access};

use super::{Done, Limit};
use crate::init::{Init, Storage};

/// How often is looked for the device.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const E2FSCK: [&str; 3] = ["/usr/sbin/e2fsck", "/sbin/e2fsck", "/usr/bin/e2fsck"];
/// A file system that is so much smaller than its device is grown.
const GROWTH_BYTES_MIN: u64 = 16 << 20;

pub(super) fn find(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    let text = init.config.text("storage-device").to_owned();
    if text.is_empty() {
        let folder = init.config.path("storage");
        return if std::fs::create_dir_all(&folder).is_ok() && linux::disk::is_writable(&folder) {
            Ok(Done::Skipped)
        } else {
            Err(format!(
                "no device is named, and {} cannot be written: set storage-device (coxswain.storage-device=LABEL=...)",
                folder.display()
            ))
        };
    }
    let found = wait_for(init, limit, &text)?;
    let mut lines = found.lines().map(PathBuf::from);
    let device = lines.next().ok_or("the search gave nothing")?;
    let others: Vec<_> = lines.map(|other| other.display().to_string()).collect();
    let shown = device.display().to_string();
    init.storage = Some(Storage {
        device,
        read_only: false,
    });
    Ok(if others.is_empty() {
        Done::Told(format!("{text} is {shown}"))
    } else {
        Done::Told(format!(
            "{text} is {shown}, and {} as well; give them different names",
            others.join(", ")
        ))
    })
}

/// Waits until there is such a device; a line for each that is.
fn wait_for(init: &mut Init, limit: &Limit, text: &str) -> Result<String, String> {
    let wanted: Wanted = text
        .parse()
        .map_err(|error: block::NoDevice| error.to_string())?;
    let until = *limit;
    // The child ends itself a little before its time is over, to say what it saw.
    limit.run(init, move || {
        loop {
            if let Some((device, others)) = block::find(&wanted) {
                let mut lines = vec![device.display().to_string()];
                lines.extend(others.iter().map(|other| other.display().to_string()));
                return Ok(lines.join("\n"));
            }
            if until.left() < LOOK_AGAIN * 5 {
                return Err(missing(&wanted));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    })
}

fn missing(wanted: &Wanted) -> String {
    let seen: Vec<String> = block::devices()
        .iter()
        .map(|device| device.path.display().to_string())
        .collect();
    let seen = if seen.is_empty() {
        "no device at all; is a driver missing?".to_owned()
    } else {
        seen.join(", ")
    };
    format!("there is no {wanted}; what is there: {seen}")
}

/// A disk that is larger than the image that was written to it.
pub(super) fn grow_partition(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    let Some(device) = init.storage.as_ref().map(|storage| storage.device.clone()) else {
        return Ok(Done::Skipped);
    };
    if !init.config.flag("storage-grow") {
        return Ok(Done::Skipped);
    }
    let said = limit.run(init, move || match block::grow_partition(&device) {
        Ok(None) => Ok(String::new()),
        Ok(Some(bytes)) => Ok(format!("{} MiB now, to the end of the disk", bytes >> 20)),
        // Somebody made it so.
        Err(ResizeError::Refused {
            source: Refused::NotLast,
            ..
        }) => Ok(String::new()),
        Err(error) => Err(store::explain(&error)),
    })?;
    Ok(if said.is_empty() {
        Done::Skipped
    } else {
        Done::Told(said)
    })
}

/// e2fsck by itself mends what can be mended without loss. Where that is not enough, nobody is there who could answer questions: it is
/// told to do what it can, because every object is verified by its digest afterwards.
pub(super) fn check(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    let mode = init.config.text("storage-check").to_owned();
    let Some(device) = init.storage.as_ref().map(|storage| storage.device.clone()) else {
        return Ok(Done::Skipped);
    };
    if mode == "never" || init.config.text("storage-type") != "ext4" {
        return Ok(Done::Skipped);
    }
    let said = limit.run(init, move || {
        let why = match block::superblock(&device) {
            Ok(found) => found.needs_check,
            Err(_) => Some("its superblock cannot be read"),
        };
        let Some(why) = why.or((mode == "always").then_some("a setting says so")) else {
            return Ok(String::new());
        };
        mend(&device, why)
    })?;
    Ok(if said.is_empty() {
        Done::Skipped
    } else {
        Done::Told(said)
    })
}

/// Runs e2fsck, and says what came of it. Its gentle way does not look for the second superblock when the first one is torn.
fn mend(device: &Path, why: &str) -> Result<String, String> {
    let program = E2FSCK.iter().find(|path| Path::new(path).exists());
    let program =
        program.ok_or_else(|| format!("a check is due ({why}), and there is no e2fsck"))?;
    match judge(e2fsck(program, "-p", device)?) {
        Judged::Sound => return Ok(format!("checked ({why}): sound")),
        Judged::Mended => return Ok(format!("checked ({why}): mended")),
        Judged::Left | Judged::Failed => {}
    }
    let second = e2fsck(program, "-fy", device)?;
    match judge(second) {
        Judged::Sound | Judged::Mended => Ok(format!("checked ({why}): mended by force")),
        Judged::Left | Judged::Failed => Err(format!("e2fsck -fy failed with {second} ({why})")),
    }
}

fn e2fsck(program: &str, how: &str, device: &Path) -> Result<i32, String> {
    let output = Command::new(program)
        .arg(how)
        .arg(device)
        .output()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in text.lines().take(20) {
        tracing::info!("e2fsck: {line}");
    }
    output
        .status
        .code()
        .ok_or_else(|| format!("{program} was killed"))
}

#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Sound,
    Mended,
    Left,
    Failed,
}

/// Exit codes of e2fsck(8) are bits.
fn judge(code: i32) -> Judged {
    match code {
        0 => Judged::Sound,
        // 2 asks for a restart when the root was mended; nothing is mounted here.
        1..=3 => Judged::Mended,
        code if code & !7 == 0 => Judged::Left,
        _ => Judged::Failed,
    }
}

pub(super) fn mount(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    let target = init.config.path("storage");
    let kind = init.config.text("storage-type").to_owned();
    let Some(device) = init.storage.as_ref().map(|storage| storage.device.clone()) else {
        return Ok(Done::Skipped);
    };
    if let Err(error) = std::fs::create_dir_all(&target)
        && !target.is_dir()
    {
        return Err(format!("cannot make {}: {error}", target.display()));
    }
    let may_mend = init.config.text("storage-check") != "never" && kind == "ext4";
    let said = limit.run(init, move || {
        match storage::mount_writable(&device, &target, &kind) {
            Ok(()) => return Ok(String::new()),
            // A power cut may have torn the last commit block of the journal; nothing tells that before (decisions/0105).
            Err(error) if may_mend && storage::is_damage(&error) => {
                match mend(&device, &store::explain(&error)) {
                    Ok(said) => tracing::warn!("{}: {said}", device.display()),
                    Err(said) => tracing::error!("{}: {said}", device.display()),
                }
            }
            Err(_) => {}
        }
        match storage::mount(&device, &target, &kind) {
            Ok(Access::Full) => Ok(String::new()),
            Ok(Access::ReadOnly(why)) => Ok(store::explain(&why)),
            Err(error) => Err(store::explain(&error)),
        }
    })?;
    if said.is_empty() {
        return Ok(Done::Yes);
    }
    if let Some(storage) = &mut init.storage {
        storage.read_only = true;
    }
    Ok(Done::Told(format!(
        "mounted read-only, nothing can be installed or kept: {said}"
    )))
}

pub(super) fn grow(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    let target = init.config.path("storage");
    let Some(storage) = &init.storage else {
        return Ok(Done::Skipped);
    };
    let is_wanted = init.config.flag("storage-grow") && init.config.text("storage-type") == "ext4";
    if storage.read_only || !is_wanted {
        return Ok(Done::Skipped);
    }
    let device = storage.device.clone();
    let said = limit.run(init, move || {
        let failed = |error: std::io::Error| format!("cannot grow {}: {error}", target.display());
        let is = block::superblock(&device).map_err(failed)?.bytes;
        let may = block::size(&device).map_err(failed)?;
        if may.saturating_sub(is) < GROWTH_BYTES_MIN {
            return Ok(String::new());
        }
        storage::grow(&target, may).map_err(failed)?;
        Ok(format!("grew from {} MiB to {} MiB", is >> 20, may >> 20))
    })?;
    Ok(if said.is_empty() {
        Done::Skipped
    } else {
        Done::Told(said)
    })
}

/// The partition that the boot loader reads, where that is not the storage. Without it the device says that its boot loader cannot be told.
pub(super) fn boot_partition(init: &mut Init, limit: &Limit) -> Result<Done, String> {
    let text = init.config.text("bootloader-device").to_owned();
    if text.is_empty() {
        return Ok(Done::Skipped);
    }
    if init.config.text("bootloader-path").is_empty() {
        return Err(format!(
            "{text} cannot be mounted: set bootloader-path, the folder where the boot loader's files shall be"
        ));
    }
    let target = init.config.path("bootloader-path");
    let found = wait_for(init, limit, &text)?;
    let device = PathBuf::from(found.lines().next().ok_or("the search gave nothing")?);
    if let Err(error) = std::fs::create_dir_all(&target) {
        return Err(format!("cannot make {}: {error}", target.display()));
    }
    let shown = device.display().to_string();
    let folder = target.clone();
    let mounted = limit.run(init, move || {
        storage::mount_boot(&device, &folder).map_err(|error| store::explain(&error))?;
        Ok(String::new())
    });
    if let Err(error) = mounted {
        // Nothing may be written beside the partition.
        std::fs::remove_dir(&target).ok();
        return Err(error);
    }
    Ok(Done::Told(format!("{text} is {shown}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_e2fsck() {
        for (code, expected) in [
            (0, Judged::Sound),
            (1, Judged::Mended),
            (2, Judged::Mended),
            (3, Judged::Mended),
            (4, Judged::Left),
            (5, Judged::Left),
            (8, Judged::Failed),
            (12, Judged::Failed),
            (16, Judged::Failed),
            (32, Judged::Failed),
            (128, Judged::Failed),
        ] {
            assert_eq!(judge(code), expected, "{code}");
        }
    }
}
