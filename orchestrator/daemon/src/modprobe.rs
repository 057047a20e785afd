//! This program under the name `modprobe`: what the kernel calls when it wants a module (`modprobe -q -- fs-squashfs`), and what loads
//! the drivers of containers, on a system that has nothing else. `-r` unloads; other flags of the real one mean nothing here.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use linux::module_tree::ModuleTree;

/// Whether this program was started under that name.
pub fn is_meant(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| name == "modprobe")
}

/// Does what the arguments (after the name) say.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let asked = Asked::read(arguments);
    let Some(name) = asked.name else {
        crate::complain("usage: modprobe [-q] [-r] [--] MODULE [PARAMETER=VALUE...]");
        return ExitCode::FAILURE;
    };
    let tree = ModuleTree::of_this_kernel();
    let done = if asked.remove {
        tree.unload(&name)
    } else {
        tree.load(&name, &asked.parameters.join(" "))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !asked.quiet {
                crate::complain(&format!("modprobe: {}", store::explain(&error)));
            }
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    remove: bool,
    quiet: bool,
    name: Option<String>,
    parameters: Vec<String>,
}

impl Asked {
    fn read(arguments: impl Iterator<Item = OsString>) -> Self {
        let mut asked = Self::default();
        let mut flags = true;
        for word in arguments {
            let word = word.to_string_lossy().into_owned();
            match word.as_str() {
                "--" if flags => flags = false,
                "-r" | "--remove" if flags => asked.remove = true,
                "-q" | "--quiet" if flags => asked.quiet = true,
                other if flags && other.starts_with('-') => {}
                _ if asked.name.is_none() => asked.name = Some(word),
                _ => asked.parameters.push(word),
            }
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_the_kernel_and_of_ours() {
        let read = |words: &[&str]| Asked::read(words.iter().map(OsString::from));
        let kernel = read(&["-q", "--", "fs-squashfs"]);
        assert!(kernel.quiet && !kernel.remove);
        assert_eq!(kernel.name.as_deref(), Some("fs-squashfs"));
        let ours = read(&["--", "brcmfmac", "debug=1", "-x"]);
        assert_eq!(ours.parameters, ["debug=1", "-x"]);
        assert!(read(&["-r", "--", "brcmfmac"]).remove);
        assert_eq!(read(&[]), Asked::default());
    }

    #[test]
    fn the_name_is_what_counts() {
        for (program, expected) in [
            ("/sbin/modprobe", true),
            ("modprobe", true),
            ("coxswain", false),
            ("/usr/bin/modprobe.d", false),
        ] {
            assert_eq!(is_meant(Some(&program.into())), expected, "{program}");
        }
        assert!(!is_meant(None));
    }
}
