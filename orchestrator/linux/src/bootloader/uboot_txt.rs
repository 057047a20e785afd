//! Pantavisor's `boot/uboot.txt`: `name=value NUL … NUL NUL` with `pv_rev` and `pv_try`, which its boot script imports. The script
//! remembers in a file of its own (`pv.env`, `pv_trying`) that it has started a trial, so nothing here says so.
//!
//! The format has no checksum. `cx_sum` in front, a variable that the script ignores, gives it one; it stands first so that a file that is cut
//! anywhere does not match. Without it (Pantavisor wrote the file) the committed revision is believed, a trial is not. `cx_arm` counts the
//! trials that were named, for our own boot script: it notes name and number when it starts one.

use std::fmt;
use std::io;

use model::RevisionId;
use store::disk::Disk;

use super::area::{Area as _, FileArea};
use super::token::{self, sum, token};
use super::uboot_format::Variables;
use super::{Choice, Environment, Found};

/// Pantavisor reads no more than this.
const FILE_BYTES_MAX: usize = 1024;

/// The file.
#[derive(Debug)]
pub struct UbootTxt<D> {
    /// Where.
    pub file: FileArea<D>,
}

/// What is in the bytes of a file.
pub fn parse(bytes: &[u8]) -> (Found, Variables) {
    let variables = Variables::from_list(bytes);
    let text =
        |name: &str| String::from_utf8_lossy(variables.get(name).unwrap_or_default()).into_owned();
    let (committed, mut trial) = (text("pv_rev"), text("pv_try"));
    let mut found = Found::default();
    match variables.get("cx_sum") {
        Some(stored) if stored != sum(&committed, &trial).as_bytes() => {
            return (
                Found::nothing("cx_sum does not match pv_rev and pv_try".to_owned()),
                Variables::default(),
            );
        }
        None if !trial.is_empty() => {
            found
                .notices
                .push(format!("pv_try={trial} without cx_sum is not believed"));
            trial.clear();
        }
        Some(_) | None => {}
    }
    let mut revision = |name: &str, text: &str| -> Option<RevisionId> {
        let revision = token::revision(text);
        if revision.is_none() && !text.is_empty() {
            found
                .notices
                .push(format!("{name} is {text:?}, which is no revision"));
        }
        revision
    };
    let (committed, trial) = (revision("pv_rev", &committed), revision("pv_try", &trial));
    if committed.is_some() || trial.is_some() {
        found.choice = Some(Choice {
            committed,
            trial,
            tried: false,
        });
    } else if found.notices.is_empty() {
        found.notices.push("it names no revision".to_owned());
    }
    (found, variables)
}

/// The bytes of a file; `variables` are those of before, and the ones that are not ours stay.
///
/// # Errors
/// It would be longer than Pantavisor reads.
pub fn format(choice: &Choice, mut variables: Variables) -> Result<Vec<u8>, String> {
    let name = |revision: &Option<RevisionId>| revision.as_ref().map(token).unwrap_or_default();
    let (committed, trial) = (name(&choice.committed), name(&choice.trial));
    if choice.trial.is_some() {
        let known = String::from_utf8_lossy(variables.get("cx_arm").unwrap_or_default());
        let number: u32 = known.parse().unwrap_or(0);
        variables.set_first("cx_arm", &number.wrapping_add(1).to_string());
    }
    variables.set_first("pv_try", &trial);
    variables.set_first("pv_rev", &committed);
    variables.set_first("cx_sum", &sum(&committed, &trial));
    let bytes = variables.to_list();
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!(
            "the variables need {} bytes, and {FILE_BYTES_MAX} are read",
            bytes.len()
        ));
    }
    Ok(bytes)
}

impl<D: Disk + fmt::Debug> UbootTxt<D> {
    fn parsed(&self) -> (Found, Variables) {
        match self.file.read() {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
            Err(error) => (Found::nothing(error.to_string()), Variables::default()),
        }
    }
}

impl<D: Disk + fmt::Debug> Environment for UbootTxt<D> {
    fn read(&self) -> Found {
        let (mut found, _) = self.parsed();
        for notice in &mut found.notices {
            *notice = format!("{}: {notice}", self.file.place());
        }
        found
    }

    fn write(&mut self, choice: &Choice) -> Result<(), String> {
        // The script has no flag here; a trial that was started is simply no longer named.
        let written = Choice {
            trial: choice.trial.clone().filter(|_| !choice.tried),
            ..choice.clone()
        };
        let place = self.file.place();
        let failed = |error: String| format!("cannot write {place}: {error}");
        let bytes = format(&written, self.parsed().1).map_err(failed)?;
        self.file
            .write(&bytes)
            .map_err(|error| failed(error.to_string()))
    }
}
