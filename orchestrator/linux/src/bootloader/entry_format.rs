//! Text files that a boot loader on a FAT partition reads and that we write whole: boot entries of the Boot Loader Specification, parts of
//! `config.txt`. Two comment lines stand first, `# sum CRC` over what follows and `# revision TOKEN`. Also the names of
//! entries with counted tries, `name+LEFT[-DONE].conf`. Pure.

use model::RevisionId;

use super::token::{self, token};

/// Bytes of such a file.
pub const ENTRY_BYTES_MAX: usize = 16 << 10;

/// A file about this revision.
pub fn seal(revision: &RevisionId, body: &str) -> String {
    let rest = format!("# revision {}\n{body}", token(revision));
    format!("# sum {:08x}\n{rest}", crc32fast::hash(rest.as_bytes()))
}

/// The revision that a file is about.
///
/// # Errors
/// The file is not whole, in words.
pub fn open(bytes: &[u8]) -> Result<RevisionId, String> {
    let cut = "its first lines are not ours".to_owned();
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(cut.clone())?;
    let (first, rest) = (&bytes[..end], &bytes[end + 1..]);
    if first != format!("# sum {:08x}", crc32fast::hash(rest)).as_bytes() {
        return Err("its checksum does not match its content".to_owned());
    }
    let text = std::str::from_utf8(rest).map_err(|_| cut.clone())?;
    let line = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# revision "));
    token::revision(line.ok_or(cut.clone())?).ok_or(cut)
}

/// The counter in an entry's file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Tries that are left; an entry without one is started no more.
    pub left: u32,
    /// Tries that were made.
    pub done: u32,
}

/// The counter of `<stem>+LEFT[-DONE].conf`; `None` for any other name.
pub fn counter(name: &str, stem: &str) -> Option<Counter> {
    let text = name
        .strip_suffix(".conf")?
        .strip_prefix(stem)?
        .strip_prefix('+')?;
    let number = |text: &str| -> Option<u32> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    match text.split_once('-') {
        None => Some(Counter {
            left: number(text)?,
            done: 0,
        }),
        Some((left, done)) => Some(Counter {
            left: number(left)?,
            done: number(done)?,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_counters() {
        let at = |left, done| Some(Counter { left, done });
        for (name, expected) in [
            ("coxswain-trial+1.conf", at(1, 0)),
            ("coxswain-trial+0-1.conf", at(0, 1)),
            ("coxswain-trial+3-12.conf", at(3, 12)),
            ("coxswain-trial+0003-0.conf", at(3, 0)),
            ("coxswain-trial.conf", None),
            ("coxswain-trial+.conf", None),
            ("coxswain-trial+1-.conf", None),
            ("coxswain-trial+-1.conf", None),
            ("coxswain-trial++1.conf", None),
            ("coxswain-trial+1.conf.new", None),
            ("coxswain-trial+99999999999.conf", None),
            ("coxswain+1.conf", None),
        ] {
            assert_eq!(counter(name, "coxswain-trial"), expected, "{name}");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let revision: RevisionId = "locals/a b".parse().unwrap();
        let file = seal(&revision, "title Coxswain\nlinux /coxswain/1/linux\n").into_bytes();
        assert_eq!(open(&file), Ok(revision));
        for len in 0..file.len() {
            assert!(open(&file[..len]).is_err(), "{len}");
        }
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_err(), "{bit}");
        }
    }
}
