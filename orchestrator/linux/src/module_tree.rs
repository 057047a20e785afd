//! Kernel modules without `modprobe`: the lists that `depmod` made are read, and files are given to the kernel in the order of their
//! needs. Used by an init before there are programs, and as the kernel's own helper (`modprobe -q -- fs-squashfs`).
//!
//! Deliberately not here: blacklists and options of `modprobe.d`, `softdep`, `install` lines.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Bytes of a list; a full distribution kernel has 2 MB of aliases.
const LIST_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a `modalias` in /sys.
const MODALIAS_BYTES_MAX: usize = 4096;
/// Devices of a machine that are looked at.
const DEVICES_MAX: usize = 8192;
/// What `finit_module` is told about a file that is compressed.
const COMPRESSED: i32 = 4;

/// Why a module is not in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Neither a module nor another name of one.
    #[error("there is no kernel module {name} below {}", folder.display())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where was looked.
        folder: PathBuf,
    },
    /// The kernel refused it, or one that it needs.
    #[error("the kernel does not take the module {}", path.display())]
    Refused {
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Parameters that cannot be passed.
    #[error("the parameters of module {0} hold a NUL byte")]
    Parameters(String),
}

/// The modules of one kernel.
#[derive(Debug, Default)]
pub struct ModuleTree {
    folder: PathBuf,
    /// Name with `_` for `-`, to the file and the files that it needs, nearest need first.
    modules: BTreeMap<String, (PathBuf, Vec<PathBuf>)>,
    /// Patterns and the names that they stand for.
    aliases: Vec<(String, String)>,
    built_in: BTreeSet<String>,
}

impl ModuleTree {
    /// Those of the kernel that runs; empty when there are none.
    pub fn of_this_kernel() -> Self {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy().into_owned();
        Self::below(&Path::new("/lib/modules").join(release))
    }

    fn below(folder: &Path) -> Self {
        let needs = list(&folder.join("modules.dep"));
        let modules = needs.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_ascii_whitespace().map(PathBuf::from);
            Some((plain(file), (PathBuf::from(file), needs.collect())))
        });
        let aliases = list(&folder.join("modules.alias"));
        let aliases = aliases.lines().filter_map(|line| {
            let mut words = line.strip_prefix("alias ")?.split_ascii_whitespace();
            Some((
                words.next()?.replace('-', "_"),
                words.next()?.replace('-', "_"),
            ))
        });
        let built_in = list(&folder.join("modules.builtin"));
        Self {
            folder: folder.to_owned(),
            modules: modules.collect(),
            aliases: aliases.collect(),
            built_in: built_in.lines().map(plain).collect(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// Names of modules that this name or alias stands for.
    fn meant(&self, name: &str) -> Vec<String> {
        let plain = name.replace('-', "_");
        if self.modules.contains_key(&plain) {
            return vec![plain];
        }
        let meant = self
            .aliases
            .iter()
            .filter(|(pattern, _)| fits(pattern, &plain));
        let mut names: Vec<String> = meant.map(|(_, name)| name.clone()).collect();
        names.dedup();
        names
    }

    /// Loads a module by its name or an alias, with what it needs. One that is in the kernel already is no error.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&self, name: &str, parameters: &str) -> Result<(), LoadError> {
        let parameters =
            CString::new(parameters).map_err(|_| LoadError::Parameters(name.to_owned()))?;
        let meant = self.meant(name);
        if meant.is_empty() && !self.built_in.contains(&name.replace('-', "_")) {
            return Err(LoadError::Unknown {
                name: name.to_owned(),
                folder: self.folder.clone(),
            });
        }
        let mut result = Ok(());
        for name in meant {
            let Some((file, needs)) = self.modules.get(&name) else {
                continue;
            };
            let needed = needs
                .iter()
                .rev()
                .try_for_each(|file| self.insert(file, c""));
            // Several drivers may know one device; those that cannot go in do not keep the others out.
            if let Err(error) = needed.and_then(|()| self.insert(file, &parameters)) {
                result = Err(error);
            }
        }
        result
    }

    fn insert(&self, file: &Path, parameters: &std::ffi::CStr) -> Result<(), LoadError> {
        let path = self.folder.join(file);
        let refused = |source| LoadError::Refused {
            path: path.clone(),
            source,
        };
        let is_plain = path.extension().is_some_and(|ending| ending == "ko");
        let opened = File::open(&path).map_err(refused)?;
        let flags = if is_plain { 0 } else { COMPRESSED };
        match rustix::system::finit_module(&opened, parameters, flags) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(refused(errno.into())),
        }
    }

    /// Takes a module out of the kernel; what it needed stays.
    ///
    /// # Errors
    /// [`LoadError::Refused`]: it is in use.
    pub fn unload(&self, name: &str) -> Result<(), LoadError> {
        let plain = name.replace('-', "_");
        let unloaded = CString::new(plain)
            .map_err(|_| Errno::INVAL)
            .and_then(|name| rustix::system::delete_module(&name, libc::O_NONBLOCK));
        match unloaded {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(LoadError::Refused {
                path: name.into(),
                source: errno.into(),
            }),
        }
    }

    /// Loads the drivers of all devices that the machine has now, as far as there are any; tells which were loaded and which were
    /// refused. Drivers make new devices, so it looks again until nothing is new.
    pub fn load_for_devices(&self) -> (Vec<String>, Vec<LoadError>) {
        let mut known = BTreeSet::new();
        let (mut loaded, mut refused) = (Vec::new(), Vec::new());
        loop {
            let mut modules = BTreeSet::new();
            for alias in modaliases() {
                if known.insert(alias.clone()) {
                    modules.extend(self.meant(&alias));
                }
            }
            modules.retain(|name| !loaded.contains(name));
            if modules.is_empty() {
                return (loaded, refused);
            }
            for name in modules {
                if let Err(error) = self.load(&name, "") {
                    refused.push(error);
                }
                loaded.push(name);
            }
        }
    }
}

