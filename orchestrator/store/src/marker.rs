//! The marker's file: which revision the next boot runs.
//!
//! One line of JSON: format version, SHA-256 of the marker's text, the marker. It is replaced whole; then the same bytes are replaced
//! in a second file. The first replace is what counts. The copy is for one case only: the disk loses or rots the first file, which
//! would otherwise leave a device that does not know what to boot. When both can be read, the higher sequence wins, so a power cut between the two
//! replaces does no harm. What stands in the marker is decided in `lifecycle`; here it is made sure that every revision it newly names
//! is on the disk.

use std::path::Path;

use model::{Marker, ObjectId, RevisionId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::disk::Disk;
use crate::{Failed, Store, explain, layout, lock};

/// The format that is written.
const VERSION: u32 = 1;
/// Bytes of a marker that is read.
const BYTES_MAX: usize = 64 << 10;

/// Why the marker could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// Neither file is a whole marker.
    #[error("the marker cannot be used: {marker}; nor can its copy: {copy}")]
    Lost {
        /// What is wrong with the marker.
        marker: String,
        /// What is wrong with the copy.
        copy: String,
    },
    /// A newer version of this program wrote it.
    #[error(
        "the marker has format {found}, this program knows {VERSION}; start the version that wrote it, or remove boot/marker and boot/marker.copy to boot the newest committed revision"
    )]
    UnknownVersion {
        /// The version found.
        found: u64,
    },
    /// It would name a revision that is not there.
    #[error("the marker may not name revision {0}: it is not on the disk")]
    NamesMissing(RevisionId),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Failed),
}

/// A marker that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerRead {
    /// The marker; `None` on a device that never had one.
    pub marker: Option<Marker>,
    /// What a person should know: the copy had to be used, and why.
    pub notice: Option<String>,
}

/// What was read or written last.
#[derive(Debug, Default)]
pub(crate) struct Last(Option<Marker>);

/// What is wrong with the bytes of a marker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMarker {
    /// Not the JSON that it should be.
    #[error("it is torn or was changed by hand ({0})")]
    Syntax(String),
    /// The content is not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// Written by a newer version of this program.
    #[error("it has the unknown format {0}")]
    Version(u64),
}

#[derive(Deserialize)]
struct AnyVersion {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    version: u32,
    sha256: ObjectId,
    #[serde(borrow)]
    marker: &'a RawValue,
}

/// The bytes of the file for a marker.
pub fn render(marker: &Marker) -> Vec<u8> {
    let text = serde_json::to_string(marker).expect("strings and numbers always serialise");
    let digest = ObjectId::of(text.as_bytes());
    format!("{{\"version\":{VERSION},\"sha256\":\"{digest}\",\"marker\":{text}}}\n").into_bytes()
}

/// The marker in the bytes of a file.
///
/// # Errors
/// Torn, changed, or of an unknown version.
pub fn parse(bytes: &[u8]) -> Result<Marker, BadMarker> {
    let syntax = |error: serde_json::Error| BadMarker::Syntax(error.to_string());
    let any: AnyVersion = serde_json::from_slice(bytes).map_err(syntax)?;
    if any.version != u64::from(VERSION) {
        return Err(BadMarker::Version(any.version));
    }
    let file: File<'_> = serde_json::from_slice(bytes).map_err(syntax)?;
    let text = file.marker.get();
    if ObjectId::of(text.as_bytes()) != file.sha256 {
        return Err(BadMarker::Checksum);
    }
    serde_json::from_str(text).map_err(syntax)
}

impl<D: Disk> Store<D> {
    /// Reads the marker.
    ///
    /// # Errors
    /// Both files are damaged, the version is unknown, or the disk failed.
    pub fn read_marker(&self) -> Result<MarkerRead, MarkerError> {
        let mut last = lock(&self.inner.marker);
        let read = read(&self.inner.disk)?;
        last.0.clone_from(&read.marker);
        Ok(read)
    }

    /// Writes the marker, durably; returns it with its new sequence number.
    ///
    /// # Errors
    /// It newly names a revision that is not there, or the disk failed: the marker is the old one or the new one then, so the
    /// caller must read it again before it decides anything by it.
    pub fn write_marker(&self, marker: &Marker) -> Result<Marker, MarkerError> {
        // No revision may be deleted between the look and the write.
        let _guard = lock(&self.inner.revisions);
        let mut last = lock(&self.inner.marker);
        if last.0.is_none() {
            last.0 = read(&self.inner.disk).ok().and_then(|read| read.marker);
        }
        let known = last.0.clone().unwrap_or_default();
        for revision in marker.revisions() {
            let is_known = known.revisions().any(|known| known == revision);
            if !is_known && !self.inner.has_revision(revision)? {
                return Err(MarkerError::NamesMissing(revision.clone()));
            }
        }
        let mut marker = marker.clone();
        marker.sequence = known.sequence.max(marker.sequence).saturating_add(1);
        let bytes = render(&marker);
        // Whatever happens now, the next sequence number must be higher.
        last.0 = Some(marker.clone());
        self.inner.replace(Path::new(layout::MARKER), &bytes)?;
        // The marker stands already; a copy that stays behind has a lower sequence, and open repairs it.
        drop(self.inner.replace(Path::new(layout::MARKER_COPY), &bytes));
        Ok(marker)
    }

