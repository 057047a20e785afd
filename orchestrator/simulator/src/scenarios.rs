//! Single updates, each with every point at which it can be cut, killed or failed.
//!
//! Bounds: the first cut is before every disk operation of the scenario, with each outcome of [`Spread::Single`]; the second, for
//! those scenarios that ask for it, before every operation of the recovery, with [`Spread::Ends`] for both. Kills are before every
//! operation and after every event. Each operation also fails once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use device::Settings;
use device::handle::{Action, Command, Request};
use model::claim::{Client, Part, Wanted};
use model::metadata::MetaKind;
use model::{ContainerName, RevisionId};

use crate::acts::{Act, Base, Cuts, Life, Outcome, quick_settings};
use crate::catalogue::{Catalogue, Variant};
use crate::choices::Choices;
use crate::disk::Spread;
use crate::power::Kind;
use crate::software::Revision;
use crate::world::{Counts, Loss};

mod storage;

/// One update with what must come of it when nothing is cut.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// A sentence for it.
    pub name: String,
    /// The life without cuts.
    pub life: Life,
    /// The revision that must be committed at the end.
    pub ends_with: RevisionId,
    /// Progress that revisions must have at the end.
    pub progress: Vec<(RevisionId, &'static str)>,
    /// Revisions that may be committed when it is cut.
    pub may_end_with: Vec<RevisionId>,
    /// Whether it is also cut twice.
    pub two_cuts: bool,
    /// Whether it is not swept: its own acts cut, at the point that matters.
    pub plain_only: bool,
}

/// What a sweep found.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Lives that were lived.
    pub lives: u64,
    /// Of these, lives with at least one power cut.
    pub lives_cut: u64,
    /// Everything that was counted in them.
    pub counts: Counts,
    /// The first violations, each with what replays it.
    pub violations: Vec<String>,
}

impl Tally {
    /// Adds one life.
    pub fn add(&mut self, outcome: &Outcome) {
        self.lives += 1;
        self.lives_cut += u64::from(outcome.counts.cuts > 0);
        self.counts += outcome.counts;
    }

    /// Adds what another one found.
    pub fn merge(&mut self, other: Self) {
        self.lives += other.lives;
        self.lives_cut += other.lives_cut;
        self.counts += other.counts;
        self.violations.extend(other.violations);
    }

    /// Keeps a violation, up to a few.
    pub fn report(&mut self, text: String) {
        if self.violations.len() < 3 {
            self.violations.push(text);
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} lives ({} with power cuts), {} cuts, {} kills, {} starts, {} events, {} disk operations, {} requests accepted, {} refused, {} violations",
            self.lives,
            self.lives_cut,
            self.counts.cuts,
            self.counts.kills,
            self.counts.starts,
            self.counts.events,
            self.counts.operations,
            self.counts.accepted,
            self.counts.refused,
            self.violations.len()
        )
    }
}

/// How a scenario is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// The power is cut before each operation.
    Cut,
    /// ... and again before each operation of the recovery.
    CutTwice,
    /// The orchestrator is killed before each operation.
    KillAtOperation,
    /// The orchestrator is killed after each event.
    KillAtEvent,
    /// Each operation fails once.
    Fail,
}

impl Scenario {
    /// Lives it once without cuts and compares the end with what it must be.
    ///
    /// # Errors
    /// What was wrong, with the log.
    pub fn plain(&self) -> Result<Outcome, String> {
        let choices = Rc::new(RefCell::new(Choices::replay(&[])));
        let outcome = self.life.live(&choices, Cuts::default(), true);
        let progress = self.progress.iter().find(|(revision, status)| {
            let found = outcome.progress.get(revision);
            found.is_none_or(|(found, _)| found != status)
        });
        let wrong = if let Some(violation) = outcome.violations.first() {
            format!("invariant {}: {}", violation.invariant, violation.what)
        } else if outcome.committed.as_ref() != Some(&self.ends_with) {
            format!("{:?} is committed", outcome.committed)
        } else if let Some((revision, status)) = progress {
            format!("{revision} must be {status}, all is {:?}", outcome.progress)
        } else {
            return Ok(outcome);
        };
        Err(format!("{}: {wrong}\n{}", self.name, outcome.log))
    }

