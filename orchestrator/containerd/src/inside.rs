//! Paths inside a root file system that is not ours: symbolic links in it are followed as a process inside would.
//!
//! Nothing here ever leaves the root, whatever the image holds.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed for one path, as in the kernel.
const LINKS_MAX: u32 = 40;

/// Where `path` is below `root`, relative to it, with all links followed. Parts that do not exist are kept as they are.
///
/// # Errors
/// Too many links.
pub(crate) fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut pending: VecDeque<OsString> = VecDeque::new();
    push_parts(path, &mut pending);
    let mut clean = PathBuf::new();
    let mut links = 0;
    while let Some(part) = pending.pop_front() {
        if part == ".." {
            clean.pop();
            continue;
        }
        let next = clean.join(&part);
        match fs::read_link(root.join(&next)) {
            Ok(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(io::Error::other(format!(
                        "{} goes through more than {LINKS_MAX} symbolic links",
                        path.display()
                    )));
                }
                if target.is_absolute() {
                    clean = PathBuf::new();
                }
                let mut parts = VecDeque::new();
                push_parts(&target, &mut parts);
                parts.append(&mut pending);
                pending = parts;
            }
            // Not a link, or not there.
            Err(_) => clean = next,
        }
    }
    Ok(clean)
}

fn push_parts(path: &Path, parts: &mut VecDeque<OsString>) {
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push_back(part.to_owned()),
            Component::ParentDir => parts.push_back("..".into()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
}

/// Reads a text file of at most `limit` bytes; what is longer is cut, what is not UTF-8 replaced. Empty when it is not there.
pub(crate) fn read_text(root: &Path, path: &str, limit: u64) -> String {
    let mut bytes = Vec::new();
    let read = resolve(root, Path::new(path)).and_then(|path| {
        let path = root.join(path);
        if !fs::metadata(&path)?.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        fs::File::open(path)?.take(limit).read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside() {
        let root = std::env::temp_dir().join(format!("coxswain-inside-{}", std::process::id()));
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/usr", root.join("usr/lib/up")).unwrap();
        symlink("../../../../etc", root.join("out")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let cases = [
            ("/lib/x", "usr/lib/x"),
            ("lib/up/y", "usr/y"),
            ("out/passwd", "etc/passwd"),
            ("../../a/../b", "b"),
            ("/", ""),
        ];
        for (path, expected) in cases {
            assert_eq!(
                resolve(&root, Path::new(path)).unwrap(),
                Path::new(expected),
                "{path}"
            );
        }
        assert!(resolve(&root, Path::new("loop/x")).is_err());
        assert_eq!(read_text(&root, "/out/passwd", 10), "");
        fs::remove_dir_all(&root).unwrap();
    }
}
