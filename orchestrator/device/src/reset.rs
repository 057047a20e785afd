//! The reset to the factory revision: accepted when it is durable, carried out by the start that follows, with nothing running.
//!
//! From the answer on nothing else is accepted, because what is written now may be removed in a moment. A start that cannot carry it
//! out, because the storage or the boot loader takes no writes, tries again a few times, then forgets it and says so.

use std::collections::BTreeSet;
use std::time::Duration;

use lifecycle::touch::{self, Touch};
use lifecycle::update::{self, Update, Write};
use model::{Instant, Manifest, Reset, RevisionId};
use store::explain;

use crate::device::{Device, Stage};
use crate::handle::Refusal;
use crate::ports::World;
use crate::requests::{disk_refusal, revision_refusal};

/// A reset that could not be carried out is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// How often; each time all containers are stopped for it.
const ATTEMPTS_MAX: u32 = 3;

/// A reset, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Resetting {
    /// The one that was accepted.
    pub(crate) accepted: Option<Reset>,
    /// Whether everything was stopped for it.
    pub(crate) cleared: bool,
    attempts: u32,
}

impl<W: World> Device<W> {
    /// `POST /commands FACTORY_RESET`.
    pub(crate) fn reset_asked(&mut self, now: Instant, wipe_volumes: bool) -> Result<(), Refusal> {
        let installing = self.update().and_then(Update::installing).cloned();
        if let Some(trial) = installing.or_else(|| self.waiting.clone()) {
            return Err(Refusal::UpdateInProgress { trial });
        }
        self.check_factory()?;
        self.pay_all(now).map_err(Refusal::Internal)?;
        let reset = Reset::new(wipe_volumes);
        if let Err(error) = self.store.set_reset(&reset) {
            // It may be remembered all the same, and nobody expects it then.
            self.owe(now, Write::ForgetReset);
            return Err(disk_refusal(&error));
        }
        self.resetting.accepted = Some(reset);
        let what = if wipe_volumes { "wiping" } else { "keeping" };
        let factory = Some(RevisionId::factory());
        let text = format!("reset to the factory revision was accepted, {what} volumes");
        self.tell("reset", factory, None, text);
        self.step(now, update::Event::Clear);
        Ok(())
    }

    /// Whether revision 0 is there with all its objects. They are read by the start that carries the reset out, before it removes
    /// anything.
    fn check_factory(&self) -> Result<(), Refusal> {
        let factory = RevisionId::factory();
        let bytes = self.store.read_manifest(&factory);
        let manifest = Manifest::parse(&bytes.map_err(revision_refusal)?)?;
        for (object, key) in manifest.objects() {
            let there = self.store.has_object(&object);
            if !there.map_err(|error| disk_refusal(&error))? {
                let object = object.short();
                return Err(Refusal::FactoryIncomplete(format!(
                    "object {object} of {key} is missing"
                )));
            }
        }
        Ok(())
    }

    /// What a reset changes of the parts that can be claimed: all that runs, and all that will.
    pub(crate) fn touched_by_reset(&mut self) -> BTreeSet<Touch> {
        let running = self.update().and_then(Update::running);
        let running = running.map(|running| running.revision.clone());
        let both = [running, Some(RevisionId::factory())];
        let mut touched = BTreeSet::from([Touch::Bsp, Touch::Rest]);
        for revision in both.into_iter().flatten() {
            if let Ok(manifest) = self.manifest(&revision) {
                touched.extend(touch::by_run(None, &manifest));
            }
        }
        touched
    }

    /// Reads what an earlier start accepted, and has everything stopped before the start goes on. Whether that is under way.
    pub(crate) fn clears_first(&mut self, now: Instant) -> bool {
        if self.resetting.accepted.is_none() {
            match self.store.reset() {
                Ok((reset, notice)) => {
                    self.resetting.accepted = reset;
                    if let Some(notice) = notice {
                        self.notice(notice);
                    }
                }
                Err(error) => self.notice(explain(&error)),
            }
        }
        if self.resetting.accepted.is_none() || self.resetting.cleared {
            return false;
        }
        let settings = self.update_settings();
        let update = Update::settled(settings, self.durable.clone(), None, 0);
        self.stage = Stage::Up(Box::new(update));
        self.step(now, update::Event::Clear);
        true
    }

    /// The reset that this start is to carry out.
    pub(crate) fn reset_to_carry_out(&self) -> Option<Reset> {
        let due = self.resetting.attempts < ATTEMPTS_MAX;
        self.resetting.accepted.filter(|_| due)
    }

    /// A start has chosen what runs. When the reset was not carried out it is tried again, or given up.
    pub(crate) fn after_choice(&mut self, now: Instant) {
        self.resetting.cleared = false;
        if self.resetting.accepted.is_none() {
            return;
        }
        self.resetting.attempts += 1;
        if self.resetting.attempts < ATTEMPTS_MAX {
            self.start_again = Some(now + AGAIN);
            return;
        }
        self.start_again = None;
        self.notice(
            "the reset to the factory revision was given up: the storage or the boot loader takes no writes; \
             mend that, then ask for the reset again"
                .to_owned(),
        );
        self.owe(now, Write::ForgetReset);
    }

    /// What the life cycle wants written of it.
    pub(crate) fn write_reset(&mut self, reset: &Reset) -> Result<(), String> {
        let wiped = self.store.carry_out_reset(reset);
        wiped.map_err(|error| explain(&error))?;
        self.resetting = Resetting::default();
        self.manifests.clear();
        if reset.wipe_volumes {
            self.load_meta();
            self.last_failure = None;
        }
        Ok(())
    }

    pub(crate) fn forget_reset(&mut self) -> Result<(), String> {
        let forgotten = self.store.forget_reset();
        forgotten.map_err(|error| explain(&error))?;
        self.resetting = Resetting::default();
        Ok(())
    }
}
