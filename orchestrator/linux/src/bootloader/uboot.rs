//! U-Boot's own environment, as `saveenv` and `fw_setenv` keep it: one file that is replaced, or two copies.
//!
//! Of two copies the one that is not in use is written first and read back; only then the other one, so that afterwards both say the
//! same and one may rot. An environment of which no copy is good is never made anew from nothing: U-Boot would then run without
//! its own variables (`bootcmd` first). It is made from `u-boot-initial-env` where the board has that file; else U-Boot's own script
//! mends it at the next boot.

use model::RevisionId;

use super::area::Area;
use super::token::{self, token};
use super::uboot_format::{Copy, Variables, decode, encode, second_is_newer};
use super::{Choice, Environment, Found};

/// U-Boot's environment.
#[derive(Debug)]
pub struct Uboot {
    areas: Vec<Box<dyn Area>>,
    size: usize,
    initial: Option<Vec<u8>>,
}

/// A set of areas that cannot be used safely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UbootError {
    /// One copy that is written in place could be torn.
    #[error(
        "{0} is the only copy of U-Boot's environment and would be written in place, where a power cut can tear it: \
         build U-Boot with a redundant environment and name both copies in fw_env.config"
    )]
    OneRawCopy(String),
    /// There must be one or two.
    #[error("U-Boot's environment has one copy or two, not {0}")]
    Copies(usize),
}

struct Copies {
    /// The one in use, with its index.
    in_use: Option<(usize, Copy)>,
    good: usize,
    notices: Vec<String>,
}

impl Uboot {
    /// `size` is that of each copy; `initial` the content of `u-boot-initial-env`, when the board has it.
    ///
    /// # Errors
    /// The areas cannot be written safely.
    pub fn new(
        areas: Vec<Box<dyn Area>>,
        size: usize,
        initial: Option<Vec<u8>>,
    ) -> Result<Self, UbootError> {
        match areas.as_slice() {
            [only] if !only.is_atomic() => return Err(UbootError::OneRawCopy(only.place())),
            [_] | [_, _] => {}
            _ => return Err(UbootError::Copies(areas.len())),
        }
        Ok(Self {
            areas,
            size,
            initial,
        })
    }

    fn is_redundant(&self) -> bool {
        self.areas.len() > 1
    }

    fn copies(&self) -> Copies {
        let mut copies = Copies {
            in_use: None,
            good: 0,
            notices: Vec::new(),
        };
        for (index, area) in self.areas.iter().enumerate() {
            let copy = match area.read() {
                Ok(bytes) => decode(&bytes, self.size, self.is_redundant())
                    .map_err(|damage| damage.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match copy {
                Err(problem) => copies.notices.push(format!(
                    "U-Boot's environment in {} cannot be used: {problem}",
                    area.place()
                )),
                Ok(copy) => {
                    copies.good += 1;
                    let older = |in_use: &(usize, Copy)| second_is_newer(in_use.1.flag, copy.flag);
                    if copies.in_use.as_ref().is_none_or(older) {
                        copies.in_use = Some((index, copy));
                    }
                }
            }
        }
        copies
    }

    fn write_copy(&mut self, index: usize, variables: &Variables, flag: u8) -> Result<(), String> {
        let flag = self.is_redundant().then_some(flag);
        let size = self.size;
        let bytes = encode(variables, size, flag).map_err(|error| {
            format!(
                "cannot write U-Boot's environment: {error}; remove variables that nobody needs"
            )
        })?;
        let place = self.areas[index].place();
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            format!("cannot {what} U-Boot's environment in {place}: {error}")
        };
        let written = self.areas[index].write(&bytes);
        written.map_err(|error| failed("write", &error))?;
        // The other copy is not touched before this one is seen to be good.
        let read = self.areas[index].read();
        let read = read.map_err(|error| failed("read back", &error))?;
        if read.get(..bytes.len()) != Some(bytes.as_slice()) {
            return Err(failed(
                "read back",
                &"other bytes are there than were written",
            ));
        }
        Ok(())
    }
}

/// What our variables in an environment say.
fn choice_of(variables: &Variables, notices: &mut Vec<String>) -> Choice {
    let mut revision = |name: &str| -> Option<RevisionId> {
        let value = variables.get(name).filter(|value| !value.is_empty())?;
        let text = String::from_utf8_lossy(value);
        let revision = token::revision(&text);
        if revision.is_none() {
            notices.push(format!(
                "{name} in U-Boot's environment is {text:?}, which is no revision"
            ));
        }
        revision
    };
    let (committed, trial) = (revision("pv_rev"), revision("pv_try"));
    let tried = trial.is_some() && variables.get("pv_tried").is_some_and(|value| value != b"0");
    Choice {
        committed,
        trial,
        tried,
    }
}

impl Environment for Uboot {
    fn read(&self) -> Found {
        let mut copies = self.copies();
        let choice = copies
            .in_use
            .map(|(_, copy)| choice_of(&copy.variables, &mut copies.notices));
        Found {
            choice,
            notices: copies.notices,
        }
    }

    fn write(&mut self, choice: &Choice) -> Result<(), String> {
        let copies = self.copies();
        let (index, flag, mut variables) = match copies.in_use {
            Some((index, copy)) => (index, copy.flag, copy.variables),
            None => match self.initial.as_deref().map(Variables::from_lines) {
                Some(variables) if !variables.is_empty() => (0, 0, variables),
                Some(_) | None => {
                    return Err(format!(
                        "no copy of U-Boot's environment is good ({}) and u-boot-initial-env (setting bootloader-uboot-initial), from \
                         which it could be made anew, is not there; restart so that U-Boot saves its built-in one",
                        copies.notices.join("; ")
                    ));
                }
            },
        };
        let name = |revision: &Option<RevisionId>| revision.as_ref().map(token).unwrap_or_default();
        variables.set("pv_rev", &name(&choice.committed));
        variables.set("pv_try", &name(&choice.trial));
        variables.set("pv_tried", if choice.tried { "1" } else { "" });
        // The copy in use is the last to be touched.
        let mut order: Vec<usize> = (0..self.areas.len())
            .filter(|other| *other != index)
            .collect();
        order.push(index);
        let mut flag = flag;
        for index in order {
            flag = flag.wrapping_add(1);
            self.write_copy(index, &variables, flag)?;
        }
        Ok(())
    }
}
