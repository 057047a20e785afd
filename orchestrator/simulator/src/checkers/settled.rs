//! Invariant 8: when faults stop, the device settles in a bounded number of boots, running a complete, verified revision.

use super::{Checker, Facts, Rest};

/// More boots than this after the last fault are not settling: every try of a trial, a rollback, and a margin.
const BOOTS_MAX: u32 = 8;

/// See the file.
#[derive(Debug, Default)]
pub struct Settled;

impl Checker for Settled {
    fn invariant(&self) -> u8 {
        8
    }

    fn settled(&mut self, facts: &Facts<'_>, rest: &Rest) -> Result<(), String> {
        if !rest.quiet {
            return Err("the device does not come to rest".to_owned());
        }
        if rest.boots > BOOTS_MAX {
            return Err(format!("it took {} boots to settle", rest.boots));
        }
        let Some(marker) = facts.marker else {
            return match &rest.running {
                None => Ok(()),
                Some(running) => Err(format!("{running} runs without a marker")),
            };
        };
        let updated = |revision: &model::RevisionId| {
            let progress = facts.progress.get(revision);
            progress.is_some_and(|progress| progress.is_final() && !progress.is_failed())
        };
        if let Some(trial) = &marker.trial
            && updated(trial)
        {
            // Applied in place, and committed only after the next start: Pantavisor's way, when it is asked for.
            return Ok(());
        }
        if let Some(trial) = &marker.trial {
            return Err(format!("{trial} is still on trial"));
        }
        let damaged = marker
            .committed
            .as_ref()
            .and_then(|committed| facts.software(committed))
            .is_some_and(|software| {
                let mut objects = software.objects.iter();
                objects.any(|(object, _)| facts.known.damaged.contains(object))
            });
        let only_updated = marker.committed.is_none() && rest.running.as_ref().is_some_and(updated);
        if rest.running != marker.committed && !damaged && !only_updated {
            return Err(format!(
                "{:?} runs, and {:?} is committed",
                rest.running, marker.committed
            ));
        }
        let Some(running) = &rest.running else {
            return Ok(());
        };
        let Some(software) = facts.software(running) else {
            return Err(format!("{running} runs, and its manifest is not durable"));
        };
        for (object, _) in &software.objects {
            if facts.known.damaged.contains(object) {
                continue; // found at the next boot
            }
            if let Some(problem) = facts.object_problem(object) {
                return Err(format!(
                    "{running} runs, and its object {object} is {problem}"
                ));
            }
        }
        for piece in &software.pieces {
            let is_there = rest
                .processes
                .contains(&(piece.name.clone(), piece.fingerprint));
            let must = piece.faultless
                && piece.goal > model::Goal::Mounted
                && !rest.stopped.contains(&piece.name);
            if must && !is_there {
                return Err(format!(
                    "container {} of {running} does not run",
                    piece.name
                ));
            }
        }
        let strangers = rest.processes.iter().find(|(name, version)| {
            software
                .piece(name)
                .is_none_or(|piece| piece.fingerprint != *version)
        });
        match strangers {
            Some((name, _)) => Err(format!(
                "container {name} runs, which {running} does not have"
            )),
            None => Ok(()),
        }
    }
}
