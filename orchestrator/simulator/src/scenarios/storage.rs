//! Starts on a storage that is not as usual: it takes no writes, or Pantavisor left it.

use std::time::Duration;

use device::handle::{Command, Request};
use model::{ObjectId, RevisionId};

use super::{Maker, install, local, run};
use crate::acts::{Act, Base};
use crate::power::Kind;

/// Soon, so that lives are short.
const SEAL_AFTER: Duration = Duration::from_secs(2);

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

    /// A container has filled the storage; the reset makes room.
    pub(super) fn reset_on_full(&mut self, base: &Base, words: &str, reset: &Act) {
        let mut base = base.clone();
        base.contents.keep_spare();
        let acts = vec![Act::Fill, reset.clone(), Act::Wait(60_000)];
        let name = format!("reset on a full storage that {words} volumes");
        self.add(&name, &base, &[], acts, &RevisionId::factory());
    }

    /// Objects are sealed, and believed by the next start; one that rots is found soon after it.
    pub(super) fn sealed(&mut self) {
        let (zero, first, next) = (RevisionId::factory(), local("first"), local("next"));
        let (good, added) = (self.variant("good"), self.variant("adds a container"));
        let mut base = self.updated.clone();
        base.contents.allow_seals();
        let passes = Act::Wait(10_000);

        let update = [install(&next, &added.software), run(&next)].concat();
        let acts = [vec![passes.clone()], update, vec![passes.clone()]].concat();
        let name = "objects are sealed";
        let scenario = self.add(name, &base, &[&added.software], acts.clone(), &next);
        scenario.life.settings.seal_after = SEAL_AFTER;
        scenario.two_cuts = true;
        let restarts = vec![Act::Kill, passes.clone(), Act::Cut, passes.clone()];
        let acts = [acts, restarts].concat();
        let name = "sealed objects are believed";
        let scenario = self.add(name, &base, &[&added.software], acts, &next);
        scenario.life.settings.seal_after = SEAL_AFTER;
        scenario.plain_only = true;

        // A seal is not enough to try a revision again: what rotted since is read before the marker names it.
        let known = |object: &ObjectId| good.software.objects.iter().any(|(one, _)| one == object);
        let mut objects = added.software.objects.iter().map(|(object, _)| *object);
        let only_next = objects.find(|object| !known(object));
        let only_next = only_next.expect("a container was added");
        let acts = [
            install(&next, &added.software),
            run(&next),
            vec![passes.clone()],
            run(&first),
            vec![
                Act::Wait(60_000),
                Act::Cut,
                Act::Damage(only_next, true),
                Act::Wait(5000),
                Act::MustRun(first.clone()),
            ],
            run(&next),
            vec![Act::Wait(60_000)],
        ]
        .concat();
        let name = "a sealed object rots of a revision that is tried again";
        let scenario = self.add(name, &base, &[&added.software], acts, &first);
        scenario.life.settings.seal_after = SEAL_AFTER;
        scenario.plain_only = true;

        let object = good.software.objects.last().expect("it has objects").0;
        for (damage, name) in [
            (Act::Damage(object, true), "a sealed object rots"),
            (Act::Damage(object, false), "a sealed object is lost"),
            (Act::Rewrite(object), "an object rots that lost its seal"),
        ] {
            let acts = vec![
                passes.clone(),
                Act::Cut,
                damage,
                Act::Wait(60_000),
                Act::MustRun(zero.clone()),
            ];
            let scenario = self.add(name, &base, &[], acts, &first);
            scenario.life.settings.seal_after = SEAL_AFTER;
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
