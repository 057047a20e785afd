//! The files of one log: `console.log` in use, `console.log.0` for the moment in which it is packed, `console.log.1.gz` and up, the newest
//! first. Their names change while they are read; what was opened stays what it is.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;

/// Name of the file in use.
pub(super) const CURRENT: &str = "console.log";
/// The one before it, while it is packed.
const ROTATED: &str = "console.log.0";
/// Older parts that are looked at.
pub(super) const PARTS_MAX: u32 = 100;
/// Older parts that a slow follower holds open.
const HELD_PARTS_MAX: usize = 8;
/// Rotations that a reader waits for, and how long each time; then it takes what it finds.
pub(super) const ROTATIONS_MAX: u32 = 20;
pub(super) const ROTATION_PAUSE: Duration = Duration::from_millis(10);

/// When a log was written to last; `None` when there is none.
pub(super) fn written(folder: &Path) -> Option<SystemTime> {
    // For a moment of each rotation there is only the old one.
    let found = [CURRENT, ROTATED].map(|name| folder.join(name).metadata());
    let found = found.into_iter().find_map(Result::ok)?;
    found.modified().ok()
}

/// Opens the file in use, or the one before it when there is none for a moment.
pub(super) fn open_newest(folder: &Path) -> io::Result<File> {
    match File::open(folder.join(CURRENT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(folder.join(ROTATED)),
        other => other,
    }
}

/// Which files have the names that a rotation changes: their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    current: Option<u64>,
    rotated: Option<u64>,
    newest_part: Option<u64>,
}

impl Names {
    pub(super) fn of(folder: &Path) -> Self {
        let number = |name: &str| folder.join(name).metadata().ok().map(|found| found.ino());
        Self {
            current: number(CURRENT),
            rotated: number(ROTATED),
            newest_part: number("console.log.1.gz"),
        }
    }

    /// No rotation is under way, and what is held is the file in use.
    pub(super) fn is_calm(&self, held: &File) -> bool {
        let held = held.metadata().ok().map(|found| found.ino());
        self.current.is_some() && self.current == held && self.rotated.is_none()
    }
}

/// An older part, packed or not.
#[derive(Debug)]
pub(super) enum Part {
    Plain(File),
    Packed(Box<GzDecoder<File>>),
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Packed(packed) => packed.read(buffer),
        }
    }
}

/// A part and when its last line was written; `None` when there is none of this number.
pub(super) fn open_part(folder: &Path, number: u32) -> io::Result<Option<(Part, SystemTime)>> {
    let open = |ending: &str| match File::open(folder.join(format!("{CURRENT}.{number}{ending}"))) {
        Ok(file) => {
            let changed = file.metadata()?.modified()?;
            Ok(Some((file, changed)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    if let Some((file, changed)) = open(".gz")? {
        return Ok(Some((
            Part::Packed(Box::new(GzDecoder::new(file))),
            changed,
        )));
    }
    Ok(open("")?.map(|(file, changed)| (Part::Plain(file), changed)))
}

/// What follows a file that was rotated away.
#[derive(Debug)]
pub(super) struct Following {
    /// The oldest first.
    pub(super) parts: VecDeque<Part>,
    /// The file in use.
    pub(super) current: File,
    /// Lines between are not there any more.
    pub(super) gap: bool,
}

/// What comes after `held`, which was the file in use. A packed part keeps the time of the file that it was, and is found by it.
pub(super) fn after(folder: &Path, held: &File) -> io::Result<Following> {
    let held = held.metadata()?;
    let changed = held.modified()?;
    for _ in 0..ROTATIONS_MAX {
        let before = Names::of(folder);
        if before.current.is_some() && before.rotated == Some(held.ino()) {
            let following = Following {
                parts: VecDeque::new(),
                current: File::open(folder.join(CURRENT))?,
                gap: false,
            };
            if before == Names::of(folder) {
                return Ok(following);
            }
        } else if before.current.is_some() && before.rotated.is_none() {
            let current = File::open(folder.join(CURRENT))?;
            let mut following = Following {
                parts: VecDeque::new(),
                current,
                gap: true,
            };
            for number in 1..=PARTS_MAX {
                let Some((part, time)) = open_part(folder, number)? else {
                    // Where no parts are kept, nobody can tell.
                    following.gap = number > 1;
                    break;
                };
                if time == changed {
                    following.gap = false;
                    break;
                }
                if following.parts.len() == HELD_PARTS_MAX {
                    break;
                }
                following.parts.push_front(part);
            }
            if before == Names::of(folder) {
                return Ok(following);
            }
        }
        std::thread::sleep(ROTATION_PAUSE);
    }
    Ok(Following {
        parts: VecDeque::new(),
        current: open_newest(folder)?,
        gap: true,
    })
}
