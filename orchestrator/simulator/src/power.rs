//! How a simulated boot ends, what its boot loader starts, its gauges and its watchdog.
//!
//! The boot loader keeps variables that survive a power cut, written as a whole, as U-Boot's redundant environment does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use device::ports::{
    Bootloader as BootloaderPort, Ending, Gauges as GaugesPort, Power as PowerPort,
    Watchdog as WatchdogPort,
};
use model::RevisionId;
use model::failure::Pressure;

use crate::bugs::Bug;
use crate::machine::Machine;

/// Ends the boot.
#[derive(Debug, Clone)]
pub struct Power(pub Rc<Machine>);

impl PowerPort for Power {
    fn end(&mut self, ending: Ending) {
        self.0.note(|| format!("power: {ending:?}"));
        self.0.end(ending);
    }
}

/// What survives in the boot loader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables {
    /// Starts when nothing is armed.
    pub committed: Option<RevisionId>,
    /// Starts once.
    pub armed: Option<RevisionId>,
    /// What a boot loader of [`Kind::Alternates`] started the last time.
    pub trying: Option<RevisionId>,
}

/// How a boot loader takes a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// There is none, as in service mode.
    #[default]
    None,
    /// It takes back that a trial is armed before it starts it.
    Once,
    /// Pantavisor's script: notes which trial it starts, and forgets the note when it falls back. What stays armed after that is started
    /// once more by the boot after the fallback.
    Alternates,
}

/// A boot loader with variables that survive.
#[derive(Debug, Clone, Default)]
pub struct Bootloader {
    variables: Rc<RefCell<Variables>>,
    booted: Option<RevisionId>,
    kind: Kind,
    bug: Bug,
    broken: Rc<Cell<bool>>,
}

impl Bootloader {
    /// One of this kind.
    pub fn new(kind: Kind, bug: Bug) -> Self {
        Self {
            kind,
            bug,
            ..Self::default()
        }
    }

    /// Whether it has a part in booting.
    pub fn is_present(&self) -> bool {
        match self.kind {
            Kind::None => false,
            Kind::Once | Kind::Alternates => true,
        }
    }

    /// The machine starts.
    pub fn boot(&mut self) {
        let mut variables = self.variables.borrow_mut();
        let trial = match self.kind {
            Kind::None | Kind::Once => variables.armed.take(),
            Kind::Alternates if variables.armed == variables.trying => {
                variables.trying = None;
                None
            }
            Kind::Alternates => {
                variables.trying = variables.armed.clone().or(variables.trying.take());
                variables.armed.clone()
            }
        };
        self.booted = trial.or_else(|| variables.committed.clone());
    }

    /// The factory set it to this revision.
    pub fn is_set_to(&mut self, revision: &RevisionId) {
        self.variables.borrow_mut().committed = Some(revision.clone());
        self.booted = Some(revision.clone());
    }

    /// It was armed by somebody else, and the machine has started it.
    pub fn has_started(&mut self, trial: &RevisionId) {
        self.variables.borrow_mut().armed = Some(trial.clone());
        self.boot();
    }

    /// What starts next; `None` without a boot loader. What is armed starts next or at the boot after it.
    pub fn next(&self) -> Option<RevisionId> {
        let variables = self.variables.borrow();
        let next = variables.armed.clone().or(variables.committed.clone());
        next.filter(|_| self.is_present())
    }

    /// Writes fail from now on, or work again.
    pub fn set_broken(&mut self, broken: bool) {
        self.broken.set(broken);
    }

    /// What survives.
    pub fn variables(&self) -> Variables {
        self.variables.borrow().clone()
    }

    fn check(&self) -> Result<(), String> {
        if self.broken.get() {
            return Err("the boot loader's environment cannot be written: it is worn out".into());
        }
        Ok(())
    }
}

impl BootloaderPort for Bootloader {
    fn booted(&self) -> Option<RevisionId> {
        self.is_present().then(|| self.booted.clone()).flatten()
    }

    fn is_damaged(&self) -> bool {
        false
    }

    fn arm(&mut self, trial: &RevisionId) -> Result<(), String> {
        self.check()?;
        self.variables.borrow_mut().armed = Some(trial.clone());
        Ok(())
    }

    fn confirm(&mut self, committed: &RevisionId) -> Result<(), String> {
        self.check()?;
        if self.bug == Bug::ConfirmsNothing {
            return Ok(());
        }
        let mut variables = self.variables.borrow_mut();
        variables.committed = Some(committed.clone());
        variables.armed = None;
        Ok(())
    }
}

/// Gauges that show always the same.
#[derive(Debug, Clone, Copy)]
pub struct Gauges;

impl GaugesPort for Gauges {
    fn pressure(&self) -> Pressure {
        Pressure {
            memory_available_bytes: Some(64 << 20),
            ..Pressure::default()
        }
    }
}

/// A watchdog that counts its kicks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watchdog {
    /// Kicks of this boot.
    pub kicks: u64,
}

impl WatchdogPort for Watchdog {
    fn kick(&mut self) {
        self.kicks += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_armed_starts_once() {
        let id = |text: &str| text.parse::<RevisionId>().unwrap();
        let mut loader = Bootloader::new(Kind::Once, Bug::None);
        assert_eq!(loader.booted(), None);
        loader.confirm(&id("0")).unwrap();
        loader.arm(&id("1")).unwrap();
        loader.boot();
        assert_eq!(loader.booted(), Some(id("1")));
        loader.boot();
        assert_eq!(loader.booted(), Some(id("0")));
        loader.set_broken(true);
        assert!(loader.arm(&id("1")).is_err());
        let mut none = Bootloader::new(Kind::None, Bug::None);
        none.confirm(&id("0")).unwrap();
        none.boot();
        assert_eq!(none.booted(), None);
    }

    #[test]
    fn what_stays_armed_alternates_with_what_is_committed() {
        let id = |text: &str| text.parse::<RevisionId>().unwrap();
        let mut loader = Bootloader::new(Kind::Alternates, Bug::None);
        loader.confirm(&id("0")).unwrap();
        loader.arm(&id("1")).unwrap();
        for expected in ["1", "0", "1", "0"] {
            loader.boot();
            assert_eq!(loader.booted(), Some(id(expected)));
        }
        loader.confirm(&id("0")).unwrap();
        for _ in 0..2 {
            loader.boot();
            assert_eq!(loader.booted(), Some(id("0")));
        }
    }
}
