//! Invariant 9: at most one revision is being installed, and a second request is refused with a reason, not lost.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use device::handle::{Answer, Command, Refusal, Request};

use super::{Checker, Facts, Rest};

/// See the file.
#[derive(Debug, Default)]
pub struct One {
    open: BTreeMap<u64, (u32, String)>,
}

/// The first bytes of what is written.
struct Beginning(String);

impl Beginning {
    const LEN_MAX: usize = 80;
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = Self::LEN_MAX.saturating_sub(self.0.len());
        let mut ends = (0..=room.min(text.len())).rev();
        let end = ends.find(|end| text.is_char_boundary(*end));
        let (taken, left) = text.split_at(end.unwrap_or(0));
        self.0.push_str(taken);
        if left.is_empty() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

impl Checker for One {
    fn invariant(&self) -> u8 {
        9
    }

    fn asked(&mut self, facts: &Facts<'_>, id: u64, request: &Request) {
        let stops = matches!(
            request,
            Request::Stop { .. } | Request::Command(Command::Reboot(_) | Command::PowerOff(_))
        );
        if !stops {
            let mut shown = Beginning(String::new());
            // It refuses what is more than it takes, so that a long request is not written whole each time.
            write!(shown, "{request:?}").ok();
            self.open.insert(id, (facts.start, shown.0));
        }
    }

    fn answered(
        &mut self,
        facts: &Facts<'_>,
        id: u64,
        request: &Request,
        answer: &Result<Answer, Refusal>,
    ) -> Result<(), String> {
        self.open.remove(&id);
        if let Err(refusal) = answer
            && refusal.to_string().is_empty()
        {
            return Err(format!("{request:?} was refused without a reason"));
        }
        if let Request::Command(
            Command::Run { revision, .. }
            | Command::RunCommit { revision, .. }
            | Command::Apply { revision, .. },
        ) = request
            && answer.is_ok()
            && let Some(trial) = facts.marker.and_then(|marker| marker.trial.as_ref())
            && trial != revision
            && facts.marker.and_then(|marker| marker.committed.as_ref()) != Some(revision)
            && !facts
                .progress
                .get(trial)
                .is_some_and(super::records::ProgressRecord::is_final)
        {
            return Err(format!("{revision} is to be run while {trial} is on trial"));
        }
        Ok(())
    }

    fn changed(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        let under_way = facts
            .progress
            .iter()
            .filter(|(_, progress)| matches!(progress.status.as_str(), "INPROGRESS" | "TESTING"));
        let under_way: Vec<_> = under_way.map(|(revision, _)| revision).collect();
        // What was applied and waits for the start that commits it does not keep another request from being taken.
        if under_way.len() > 1 && !facts.known.exact_commit {
            return Err(format!("{under_way:?} are being installed at once"));
        }
        Ok(())
    }

    fn started(&mut self, _: &Facts<'_>, _: bool) -> Result<(), String> {
        self.open.clear();
        Ok(())
    }

    fn settled(&mut self, facts: &Facts<'_>, _: &Rest) -> Result<(), String> {
        match self.open.values().find(|(start, _)| *start == facts.start) {
            Some((_, request)) => Err(format!("never answered: {request}")),
            None => Ok(()),
        }
    }
}
