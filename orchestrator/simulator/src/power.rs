//! How a simulated boot ends, what its boot loader starts, its gauges and its watchdog.
//!
//! The boot loader keeps two variables that survive a power cut, each written as a whole, as U-Boot's redundant environment does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use device::ports::{
    Bootloader as BootloaderPort, Ending, Gauges as GaugesPort, Power as PowerPort,
    Watchdog as WatchdogPort,
};
use model::RevisionId;
use model::failure::Pressure;

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
}

/// A boot loader with two variables; absent when `present` is false, as in service mode.
#[derive(Debug, Clone, Default)]
pub struct Bootloader {
    variables: Rc<RefCell<Variables>>,
    booted: Option<RevisionId>,
    present: bool,
    broken: Rc<Cell<bool>>,
}

impl Bootloader {
    /// One that has a part in booting, or none.
    pub fn new(present: bool) -> Self {
        Self {
            present,
            ..Self::default()
        }
    }

    /// The machine starts: what is armed is taken, once.
    pub fn boot(&mut self) {
        let mut variables = self.variables.borrow_mut();
        let armed = variables.armed.take();
        self.booted = armed.or_else(|| variables.committed.clone());
    }

    /// The factory set it to this revision.
    pub fn is_set_to(&mut self, revision: &RevisionId) {
        self.variables.borrow_mut().committed = Some(revision.clone());
        self.booted = Some(revision.clone());
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
        self.present.then(|| self.booted.clone()).flatten()
    }

    fn arm(&mut self, trial: &RevisionId) -> Result<(), String> {
        self.check()?;
        self.variables.borrow_mut().armed = Some(trial.clone());
        Ok(())
    }

    fn confirm(&mut self, committed: &RevisionId) -> Result<(), String> {
        self.check()?;
        *self.variables.borrow_mut() = Variables {
            committed: Some(committed.clone()),
            armed: None,
        };
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
        let mut loader = Bootloader::new(true);
        assert_eq!(loader.booted(), None);
        loader.confirm(&id("0")).unwrap();
        loader.arm(&id("1")).unwrap();
        loader.boot();
        assert_eq!(loader.booted(), Some(id("1")));
        loader.boot();
        assert_eq!(loader.booted(), Some(id("0")));
        loader.set_broken(true);
        assert!(loader.arm(&id("1")).is_err());
        let mut none = Bootloader::new(false);
        none.confirm(&id("0")).unwrap();
        none.boot();
        assert_eq!(none.booted(), None);
    }
}
