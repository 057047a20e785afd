//! How the loop ends the process, and what the init above it learns from the exit code.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use device::ports::{Ending, Power};

use crate::cli::{EXIT_POWER_OFF, EXIT_REBOOT};

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
        Ending::PowerOff => code(EXIT_POWER_OFF),
        Ending::Reboot => code(EXIT_REBOOT),
    }
}

fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).expect("exit codes are small"))
}