    /// What is wrong with the end of a life that was cut, killed or failed.
    fn problem(&self, outcome: &Outcome, sweep: Sweep) -> Option<String> {
        if let Some(violation) = outcome.violations.first() {
            return Some(format!(
                "invariant {}: {}",
                violation.invariant, violation.what
            ));
        }
        let committed = outcome.committed.clone();
        let nothing = self.life.base.revisions.is_empty()
            && committed.is_none()
            && (outcome.accepted.is_empty() || sweep == Sweep::Fail);
        if committed.as_ref() != Some(&self.ends_with)
            && !nothing
            && !committed.is_some_and(|it| self.may_end_with.contains(&it))
        {
            return Some(format!("{:?} is committed at the end", outcome.committed));
        }
        // Fewer cuts than tries do not make a good revision a bad one.
        let cut = matches!(sweep, Sweep::Cut | Sweep::CutTwice);
        // With a boot loader one cut ends the trial: a one-shot arm cannot tell a cut from a kernel that fell over.
        if cut
            && self.life.boot_loader == Kind::None
            && outcome.accepted.contains(&self.ends_with)
            && outcome
                .committed
                .as_ref()
                .is_none_or(|committed| !outcome.accepted.contains(committed))
        {
            return Some(format!(
                "{} was accepted and is good, and {:?} is committed",
                self.ends_with, outcome.committed
            ));
        }
        None
    }

    fn live(
        &self,
        choices: &Rc<RefCell<Choices>>,
        cuts: Cuts,
        spread: Spread,
        logged: bool,
    ) -> Outcome {
        let life = Life {
            spread,
            ..self.life.clone()
        };
        life.live(choices, cuts, logged)
    }

    /// Goes through every point of a sweep.
    pub fn sweep(&self, sweep: Sweep) -> Tally {
        let mut tally = Tally::default();
        if self.plain_only {
            return tally;
        }
        let plain = self.live(
            &Rc::new(RefCell::new(Choices::replay(&[]))),
            Cuts::default(),
            Spread::Ends,
            false,
        );
        let points = match sweep {
            Sweep::Cut | Sweep::CutTwice | Sweep::KillAtOperation | Sweep::Fail => plain.operations,
            Sweep::KillAtEvent => plain.counts.events,
        };
        for point in 0..points {
            let mut cuts = match sweep {
                Sweep::Cut | Sweep::CutTwice => Cuts {
                    first: Some(point),
                    ..Cuts::default()
                },
                Sweep::KillAtOperation => Cuts {
                    first: Some(point),
                    loss: Loss::Orchestrator,
                    ..Cuts::default()
                },
                Sweep::KillAtEvent => Cuts {
                    kill: Some(point),
                    ..Cuts::default()
                },
                Sweep::Fail => Cuts {
                    fail: Some(point),
                    ..Cuts::default()
                },
            };
            if sweep == Sweep::CutTwice {
                self.second_cuts(&mut tally, &mut cuts);
            } else {
                self.outcomes(&mut tally, sweep, cuts);
            }
            if tally.violations.len() >= 3 {
                break;
            }
        }
        tally
    }

    fn second_cuts(&self, tally: &mut Tally, cuts: &mut Cuts) {
        let choices = Rc::new(RefCell::new(Choices::replay(&[])));
        let recovery = self.live(&choices, *cuts, Spread::Ends, false);
        for second in 0..recovery.operations_after_cut {
            cuts.second = Some(second);
            self.outcomes(tally, Sweep::CutTwice, *cuts);
        }
    }

