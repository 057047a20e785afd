//! Mistakes on purpose, one at a time, at the edges of the production code; for each a checker must notice it.
//!
//! A bug sits in a simulated port or between the world and the loop, where a mistake in an adapter, in the loop, or in the order
//! of its effects would show in the same way. The production code is not touched.

use crate::acts::{Cuts, Life};
use crate::choices::Choices;
use crate::disk::Fault;
use crate::scenarios::{Scenario, Sweep};
use std::cell::RefCell;
use std::rc::Rc;

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bug {
    /// None.
    #[default]
    None,
    /// The disk does something else than it promises.
    Disk(Fault),
    /// Requests are answered before they are carried out.
    AnswersEarly,
    /// A run that is asked for during a trial is forgotten instead of refused.
    ForgetsSecondRun,
    /// A run that is asked for during a trial is accepted and then forgotten.
    AcceptsSecondRun,
    /// The loop's clock runs thirty times too fast: commits and the ends of leases come early.
    ClockRunsFast,
    /// Objects are not read when they are verified.
    VerifiesNothing,
    /// Collection keeps nothing but what is leased.
    CollectsEverything,
    /// A start after the second one for a container gets the version before.
    StartsStaleVersion,
    /// Starting one container restarts the others.
    RestartsOthers,
    /// A stop is answered, and the container goes on.
    IgnoresStops,
    /// A start is answered, and nothing runs.
    ForgetsStarts,
    /// The boot loader is not told of commits and rollbacks.
    ConfirmsNothing,
    /// A reset that is to keep volumes wipes them.
    WipesAnyway,
}

/// A mistake and who notices it.
#[derive(Debug, Clone, Copy)]
pub struct Seeded {
    /// The mistake.
    pub bug: Bug,
    /// In words.
    pub what: &'static str,
    /// Invariants of which at least one must be seen broken.
    pub breaks: &'static [u8],
    /// Scenarios in which it must show, in the order in which they are tried.
    pub shows_in: &'static [&'static str],
}

const fn seeded(
    bug: Bug,
    what: &'static str,
    breaks: &'static [u8],
    shows_in: &'static [&'static str],
) -> Seeded {
    Seeded {
        bug,
        what,
        breaks,
        shows_in,
    }
}

