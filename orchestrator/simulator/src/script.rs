//! What a simulated container does, written into its own manifest as the arguments of its command.
//!
//! `["/sim", "ready=300", "exit=2000:1"]`: READY after 0.3 s, exit code 1 after 2 s. Because the script is part of the manifest it is part
//! of the container's fingerprint, and a life is replayed from its manifests alone. All times are milliseconds.

use model::container::{Container, Kind};

/// What one container does each time it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    /// Until its first process runs.
    pub start: u64,
    /// The start fails, after `start`.
    pub start_fails: bool,
    /// Ends by itself after so long, with this exit code.
    pub exit: Option<(u64, u32)>,
    /// Ends with the kernel's out-of-memory kill instead of by itself.
    pub out_of_memory: bool,
    /// Sends the READY signal after so long.
    pub ready: Option<u64>,
    /// Answers probes with a failure before this.
    pub well_from: u64,
    /// Answers probes with a failure from this on.
    pub sick_from: Option<u64>,
    /// Never answers probes.
    pub silent: bool,
    /// Time to end after a stop was asked; `None` when it must be killed.
    pub stop: Option<u64>,
    /// Cuts the machine's power after so long.
    pub kills_machine: Option<u64>,
    /// Only the first so many starts of this version on this device go wrong (exit, start failure, power cut); later ones are good.
    pub bad_starts: u32,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            start: 50,
            start_fails: false,
            exit: None,
            out_of_memory: false,
            ready: None,
            well_from: 0,
            sick_from: None,
            silent: false,
            stop: Some(20),
            kills_machine: None,
            bad_starts: u32::MAX,
        }
    }
}

impl Script {
    /// The script of a container; the default one when its command is not a script.
    pub fn of(container: &Container) -> Self {
        let Kind::Oci(oci) = &container.kind else {
            return Self::default();
        };
        let words = oci.command.iter().flatten().skip(1);
        let mut script = Self::default();
        for word in words {
            script.read(word);
        }
        script
    }

    /// Whether it goes wrong, whatever is done with it, at its `starts`th start (0 is the first).
    pub fn for_start(mut self, starts: u32) -> Self {
        if starts >= self.bad_starts {
            self.start_fails = false;
            self.exit = None;
            self.out_of_memory = false;
            self.sick_from = None;
            self.kills_machine = None;
        }
        self
    }

    fn read(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let number = |text: &str| text.parse().expect("our own scripts hold numbers");
        match name {
            "start" => self.start = number(value),
            "start-fails" => self.start_fails = true,
            "exit" => {
                let (after, code) = value.split_once(':').expect("exit=<after>:<code>");
                let code = code.parse().expect("our own scripts hold exit codes");
                self.exit = Some((number(after), code));
            }
            "out-of-memory" => self.out_of_memory = true,
            "ready" => self.ready = Some(number(value)),
            "well-from" => self.well_from = number(value),
            "sick-from" => self.sick_from = Some(number(value)),
            "silent" => self.silent = true,
            "stop" => self.stop = Some(number(value)),
            "hangs" => self.stop = None,
            "kills-machine" => self.kills_machine = Some(number(value)),
            "bad-starts" => {
                self.bad_starts = value.parse().expect("our own scripts hold counts");
            }
            "version" => {}
            other => panic!("no script word {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let mut script = Script::default();
        for word in [
            "start=7",
            "exit=2000:3",
            "ready=300",
            "hangs",
            "bad-starts=2",
            "version=9",
        ] {
            script.read(word);
        }
        let expected = Script {
            start: 7,
            exit: Some((2000, 3)),
            ready: Some(300),
            stop: None,
            bad_starts: 2,
            ..Script::default()
        };
        assert_eq!(script, expected);
        assert_eq!(script.for_start(1), script);
        assert_eq!(script.for_start(2).exit, None);
    }
}