    /// Every outcome of the choices at one point.
    fn outcomes(&self, tally: &mut Tally, sweep: Sweep, cuts: Cuts) {
        let spread = match sweep {
            Sweep::CutTwice => Spread::Ends,
            Sweep::Cut | Sweep::KillAtOperation | Sweep::KillAtEvent | Sweep::Fail => {
                Spread::Single
            }
        };
        let choices = Rc::new(RefCell::new(Choices::every()));
        loop {
            let outcome = self.live(&choices, cuts, spread, false);
            tally.add(&outcome);
            if let Some(problem) = self.problem(&outcome, sweep) {
                let list = choices.borrow().list();
                let logged = Rc::new(RefCell::new(Choices::replay(&list)));
                let again = self.live(&logged, cuts, spread, true);
                tally.report(format!(
                    "scenario {:?}, {cuts:?}, choices {list:?}: {problem}\n{}",
                    self.name, again.log
                ));
                return;
            }
            if !choices.borrow_mut().advance() {
                return;
            }
        }
    }
}

/// Names that all scenarios use.
fn local(name: &str) -> RevisionId {
    format!("locals/{name}")
        .parse()
        .expect("our own names are valid")
}

fn container(name: &str) -> ContainerName {
    name.parse().expect("our own names are valid")
}

struct Maker {
    catalogue: Catalogue,
    factory: Base,
    updated: Base,
    scenarios: Vec<Scenario>,
}

fn install(revision: &RevisionId, software: &Rc<Revision>) -> Vec<Act> {
    vec![
        Act::Upload(Rc::clone(software)),
        Act::Put(revision.clone(), Rc::clone(software)),
    ]
}

fn run(revision: &RevisionId) -> Vec<Act> {
    vec![
        Act::Run {
            revision: revision.clone(),
            again: false,
            by_reboot: false,
        },
        Act::WaitFinal(revision.clone()),
    ]
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    let catalogue = Catalogue::new();
    let one = &catalogue.variant("good").software;
    let factory = Base::factory(&catalogue.factory).after(Vec::new(), &[]);
    let first = local("first");
    let acts = [install(&first, one), run(&first)].concat();
    let updated = factory.after(acts, &[(first, Rc::clone(one))]);
    let mut maker = Maker {
        factory,
        updated,
        catalogue,
        scenarios: Vec::new(),
    };
    maker.variants();
    maker.damaged();
    maker.asked();
    maker.faulty();
    maker.sealed();
    maker.first();
    maker.scenarios
}

impl Maker {
    fn add(
        &mut self,
        name: &str,
        base: &Base,
        software: &[&Rc<Revision>],
        acts: Vec<Act>,
        ends_with: &RevisionId,
    ) -> &mut Scenario {
        let mut may_end_with: Vec<_> = base.revisions.iter().map(|(it, _)| it.clone()).collect();
        for act in &acts {
            if let Act::Put(revision, software) = act
                && software.good
            {
                may_end_with.push(revision.clone());
            }
        }
        let life = Life {
            base: base.clone(),
            acts,
            software: software.iter().map(|it| Rc::clone(it)).collect(),
            settings: quick_settings(),
            boot_loader: Kind::None,
            spread: Spread::Single,
            bug: crate::bugs::Bug::None,
            from_start: false,
        };
        self.scenarios.push(Scenario {
            name: name.to_owned(),
            life,
            ends_with: ends_with.clone(),
            progress: Vec::new(),
            may_end_with,
            two_cuts: false,
            plain_only: false,
        });
        self.scenarios.last_mut().expect("one was added")
    }

    fn variant(&self, name: &str) -> Variant {
        self.catalogue.variant(name).clone()
    }

    /// Each update of the catalogue, over the factory's revision.
    fn variants(&mut self) {
        for variant in self.catalogue.variants.clone() {
            let (next, factory) = (local("next"), self.factory.clone());
            let acts = [install(&next, &variant.software), run(&next)].concat();
            let good = variant.software.good;
            let ends_with = if good {
                next.clone()
            } else {
                RevisionId::factory()
            };
            let loaders: &[(&str, Kind)] = if variant.boots {
                &[
                    ("", Kind::Once),
                    (", Pantavisor's script", Kind::Alternates),
                ]
            } else {
                &[("", Kind::None)]
            };
            for (beside, loader) in loaders {
                let name = format!("{}{beside}", variant.name);
                let software = [&variant.software];
                let scenario = self.add(&name, &factory, &software, acts.clone(), &ends_with);
                scenario.progress = vec![(next.clone(), if good { "DONE" } else { "ERROR" })];
                scenario.life.boot_loader = *loader;
                scenario.two_cuts = matches!(
                    variant.name,
                    "good" | "exits at once" | "kills the machine" | "needs a boot"
                );
            }
        }
    }

