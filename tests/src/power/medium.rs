//! An image of a disk on this machine: written to memory, mounted as the device would mount it, judged, and thrown away.
//!
//! The kernel's own ext4 replays the journal, or `e2fsck -p` does before. Afterwards a full e2fsck must find nothing at all: a journal
//! that was replayed leaves no work. Two complaints are legitimate, both over a checksum of a block of which some sectors are new and
//! some old ([`Torn`]): e2fsck mends them without a question, so a start runs it when a mount fails
//! (orchestrator/decisions/0105). What e2fsck may not do is to change anything else.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::image::binary;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::record::{BLOCK, used};

/// Somebody else's look at a mount is over after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A place for one image at a time.
#[derive(Debug)]
pub struct Medium {
    file: File,
    path: PathBuf,
    tree: PathBuf,
    device: String,
    folder: PathBuf,
}

/// What looking at an image gave.
#[derive(Debug)]
pub struct Looked<T> {
    /// What the looker found.
    pub found: T,
    /// The kernel refused it, and e2fsck had to mend this.
    pub torn: Option<Torn>,
}

/// What a torn write may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Torn {
    /// The last commit block of the journal: its transaction is dropped (`e2fsck -p`).
    Journal,
    /// The superblock: its copy takes its place (`e2fsck -fy`).
    Superblock,
}

/// Who replays the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// The kernel, when it mounts.
    Kernel,
    /// `e2fsck -p`, before that.
    E2fsck,
}

