//! `/etc/fw_env.config`, which tells `fw_setenv` and us where U-Boot keeps its environment: one line for each copy,
//! `device offset size [sector size [sectors]]`. As those tools read it: the offset is a number as in C, the size is always hexadecimal. Pure.

use std::path::PathBuf;

use super::area::AREA_BYTES_MAX;

/// Where one copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Device or file.
    pub path: PathBuf,
    /// Bytes from its start.
    pub offset: u64,
    /// Bytes of the copy.
    pub size: usize,
}

/// Why the file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FwEnvError {
    /// A line is not understood.
    #[error("line {line} is not `device offset size`: {problem}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// There must be one copy or two.
    #[error("it names {0} copies of the environment; U-Boot has one or two")]
    Copies(usize),
    /// Copies must have one size.
    #[error("the two copies have different sizes, {0:#x} and {1:#x}")]
    Sizes(usize, usize),
    /// Copies must not lie over each other.
    #[error("the two copies overlap")]
    Overlap,
}

/// Reads the file: the places of one copy or of two.
///
/// # Errors
/// The first problem.
pub fn parse(text: &str) -> Result<Vec<Place>, FwEnvError> {
    let mut places = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        let place = parse_line(content).map_err(|problem| FwEnvError::Line {
            line: index + 1,
            problem,
        })?;
        places.push(place);
    }
    match places.as_slice() {
        [_] => {}
        [one, other] => {
            if one.size != other.size {
                return Err(FwEnvError::Sizes(one.size, other.size));
            }
            let apart = one.offset.abs_diff(other.offset);
            if one.path == other.path && apart < one.size as u64 {
                return Err(FwEnvError::Overlap);
            }
        }
        _ => return Err(FwEnvError::Copies(places.len())),
    }
    Ok(places)
}

fn parse_line(line: &str) -> Result<Place, String> {
    let mut words = line.split_ascii_whitespace();
    let path = words.next().ok_or("the device is missing")?;
    if !path.starts_with('/') {
        return Err(format!("{path:?} is not an absolute path"));
    }
    if path.starts_with("/dev/mtd") && !path.starts_with("/dev/mtdblock") {
        return Err(format!(
            "{path} is raw flash, which must be erased before it is written; name the /dev/mtdblock device of the same number"
        ));
    }
    let mut next = |what| words.next().ok_or(format!("the {what} is missing"));
    let (offset, size) = (next("offset")?, next("size")?);
    let offset = number(offset)?;
    let digits = size.strip_prefix("0x").or(size.strip_prefix("0X"));
    let size = u64::from_str_radix(digits.unwrap_or(size), 16)
        .map_err(|_| format!("{size:?} is not a hexadecimal number"))?;
    let size = usize::try_from(size)
        .ok()
        .filter(|size| (64..=AREA_BYTES_MAX).contains(size));
    Ok(Place {
        path: path.into(),
        offset,
        size: size.ok_or(format!(
            "the size must be between 64 and {AREA_BYTES_MAX} bytes"
        ))?,
    })
}

/// A number as in C: `0x10`, `020`, `16`.
fn number(text: &str) -> Result<u64, String> {
    let parsed = if let Some(digits) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        u64::from_str_radix(digits, 16)
    } else if let Some(digits) = text.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        u64::from_str_radix(digits, 8)
    } else {
        text.parse()
    };
    parsed.map_err(|_| {
        format!(
            "{text:?} is not a number that is understood (offsets from the end are not supported)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_boards_use() {
        let text = "# MTD device name\tDevice offset\tEnv. size\tFlash sector size\tNumber of sectors\n\
                    /dev/mmcblk0 0x3f8000 0x4000\n\n  /dev/mmcblk0\t0x3FC000\t0x4000\t0x200 32 # second\n";
        let places = parse(text).unwrap();
        assert_eq!(places.len(), 2);
        assert_eq!((places[0].offset, places[1].offset), (0x3f_8000, 0x3f_c000));
        assert_eq!(places[1].size, 16384);
        let one = parse("/boot/uboot.env 16384 4000").unwrap();
        assert_eq!(
            one,
            [Place {
                path: "/boot/uboot.env".into(),
                offset: 16384,
                size: 0x4000
            }]
        );
    }

    #[test]
    fn what_cannot_be_used_is_explained() {
        for (text, words) in [
            ("", "0 copies"),
            (
                "/dev/a 0 0x1000\n/dev/a 0x2000 0x1000\n/dev/a 0x4000 0x1000",
                "3 copies",
            ),
            ("/dev/a 0", "size is missing"),
            ("dev 0 0x1000", "absolute"),
            ("/dev/mtd0 0 0x1000", "mtdblock"),
            ("/dev/a -0x2000 0x1000", "not a number"),
            ("/dev/a 0 0x10", "between"),
            ("/dev/a 0 0xfffffffff", "between"),
            ("/dev/a 0 0x1000\n/dev/b 0 0x2000", "different sizes"),
            ("/dev/a 0 0x1000\n/dev/a 0x800 0x1000", "overlap"),
            ("/dev/a 99999999999999999999 0x1000", "not a number"),
            ("/dev/a 0 16k", "not a hexadecimal"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