    /// Objects that are missing, or corrupt on the disk.
    fn damaged(&mut self) {
        let (good, factory, next) = (self.variant("good"), self.factory.clone(), local("next"));
        let object = good.software.objects.last().expect("it has objects").0;
        for changed in [true, false] {
            let mut acts = install(&next, &good.software);
            acts.push(Act::Damage(object, changed));
            acts.extend(run(&next));
            let name = if changed {
                "object corrupt"
            } else {
                "object lost"
            };
            let zero = RevisionId::factory();
            let scenario = self.add(name, &factory, &[&good.software], acts, &zero);
            scenario.progress = vec![(next.clone(), "ERROR")];
        }
        let put = Act::Put(next.clone(), Rc::clone(&good.software));
        let acts = [vec![put], run(&next)].concat();
        let zero = RevisionId::factory();
        self.add(
            "object never uploaded",
            &factory,
            &[&good.software],
            acts,
            &zero,
        );
    }

    /// What people and clouds ask while an update goes on, or afterwards.
    fn asked(&mut self) {
        let (good, bad) = (self.variant("good"), self.variant("exits at once"));
        let (slow, added) = (
            self.variant("starts late"),
            self.variant("adds a container"),
        );
        let (factory, updated) = (self.factory.clone(), self.updated.clone());
        let (zero, next, other, first) = (
            RevisionId::factory(),
            local("next"),
            local("other"),
            local("first"),
        );
        let ask = |command| Act::Ask(Request::Command(command));
        let start = |revision: &RevisionId| Act::Run {
            revision: revision.clone(),
            again: false,
            by_reboot: false,
        };
        let both = [&slow.software, &added.software];

        let mut acts = [install(&next, both[0]), install(&other, both[1])].concat();
        acts.extend([start(&next), Act::Wait(500), start(&other)]);
        acts.push(Act::WaitFinal(next.clone()));
        self.add("second run during a trial", &factory, &both, acts, &next);

        let mut acts = install(&next, both[0]);
        acts.extend([start(&next), Act::Wait(500), ask(Command::Rollback)]);
        acts.push(Act::WaitFinal(next.clone()));
        let scenario = self.add("rollback during a trial", &factory, &both[..1], acts, &zero);
        scenario.may_end_with.push(next.clone());

        let acts = vec![ask(Command::Rollback), Act::Wait(30_000)];
        self.add("rollback after the commit", &updated, &[], acts, &zero);

        let mut acts = [install(&next, &bad.software), run(&next)].concat();
        let again = Act::Run {
            revision: next.clone(),
            again: true,
            by_reboot: false,
        };
        acts.extend([start(&next), again, Act::WaitFinal(next.clone())]);
        let scenario = self.add(
            "failed revision again",
            &factory,
            &[&bad.software],
            acts,
            &zero,
        );
        scenario.progress = vec![(next.clone(), "ERROR")];

        let mut acts = install(&next, both[0]);
        acts.extend([start(&next), Act::Wait(300), Act::AskOnce(Request::Collect)]);
        acts.push(Act::AskOnce(Request::DeleteRevision(next.clone())));
        acts.push(Act::WaitFinal(next.clone()));
        let name = "collection and deletion during a trial";
        self.add(name, &factory, &both[..1], acts, &next);

        let apply = ask(Command::Apply {
            revision: next.clone(),
            again: false,
        });
        let acts = [install(&next, both[1]), vec![apply.clone()]].concat();
        let acts = [acts, vec![Act::WaitFinal(next.clone())]].concat();
        let scenario = self.add("applied in place", &factory, &both[1..], acts, &next);
        scenario.life.boot_loader = Kind::Once;
        scenario.progress = vec![(next.clone(), "DONE")];

        let boots = self.variant("needs a boot");
        let acts = [
            install(&next, &boots.software),
            vec![apply, Act::Wait(30_000)],
        ]
        .concat();
        let name = "apply refused: it needs a boot";
        let scenario = self.add(name, &factory, &[&boots.software], acts, &zero);
        scenario.life.boot_loader = Kind::Once;
        scenario.progress = vec![(next.clone(), "NEW")];

        let put = |key: &str, value: &[u8]| {
            Act::Ask(Request::PutMeta {
                kind: MetaKind::User,
                key: key.parse().expect("our own keys are valid"),
                value: value.to_vec(),
            })
        };
        let remove = Act::Ask(Request::DeleteMeta {
            kind: MetaKind::User,
            key: "a".parse().expect("our own keys are valid"),
        });
        let message = Act::Ask(Request::PutCommitMessage {
            revision: first.clone(),
            message: b"why".to_vec(),
        });
        let acts = vec![
            put("a", b"1"),
            put("b", b"2"),
            put("a", b"3"),
            remove,
            message,
        ];
        self.add("metadata", &updated, &[], acts, &first);

        let cloud: Client = "host:cloud".parse().expect("our own names are valid");
        let claim = |part: &str, lease: u64| {
            let part: Part = part.parse().expect("our own parts are valid");
            Act::Ask(Request::Claim {
                client: cloud.clone(),
                wanted: Wanted::new([part].into(), 100, lease)
                    .expect("our own claims are within the limits"),
            })
        };
        let acts = [
            vec![claim("*", 600), claim("bsp", 5), claim("*", 300)],
            vec![Act::Ask(Request::RenewClaim {
                client: cloud.clone(),
                id: 1,
                lease_s: Some(30),
            })],
            vec![Act::Wait(40_000), claim("container:web", 600)],
            install(&next, &added.software),
            // Refused: it is claimed.
            vec![Act::Ask(Request::As {
                client: Client::Host,
                request: Box::new(Request::Command(Command::Run {
                    revision: next.clone(),
                    again: false,
                })),
            })],
            vec![
                Act::Kill,
                Act::Ask(Request::ReleaseClaim {
                    client: cloud.clone(),
                    id: 0,
                }),
            ],
            vec![Act::Wait(30_000)],
        ]
        .concat();
        let scenario = self.add("claims", &updated, &[&added.software], acts, &first);
        scenario.progress = vec![(next.clone(), "NEW")];
        scenario.two_cuts = true;

        let twice = [install(&next, &added.software), run(&next)].concat();
        let twice = updated.after(twice, &[(next.clone(), Rc::clone(&added.software))]);
        let acts = vec![
            ask(Command::MakeFactory(Some(next.clone()))),
            Act::Wait(30_000),
        ];
        let scenario = self.add("make factory", &twice, &[], acts, &zero);
        scenario.may_end_with.push(zero.clone());

        for (words, wipe_volumes) in [("keeps", false), ("wipes", true)] {
            let base = twice.with_file(crate::checkers::reset::VOLUME, b"written");
            let reset = ask(Command::FactoryReset { wipe_volumes });
            let acts = vec![put("a", b"1"), reset.clone(), Act::Wait(60_000)];
            let name = format!("reset to factory that {words} volumes");
            let scenario = self.add(&name, &base, &[], acts, &zero);
            scenario.two_cuts = wipe_volumes;
            self.reset_on_full(&base, words, &reset);

            let boots = self.variant("needs a boot");
            let acts = [
                install(&next, &boots.software),
                run(&next),
                vec![reset, Act::Wait(60_000)],
            ]
            .concat();
            let name = format!("reset by a boot that {words} volumes");
            let base = factory.with_file(crate::checkers::reset::VOLUME, b"written");
            let scenario = self.add(&name, &base, &[&boots.software], acts, &zero);
            scenario.life.boot_loader = Kind::Once;
            scenario.may_end_with.push(next.clone());
        }

        let acts = vec![
            Act::Wait(700_000),
            Act::Ask(Request::Collect),
            Act::Ask(Request::DeleteRevision(zero.clone())),
            Act::Ask(Request::DeleteRevision(first.clone())),
        ];
        self.add("collection at rest", &updated, &[], acts, &first);

        let acts = [
            install(&next, &added.software),
            vec![
                Act::Ask(Request::DeleteRevision(next.clone())),
                Act::Wait(700_000),
            ],
            vec![Act::Ask(Request::Collect)],
        ]
        .concat();
        self.add(
            "deletion and collection",
            &updated,
            &[&added.software],
            acts,
            &first,
        );

        let control = |action| {
            Act::Ask(Request::Control {
                container: container("web"),
                action,
            })
        };
        let acts = vec![
            control(Action::Stop),
            Act::Wait(1000),
            control(Action::Start),
            Act::Wait(1000),
            control(Action::Restart),
            Act::Wait(2000),
            ask(Command::Reboot("test".to_owned())),
            Act::Wait(15_000),
        ];
        self.add("control and reboot", &updated, &[], acts, &first);

        let mut acts = install(&next, &good.software);
        acts.push(Act::Run {
            revision: next.clone(),
            again: false,
            by_reboot: true,
        });
        acts.push(Act::WaitFinal(next.clone()));
        self.add("run by a reboot", &factory, &[&good.software], acts, &next);
    }

