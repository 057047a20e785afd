//! Starts on a storage that is not as usual: it takes no writes, or Pantavisor left it.

use device::handle::{Command, Request};
use model::RevisionId;

use super::{Maker, install, local};
use crate::acts::{Act, Base};
use crate::power::Kind;

impl Maker {
    /// Boots on a storage that takes no writes, in the middle of a trial and at rest.
    pub(super) fn unwritable(&mut self) {
        let (first, next) = (local("first"), local("next"));
        let (added, updated) = (self.variant("adds a container"), self.updated.clone());
        type Fault = fn(bool) -> Act;
        let faults = [("full", Act::Full as Fault), ("read-only", Act::ReadOnly)];
        for (words, fault) in faults {
            let boot = vec![
                fault(true),
                Act::Cut,
                Act::Wait(20_000),
                Act::MustRun(first.clone()),
            ];
            let refused = Act::AskOnce(Request::Command(Command::FactoryReset {
                wipe_volumes: true,
            }));
            let after = vec![
                refused,
                Act::Wait(5_000),
                Act::MustRun(first.clone()),
                fault(false),
            ];
            let acts = [boot.clone(), after.clone()].concat();
            let name = format!("a boot on a {words} storage");
            self.add(&name, &updated, &[], acts, &first).plain_only = true;

            let start = Act::Run {
                revision: next.clone(),
                again: false,
                by_reboot: false,
            };
            let trial = [
                install(&next, &added.software),
                vec![start, Act::Wait(1500)],
            ]
            .concat();
            let acts = [trial, boot, after, vec![Act::Wait(120_000)]].concat();
            let name = format!("a boot on a {words} storage during a trial");
            let scenario = self.add(&name, &updated, &[&added.software], acts, &next);
            scenario.plain_only = true;
        }
    }

    /// The first start on a storage of Pantavisor's, cut from its beginning.
    pub(super) fn taken_over(&mut self) {
        let (zero, next) = (RevisionId::factory(), local("next"));
        let factory = Base::factory(&self.catalogue.factory.clone());
        for (words, variant, ends_with) in [
            ("a good revision", "needs a boot", &next),
            ("one that kills the machine", "kills the machine", &zero),
        ] {
            let software = self.variant(variant).software;
            let base = factory.left_by_pantavisor(&next, &software);
            let name = format!("Pantavisor's storage taken over by {words}");
            let acts = vec![Act::Wait(60_000)];
            let scenario = self.add(&name, &base, &[&software], acts, ends_with);
            scenario.life.boot_loader = Kind::Once;
            scenario.life.from_start = true;
            scenario.two_cuts = true;
            scenario.may_end_with = vec![zero.clone()];
            if software.good {
                scenario.may_end_with.push(next.clone());
            }
        }
    }
}
