//! How the loop ends the process, and what the init above it learns from the exit code.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use device::ports::{Ending, Power};

/// Under another init: the loop's thread ends, and `main` leaves with the code that says why.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProcessPower {
    ending: Arc<Mutex<Option<Ending>>>,
}

impl ProcessPower {
    /// How the loop has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Ending> {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Power for ProcessPower {
    fn end(&mut self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
    }
}

/// The exit code of an ending: 0 stop, 3 power-off, 4 reboot.
pub fn exit_code(ending: Ending) -> ExitCode {
    match ending {
        Ending::Stop {
            containers_keep_running: _,
        } => ExitCode::SUCCESS,
        Ending::PowerOff => ExitCode::from(3),
        Ending::Reboot => ExitCode::from(4),
    }
}