    /// Faults beside power cuts.
    fn faulty(&mut self) {
        let (good, factory, next) = (self.variant("good"), self.factory.clone(), local("next"));
        let software = [&good.software];
        let acts = |before: Vec<Act>, after: Vec<Act>| {
            let mut acts = install(&next, software[0]);
            acts.extend(before);
            acts.push(run(&next).remove(0));
            acts.extend(after);
            acts.push(Act::WaitFinal(next.clone()));
            acts
        };
        let run_time = acts(
            vec![],
            vec![
                Act::Wait(120),
                Act::Link(false),
                Act::Wait(3000),
                Act::Link(true),
            ],
        );
        self.add(
            "run time away during a trial",
            &factory,
            &software,
            run_time,
            &next,
        );
        let killed = acts(
            vec![],
            vec![Act::Wait(400), Act::Kill, Act::Wait(900), Act::Kill],
        );
        self.add(
            "orchestrator killed during a trial",
            &factory,
            &software,
            killed,
            &next,
        );
        let full = acts(
            vec![],
            vec![
                Act::Wait(200),
                Act::Full(true),
                Act::Wait(20_000),
                Act::Full(false),
            ],
        );
        self.add("disk full during a trial", &factory, &software, full, &next);
        let wall = acts(
            vec![Act::Wall(-1_800_000_000_000)],
            vec![Act::Wait(1000), Act::Wall(4_000_000_000_000)],
        );
        self.add(
            "wall clock jumps during a trial",
            &factory,
            &software,
            wall,
            &next,
        );
        let acts = [
            install(&next, software[0]),
            run(&next),
            vec![Act::Wait(2000)],
        ]
        .concat();
        let scenario = self.add(
            "Pantavisor's exact commit",
            &factory,
            &software,
            acts,
            &next,
        );
        scenario.life.settings = Settings {
            exact_commit: true,
            ..quick_settings()
        };
        scenario.ends_with = RevisionId::factory();
        scenario.progress = vec![(next, "UPDATED")];
    }

    /// A device that has nothing yet.
    fn first(&mut self) {
        let good = self.variant("good");
        let next = local("next");
        let acts = [install(&next, &good.software), run(&next)].concat();
        let empty = Base::empty();
        self.add("first revision", &empty, &[&good.software], acts, &next);
        let factory = Base::factory(&self.catalogue.factory.clone());
        self.taken_over();
        self.unwritable();
        let zero = RevisionId::factory();
        self.add(
            "first boot of a factory's disk",
            &factory,
            &[],
            vec![Act::Wait(10_000)],
            &zero,
        );
    }
}

/// Scenarios by name.
pub fn by_name() -> BTreeMap<String, Scenario> {
    all()
        .into_iter()
        .map(|scenario| (scenario.name.clone(), scenario))
        .collect()
}
