//! The record on disk: small files in the client's folder, each replaced as a whole. After a cut there is the old one or the new one.
//!
//! A record that cannot be read is set aside and the client begins with none: the device itself says what runs, and the cloud offers
//! again what it still wants. Only this crate's own folder is touched.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::deployment::Record;
use crate::fetch::Spent;
use crate::limits;

/// A file of the folder could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub struct KeepError {
    /// `make`, `read`, `write`.
    pub what: &'static str,
    /// Which.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// The client's folder.
#[derive(Debug, Clone)]
pub struct Keep {
    folder: PathBuf,
}

const RECORD: &str = "deployment.json";
const TIME: &str = "time";
const BUDGET: &str = "budget.json";

impl Keep {
    /// Opens the folder; makes it when it is not there.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn open(folder: &Path) -> Result<Self, KeepError> {
        fs::create_dir_all(folder).map_err(|source| KeepError {
            what: "make",
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The record; an empty one when there is none or when it cannot be understood.
    ///
    /// # Errors
    /// [`KeepError`]: it is there and cannot be read.
    pub fn record(&self) -> Result<Record, KeepError> {
        let path = self.folder.join(RECORD);
        let text = match crate::config::read_bounded(&path, limits::RECORD_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(source) => {
                return Err(KeepError {
                    what: "read",
                    path,
                    source,
                });
            }
        };
        match serde_json::from_str(&text) {
            Ok(record) => Ok(record),
            Err(error) => {
                let aside = self.folder.join(format!("{RECORD}.unreadable"));
                tracing::error!(
                    "{} cannot be understood ({error}): it is set aside as {}, and the cloud is asked anew",
                    path.display(),
                    aside.display()
                );
                fs::rename(&path, &aside).map_err(|source| KeepError {
                    what: "write",
                    path: aside,
                    source,
                })?;
                Ok(Record::default())
            }
        }
    }

    /// Makes the record durable.
    ///
    /// # Errors
    /// [`KeepError`]; the old one is there then.
    pub fn save(&self, record: &Record) -> Result<(), KeepError> {
        let text = serde_json::to_vec(record).expect("a record holds texts and numbers");
        self.replace(RECORD, &text)
    }

    /// The latest time that a verified server has said, in seconds since 1970; 0 when none is known.
    pub fn time(&self) -> u64 {
        crate::config::read_bounded(&self.folder.join(TIME), 32)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Remembers a time.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn save_time(&self, seconds: u64) -> Result<(), KeepError> {
        self.replace(TIME, seconds.to_string().as_bytes())
    }

    /// What was spent of the byte budget, if something was. What cannot be understood is nothing.
    pub fn spent(&self) -> Option<Spent> {
        let path = self.folder.join(BUDGET);
        match crate::config::read_bounded(&path, limits::RECORD_BYTES_MAX) {
            Ok(text) => serde_json::from_str(&text)
                .inspect_err(|error| tracing::warn!("{}: {error}", path.display()))
                .ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!("{}: {error}", path.display());
                None
            }
        }
    }

    /// Remembers what was spent of the byte budget.
    ///
    /// # Errors
    /// [`KeepError`]; what was remembered before is there then.
    pub fn save_spent(&self, spent: &Spent) -> Result<(), KeepError> {
        let text = serde_json::to_vec(spent).expect("texts and numbers");
        self.replace(BUDGET, &text)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), KeepError> {
        let path = self.folder.join(name);
        let fresh = self.folder.join(format!(".{name}.new"));
        let replaced = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        replaced().map_err(|source| KeepError {
            what: "write",
            path: path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_and_what_is_damaged_is_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/b");
        let keep = Keep::open(&folder).unwrap();
        assert_eq!(keep.record().unwrap(), Record::default());
        let record = Record {
            next_report: 7,
            ..Record::default()
        };
        keep.save(&record).unwrap();
        assert_eq!(Keep::open(&folder).unwrap().record().unwrap(), record);

        let path = folder.join(RECORD);
        let huge = "x".repeat(usize::try_from(limits::RECORD_BYTES_MAX).unwrap() + 1);
        for bad in ["", "{", r#"{"format":"x"}"#, &huge] {
            fs::write(&path, bad).unwrap();
            assert_eq!(keep.record().unwrap(), Record::default());
            assert!(!path.exists());
        }
        // What a newer version has added is not understood, and no reason to forget the rest.
        fs::write(&path, r#"{"format":2,"next_report":9,"new":{"a":1}}"#).unwrap();
        assert_eq!(keep.record().unwrap().next_report, 9);

        assert_eq!(keep.time(), 0);
        keep.save_time(1_800_000_000).unwrap();
        assert_eq!(keep.time(), 1_800_000_000);
        fs::write(folder.join(TIME), "soon").unwrap();
        assert_eq!(keep.time(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Keep::open(&file.join("x")).unwrap_err();
        assert!(error.to_string().contains("file/x"), "{error}");
    }
}