    /// Writes the copy again when it is not the marker; whether it was not. Called at open.
    pub(crate) fn repair_marker_copy(&self) -> Result<bool, MarkerError> {
        let _guard = lock(&self.inner.marker);
        let Some(marker) = read(&self.inner.disk)?.marker else {
            return Ok(false);
        };
        let mut repaired = false;
        for path in [layout::MARKER, layout::MARKER_COPY].map(Path::new) {
            let bytes = self.inner.disk.read(path, BYTES_MAX);
            if !bytes.is_ok_and(|bytes| parse(&bytes).is_ok_and(|found| found == marker)) {
                self.inner.replace(path, &render(&marker))?;
                repaired = true;
            }
        }
        Ok(repaired)
    }
}

/// Reads the marker without changing anything.
pub(crate) fn read<D: Disk>(disk: &D) -> Result<MarkerRead, MarkerError> {
    let (main, copy) = (
        read_one(disk, layout::MARKER),
        read_one(disk, layout::MARKER_COPY),
    );
    let used = |what: &str| Some(format!("{what}; its copy was used"));
    let (marker, notice) = match (main, copy) {
        (One::Absent, One::Absent) => (None, None),
        (One::Whole(main), One::Whole(copy)) if copy.sequence > main.sequence => {
            (Some(copy), used("boot/marker is old"))
        }
        (One::Whole(main), One::Whole(_) | One::Absent) => (Some(main), None),
        (One::Whole(main), One::Bad(bad)) => {
            let notice = format!("boot/marker.copy cannot be used: {bad}");
            (Some(main), Some(notice))
        }
        (One::Absent, One::Whole(copy)) => (Some(copy), used("boot/marker is missing")),
        (One::Bad(bad), One::Whole(copy)) => (
            Some(copy),
            used(&format!("boot/marker cannot be used: {bad}")),
        ),
        // A version that one flipped bit made must not stop a boot; hence only when no copy can be read.
        (One::Bad(BadFile::Version(found)), One::Absent | One::Bad(_))
        | (One::Absent, One::Bad(BadFile::Version(found))) => {
            return Err(MarkerError::UnknownVersion { found });
        }
        (One::Bad(marker), copy @ (One::Absent | One::Bad(_))) => {
            let (marker, copy) = (marker.to_string(), copy.problem());
            return Err(MarkerError::Lost { marker, copy });
        }
        (One::Absent, One::Bad(copy)) => {
            let (marker, copy) = (One::Absent.problem(), copy.to_string());
            return Err(MarkerError::Lost { marker, copy });
        }
    };
    Ok(MarkerRead { marker, notice })
}

enum One {
    Absent,
    Whole(Marker),
    Bad(BadFile),
}

#[derive(Debug, thiserror::Error)]
enum BadFile {
    #[error("it has the unknown format {0}")]
    Version(u64),
    #[error("{0}")]
    Other(String),
}

impl One {
    fn problem(&self) -> String {
        match self {
            Self::Absent => "it is missing".to_owned(),
            Self::Whole(_) => "nothing".to_owned(),
            Self::Bad(bad) => bad.to_string(),
        }
    }
}

fn read_one<D: Disk>(disk: &D, path: &str) -> One {
    let path = Path::new(path);
    match crate::absent(disk.read(path, BYTES_MAX)) {
        Ok(None) => One::Absent,
        Ok(Some(bytes)) => match parse(&bytes) {
            Ok(marker) => One::Whole(marker),
            Err(BadMarker::Version(found)) => One::Bad(BadFile::Version(found)),
            Err(bad) => One::Bad(BadFile::Other(bad.to_string())),
        },
        Err(source) => {
            let problem = explain(&crate::failed("read", path)(source));
            One::Bad(BadFile::Other(problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use model::marker::Trial;
    use proptest::prelude::*;

    use super::*;

    fn marker() -> Marker {
        let mut marker = Marker {
            sequence: 7,
            committed: "0".parse().ok(),
            previous: "locals/a%2Fb".parse().ok(),
            trial: Some(Trial {
                revision: "5".parse().unwrap(),
                tries_left: 3,
                by_reboot: true,
            }),
            generations_reserved: 1024,
            ..Marker::default()
        };
        marker.remember_failed(ObjectId::of(b"x"), 2);
        marker
    }

    #[test]
    fn text_of_the_first_format() {
        // Fixed for ever: devices in the field have it.
        let text = String::from_utf8(render(&marker())).unwrap();
        let body = concat!(
            r#"{"sequence":7,"committed":"0","previous":"locals/a%2Fb","#,
            r#""trial":{"revision":"5","tries_left":3,"by_reboot":true},"failed":[{"manifest":"#,
            r#""2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","failure":2}],"#,
            r#""generations_reserved":1024}"#
        );
        let start = r#"{"version":1,"sha256":""#;
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with(&format!("\"marker\":{body}}}\n")), "{text}");
        assert_eq!(parse(text.as_bytes()), Ok(marker()));
    }

    #[test]
    fn an_unknown_format_is_refused() {
        let text = String::from_utf8(render(&marker())).unwrap();
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert_eq!(parse(newer.as_bytes()), Err(BadMarker::Version(2)));
    }

    proptest! {
        #[test]
        fn anything_else_is_not_a_marker(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(place in any::<proptest::sample::Index>(), bit in 0..8u8) {
            let good = render(&marker());
            let mut bytes = good.clone();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            // White space around the JSON is no damage.
            prop_assert!(parse(&bytes).is_err() || place + 1 == bytes.len());
        }

        #[test]
        fn no_torn_file_is_a_marker(kept in any::<proptest::sample::Index>(), fill in any::<u8>()) {
            let good = render(&marker());
            let kept = kept.index(good.len() - 1);
            prop_assert!(parse(&good[..kept]).is_err());
            let mut padded = good.clone();
            padded[kept..].fill(fill);
            prop_assert!(parse(&padded).is_err() || padded == good || kept + 1 == good.len());
        }
    }
}