/// The list.
pub const ALL: [Seeded; 28] = [
    seeded(
        Bug::Disk(Fault::NoFileSync),
        "files are not synced",
        &[1, 2],
        &["good"],
    ),
    seeded(
        Bug::Disk(Fault::NoFolderSync),
        "names are not synced",
        &[1, 2, 4],
        &["good"],
    ),
    seeded(
        Bug::Disk(Fault::NoFolderSyncOf("boot")),
        "the marker's name is not synced: the try is counted late",
        &[4, 5],
        &["exits at once"],
    ),
    seeded(
        Bug::Disk(Fault::NoFolderSyncOf("objects")),
        "the marker comes before the objects' names",
        &[1, 2],
        &["good"],
    ),
    seeded(
        Bug::Disk(Fault::NoFolderSyncOf("trails/locals")),
        "the marker comes before the revision's name",
        &[1, 2],
        &["good"],
    ),
    seeded(
        Bug::Disk(Fault::RenameInTwoSteps),
        "replacing a file removes it first",
        &[1, 2, 6, 7],
        &["good", "metadata"],
    ),
    seeded(
        Bug::Disk(Fault::Drops(".pv/progress")),
        "progress is not kept",
        &[1, 7],
        &["exits at once"],
    ),
    seeded(
        Bug::Disk(Fault::Drops("failures/")),
        "failures are not kept",
        &[7],
        &["exits at once"],
    ),
    seeded(
        Bug::Disk(Fault::Drops("meta/")),
        "metadata is not kept",
        &[1],
        &["metadata"],
    ),
    seeded(
        Bug::Disk(Fault::Drops("boot/claims")),
        "claims are not kept",
        &[1],
        &["claims"],
    ),
    seeded(
        Bug::Disk(Fault::Drops("boot/")),
        "the marker is not kept",
        &[4, 5],
        &["good"],
    ),
    seeded(
        Bug::Disk(Fault::Drops("commitmsg")),
        "commit messages are not kept",
        &[1],
        &["metadata"],
    ),
    seeded(
        Bug::Disk(Fault::SealsCheckNothing),
        "what is sealed is not checked when it is read",
        &[2, 5],
        &["a sealed object rots"],
    ),
    seeded(
        Bug::Disk(Fault::RemembersSeals),
        "a seal is believed that the file does not bear",
        &[2, 5],
        &["an object rots that lost its seal"],
    ),
    seeded(
        Bug::Disk(Fault::Drops("boot/reset")),
        "a reset that was accepted is not kept",
        &[1],
        &["reset to factory that keeps volumes"],
    ),
    seeded(
        Bug::WipesAnyway,
        "a reset that is to keep volumes wipes them",
        &[1],
        &["reset to factory that keeps volumes"],
    ),
    seeded(
        Bug::Disk(Fault::Drops("boot/marker")),
        "a takeover is forgotten, and with it the try of what came by it",
        &[4, 5],
        &[
            "Pantavisor's storage taken over by a good revision",
            "Pantavisor's storage taken over by one that kills the machine",
        ],
    ),
    seeded(
        Bug::AnswersEarly,
        "answers come before the deed",
        &[1],
        &["good"],
    ),
    seeded(
        Bug::ForgetsSecondRun,
        "a second run is forgotten",
        &[9],
        &["second run during a trial"],
    ),
    seeded(
        Bug::AcceptsSecondRun,
        "a second run is accepted",
        &[1, 9],
        &["second run during a trial"],
    ),
    seeded(
        Bug::ClockRunsFast,
        "time runs too fast",
        &[3],
        &["healthy, then sick", "good"],
    ),
    seeded(
        Bug::VerifiesNothing,
        "nothing is verified",
        &[2, 5],
        &["object corrupt"],
    ),
    seeded(
        Bug::CollectsEverything,
        "collection keeps nothing",
        &[6],
        &["collection at rest"],
    ),
    seeded(
        Bug::StartsStaleVersion,
        "the rollback starts what failed",
        &[5],
        &["exits at once"],
    ),
    seeded(
        Bug::RestartsOthers,
        "unchanged containers are restarted",
        &[0],
        &["good"],
    ),
    seeded(
        Bug::IgnoresStops,
        "what is stopped goes on",
        &[8],
        &["removes a container"],
    ),
    seeded(
        Bug::ForgetsStarts,
        "what is started does not run",
        &[8],
        &["good"],
    ),
    seeded(
        Bug::ConfirmsNothing,
        "the boot loader is not told what was committed",
        &[5],
        &["needs a boot"],
    ),
];

impl Seeded {
    /// What a checker said of it first; `None` when nobody noticed. Tries each scenario as it is, then with the power cut at each point.
    pub fn noticed(&self, scenarios: &[Scenario]) -> Option<String> {
        let mut named = self.shows_in.iter().filter_map(|name| {
            let found = scenarios.iter().find(|scenario| scenario.name == *name);
            found.cloned()
        });
        named.find_map(|mut scenario| {
            scenario.life.bug = self.bug;
            self.in_plain_life(&scenario.life)
                .or_else(|| self.in_cut_lives(&scenario))
        })
    }

    fn in_plain_life(&self, life: &Life) -> Option<String> {
        let choices = Rc::new(RefCell::new(Choices::replay(&[])));
        let outcome = life.live(&choices, Cuts::default(), false);
        let mut expected = outcome.violations.iter();
        expected
            .find(|violation| self.breaks.contains(&violation.invariant))
            .map(|violation| format!("invariant {}: {}", violation.invariant, violation.what))
    }

    fn in_cut_lives(&self, scenario: &Scenario) -> Option<String> {
        let tally = scenario.sweep(Sweep::Cut);
        tally.violations.iter().find_map(|text| {
            let invariants = self.breaks.iter();
            let mut words = invariants.map(|number| format!("invariant {number}: "));
            let at = words.find_map(|word| text.find(&word))?;
            text[at..].lines().next().map(str::to_owned)
        })
    }
}