impl Medium {
    /// A place in memory for images of this size.
    pub fn new(bytes: u64) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cx-medium-")
            .tempdir_in("/dev/shm")
            .expect("a folder in memory")
            .keep();
        let (path, tree) = (folder.join("image"), folder.join("tree"));
        fs::create_dir(&tree).expect("a folder to mount on");
        let file = File::create_new(&path).expect("a file for images");
        file.set_len(bytes).expect("a sparse file");
        let output = run(Command::new("losetup").args(["-f", "--show"]).arg(&path));
        assert!(output.status.success(), "no loop device: {output:?}");
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Self {
            file,
            path,
            tree,
            device,
            folder,
        }
    }

    /// Takes these bytes, of which these blocks are not zero, and over them these.
    pub fn load(&self, medium: &[u8], used: &[bool], over: &[(u64, &[u8])]) {
        let length = medium.len() as u64;
        self.file.set_len(0).expect("the file is emptied");
        self.file.set_len(length).expect("a sparse file");
        let mut first = 0;
        // Blocks that follow each other in one write.
        for run in used.chunk_by(|one, next| one == next) {
            let start = first * BLOCK;
            first += run.len();
            if run[0] {
                let end = (first * BLOCK).min(medium.len());
                self.write(start as u64, &medium[start..end]);
            }
        }
        for (offset, data) in over {
            self.write(*offset, data);
        }
    }

    /// Takes what is in a file.
    pub fn load_file(&self, path: &Path) {
        let bytes = fs::read(path).expect("the disk's file");
        self.load(&bytes, &used(&bytes), &[]);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let written = self.file.write_all_at(data, offset);
        written.expect("memory takes the image");
    }

    /// The file with the image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts it, lets somebody look at the tree, unmounts it; and says what is wrong with the file system.
    pub fn judge<T>(
        &self,
        replay: Replay,
        look: impl FnOnce(&Path) -> T,
    ) -> Result<Looked<T>, String> {
        let mut torn = None;
        if replay == Replay::E2fsck && self.e2fsck("-p").is_err() {
            torn = Some(self.mend_superblock()?);
        }
        if let Err(error) = self.mount() {
            torn = Some(match error {
                Errno::UCLEAN => self.mend_journal()?,
                Errno::BADMSG => self.mend_superblock()?,
                _ => return Err(format!("the kernel does not mount it: {error}")),
            });
            self.mount()
                .map_err(|error| format!("the kernel does not mount it after e2fsck: {error}"))?;
        }
        let found = look(&self.tree);
        self.unmount();
        self.e2fsck("-fn")
            .map_err(|why| format!("after the journal was replayed: {why}"))?;
        Ok(Looked { found, torn })
    }

    fn mend_journal(&self) -> Result<Torn, String> {
        let said = self.e2fsck("-p")?;
        if said.contains("was corrupt, replay was aborted") {
            Ok(Torn::Journal)
        } else {
            Err(format!("the kernel does not mount it, e2fsck says: {said}"))
        }
    }

    fn mend_superblock(&self) -> Result<Torn, String> {
        let said = self.e2fsck("-fy")?;
        // The other superblock does not know that there is a journal to be replayed; the descriptors of groups that lie beside it are
        // as old, so all that sums up is made anew from the inodes. An inode or a name that must be mended is another matter.
        let expected = [
            "Superblock checksum does not match superblock",
            "Superblock invalid, trying backup blocks",
            "needs_recovery flag is clear, but journal has data",
            "Recovery flag not set in backup superblock, so running journal anyway",
            "recovering journal",
            "Pass ",
            "blocks count wrong",
            "inodes count wrong",
            "Directories count wrong",
            "bitmap does not match checksum",
            "bitmap differences",
            // The list of those begins in the superblock.
            "orphan",
            "zero dtime",
            "FIXED.",
            "Padding at end of",
            "Fix? yes",
            "FILE SYSTEM WAS MODIFIED",
            " files (",
            "e2fsck 1.",
        ];
        let mut lines = said.lines().filter(|line| !line.is_empty());
        match lines.find(|line| !expected.iter().any(|known| line.contains(known))) {
            None => Ok(Torn::Superblock),
            Some(line) => Err(format!("e2fsck does more than it may: {line:?} in\n{said}")),
        }
    }

    /// Runs it; 1 says that something was mended, anything above that something is left.
    fn e2fsck(&self, how: &str) -> Result<String, String> {
        let output = run(Command::new("e2fsck").arg(how).arg(&self.path));
        let most = i32::from(how != "-fn");
        if output.status.code().is_none_or(|code| code > most) {
            return Err(told(&format!("e2fsck {how}"), &output));
        }
        let (said, errors) = (&output.stdout, &output.stderr);
        Ok(format!(
            "{}{}",
            String::from_utf8_lossy(errors),
            String::from_utf8_lossy(said)
        ))
    }

    fn mount(&self) -> Result<(), Errno> {
        let device = self.device.as_str();
        mount(device, &self.tree, "ext4", MountFlags::NOATIME, None)
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        // A panic while it was mounted.
        unmount(&self.tree, UnmountFlags::DETACH).ok();
        Command::new("losetup")
            .arg("-d")
            .arg(&self.device)
            .output()
            .ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl Medium {
    /// Unmounts the tree, and waits until nobody has it any more: a process that another thread is just starting has our open files
    /// for a moment, and one that has just made its own view of all mounts has ours too.
    fn unmount(&self) {
        let end = Instant::now() + PATIENCE;
        let again = |error: &str| {
            assert!(
                Instant::now() < end,
                "{} stays mounted: {error}",
                self.device
            );
            std::thread::sleep(Duration::from_millis(1));
        };
        while let Err(error) = unmount(&self.tree, UnmountFlags::empty()) {
            again(&error.to_string());
        }
        // Nobody else can have opened the device like this while it is mounted anywhere.
        while let Err(error) = File::options()
            .read(true)
            .custom_flags(OFlags::EXCL.bits().cast_signed())
            .open(&self.device)
        {
            again(&error.to_string());
        }
    }
}

/// What `coxswain check` says of a tree: which revision the next boot runs.
pub fn coxswain_check(tree: &Path) -> Result<String, String> {
    let mut command = Command::new(binary("coxswain"));
    let output = run(command.args(["check", "--storage"]).arg(tree));
    if !output.status.success() {
        return Err(told("coxswain check", &output));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    match first.strip_prefix("the next boot runs ") {
        Some(revision) => Ok(revision.to_owned()),
        None => Err(format!("coxswain check says {first:?}")),
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?} does not run: {error}"))
}

fn told(what: &str, output: &Output) -> String {
    format!(
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