/// The name of a module's file: `kernel/fs/squashfs/squashfs.ko.xz`.
fn plain(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.split('.').next().unwrap_or(name);
    name.replace('-', "_")
}

fn list(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() <= LIST_BYTES_MAX => {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Ok(_) | Err(_) => String::new(),
    }
}

/// `modalias` of every device, from all buses.
fn modaliases() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let buses = fs::read_dir("/sys/bus").into_iter().flatten().flatten();
    for bus in buses {
        let devices = fs::read_dir(bus.path().join("devices"));
        for device in devices.into_iter().flatten().flatten().take(DEVICES_MAX) {
            if let Ok(alias) = fs::read_to_string(device.path().join("modalias"))
                && alias.len() <= MODALIAS_BYTES_MAX
            {
                found.insert(alias.trim_end().replace('-', "_"));
            }
        }
    }
    found
}

/// A pattern as the shell's: `*`, `?` and `[…]`. Takes at most the product of both lengths.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last `*` does not fit.
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(_) => one(pattern, p, name.get(n).copied().unwrap_or(0)),
            None => None,
        };
        match (step, back) {
            (Some(next), _) => {
                p = next;
                n += 1;
            }
            (None, Some((after, taken))) => {
                p = after;
                n = taken + 1;
                back = Some((after, taken + 1));
            }
            (None, None) => return false,
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// The place after the part of the pattern at `p` when that takes `byte`.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => {
            let set = pattern.get(p + 1..)?;
            let end = set.iter().position(|byte| *byte == b']')?;
            let mut rest = set.get(..end)?;
            while let Some((from, after)) = rest.split_first() {
                let (to, after) = match after {
                    [b'-', to, after @ ..] => (to, after),
                    after => (from, after),
                };
                if (from..=to).contains(&&byte) {
                    return Some(p + end + 2);
                }
                rest = after;
            }
            None
        }
        same if *same == byte => Some(p + 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            (
                "pci:v00008086d000025ABsv*",
                "pci:v00008086d000025ABsv00001AF4",
                true,
            ),
            (
                "pci:v00008086d000025ABsv*",
                "pci:v00008086d000025ACsv00001AF4",
                false,
            ),
            ("virtio:d0000000[2-4]v*", "virtio:d00000003v00001AF4", true),
            ("virtio:d0000000[2-4]v*", "virtio:d00000005v00001AF4", false),
            ("virtio:d0000000[25]v*", "virtio:d00000005v00001AF4", true),
            (
                "of:N*T*Carm,sp805C*",
                "of:Nwatchdog T(null)Carm,sp805Carm,primecell",
                true,
            ),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a*", "b", false),
            ("*a*b", "xxaxxbxxb", true),
            ("[", "[", false),
            ("a[", "a[", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        // What takes a backtracking matcher for ever.
        let long = "a".repeat(4000);
        assert!(!fits(
            &"a*".repeat(200),
            &format!("{long}b").replace('a', "b")
        ));
        assert!(!fits(&format!("{}c", "*a".repeat(200)), &long));
    }

    fn tree() -> (tempfile::TempDir, ModuleTree) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(
            "modules.dep",
            "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\n\
             kernel/drivers/virtio/virtio-blk.ko:\nbroken line\n",
        );
        write(
            "modules.alias",
            "# Aliases.\nalias fs-ext4 ext4\nalias virtio:d00000002v* virtio_blk\nalias x\n",
        );
        write("modules.builtin", "kernel/fs/squashfs/squashfs.ko\n");
        let tree = ModuleTree::below(folder.path());
        (folder, tree)
    }

    #[test]
    fn names_and_aliases_are_found() {
        let (_folder, tree) = tree();
        for (name, expected) in [
            ("ext4", Some("ext4")),
            ("fs-ext4", Some("ext4")),
            ("virtio-blk", Some("virtio_blk")),
            ("virtio_blk", Some("virtio_blk")),
            ("virtio:d00000002v00001AF4", Some("virtio_blk")),
            ("../ext4", None),
            ("", None),
        ] {
            assert_eq!(
                tree.meant(name).first().map(String::as_str),
                expected,
                "{name}"
            );
        }
        let (_, needs) = tree.modules.get("ext4").unwrap();
        assert_eq!(needs.len(), 2);
        assert!(tree.load("squashfs", "").is_ok(), "it is built in");
        assert!(matches!(
            tree.load("none", ""),
            Err(LoadError::Unknown { .. })
        ));
        assert!(matches!(
            tree.load("ext4", "a\0b"),
            Err(LoadError::Parameters(_))
        ));
        let error = tree.load("ext4", "").unwrap_err();
        assert!(
            error.to_string().contains("crc16"),
            "what is needed comes first: {error}"
        );
    }

    #[test]
    fn without_lists_there_are_none() {
        let tree = ModuleTree::below(Path::new("/nonexistent"));
        assert!(tree.is_empty());
        assert!(tree.load("x", "").is_err());
        assert_eq!(tree.load_for_devices().0, Vec::<String>::new());
    }
}
