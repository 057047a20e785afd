//! Seeded lives: what is on the device, what it is asked, and what goes wrong are all drawn from one number.
//!
//! A *life* is one device's run from a start image through at least one full update (upload, install, run) with at least one power
//! cut, until faults stop, it has come to rest, and every checker has judged it. Short lives have one or two updates; a
//! long one has many, so that what builds up over time (failures, retention, collection) is met too.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use device::Settings;
use device::handle::{Action, Command, Request};
use model::RevisionId;
use model::claim::{Client, Part, Wanted};
use model::metadata::MetaKind;

use crate::acts::{Act, Base, Cuts, Life, Outcome, quick_settings};
use crate::catalogue::Catalogue;
use crate::choices::Choices;
use crate::disk::Spread;
use crate::power::Kind;
use crate::software::Revision;
use crate::world::Loss;

/// How long a life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// One or two updates.
    Short,
    /// Thirty.
    Long,
}

/// What all lives start from; made once a thread.
#[derive(Debug)]
pub struct Lives {
    catalogue: Catalogue,
    bases: Vec<Base>,
}

impl Default for Lives {
    fn default() -> Self {
        Self::new()
    }
}

impl Lives {
    /// Makes the disks that lives start from.
    pub fn new() -> Self {
        let catalogue = Catalogue::new();
        let fresh = Base::factory(&catalogue.factory);
        let factory = fresh.after(Vec::new(), &[]);
        let install = |base: &Base, name: &str, variant: &str| {
            let revision: RevisionId = name.parse().expect("our own names are valid");
            let software = &catalogue.variant(variant).software;
            let acts = vec![
                Act::Upload(Rc::clone(software)),
                Act::Put(revision.clone(), Rc::clone(software)),
                Act::Run {
                    revision: revision.clone(),
                    again: false,
                    by_reboot: false,
                },
                Act::WaitFinal(revision.clone()),
            ];
            base.after(acts, &[(revision, Rc::clone(software))])
        };
        let updated = install(&factory, "locals/first", "good");
        let failed = install(&updated, "locals/second", "exits at once");
        Self {
            bases: vec![factory, updated, failed, fresh, Base::empty()],
            catalogue,
        }
    }

    /// Lives the life of a seed.
    pub fn live(&self, seed: u64, length: Length, logged: bool) -> Outcome {
        let mut choices = Choices::seeded(seed);
        let life = self.draw(&mut choices, length);
        let cuts = draw_cuts(&mut choices);
        let choices = Rc::new(RefCell::new(choices));
        life.live(&choices, cuts, logged)
    }

    fn draw(&self, choices: &mut Choices, length: Length) -> Life {
        let mut base = self.bases[weighted(choices, &[8, 8, 4, 2, 2])].clone();
        let rounds = match length {
            Length::Short => 1 + usize::from(choices.one_in(4)),
            Length::Long => 30,
        };
        let mut draw = Draw {
            names: base
                .revisions
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
            lives: self,
            choices,
            acts: Vec::new(),
            software: Vec::new(),
        };
        let cut_in = draw.choices.choose(rounds);
        for round in 0..rounds {
            draw.round(round == cut_in, length);
        }
        let (acts, software) = (draw.acts, draw.software);
        let is_even = acts.len().is_multiple_of(2);
        let seals = choices.one_in(4);
        if seals {
            base.contents.allow_seals();
        }
        Life {
            base,
            acts,
            software,
            settings: Settings {
                exact_commit: choices.one_in(8),
                keep_revisions: choices.choose(3),
                seal_after: Duration::from_secs(if seals { 2 } else { 0 }),
                ..quick_settings()
            },
            boot_loader: match choices.one_in(3) {
                true if is_even => Kind::Once,
                true => Kind::Alternates,
                false => Kind::None,
            },
            spread: Spread::Every,
            bug: crate::bugs::Bug::None,
            from_start: false,
        }
    }
}

fn weighted(choices: &mut Choices, weights: &[usize]) -> usize {
    let mut left = choices.choose(weights.iter().sum());
    for (number, weight) in weights.iter().enumerate() {
        if left < *weight {
            return number;
        }
        left -= weight;
    }
    0
}

fn draw_cuts(choices: &mut Choices) -> Cuts {
    let maybe = |choices: &mut Choices, below: usize| {
        let point = choices.choose(below) as u64;
        (!choices.one_in(3)).then_some(point)
    };
    Cuts {
        first: maybe(choices, 250),
        second: maybe(choices, 120),
        fail: None,
        kill: if choices.one_in(6) {
            maybe(choices, 60)
        } else {
            None
        },
        loss: if choices.one_in(6) {
            Loss::Orchestrator
        } else {
            Loss::Power
        },
    }
}

struct Draw<'a> {
    lives: &'a Lives,
    choices: &'a mut Choices,
    acts: Vec<Act>,
    software: Vec<Rc<Revision>>,
    names: Vec<RevisionId>,
}

impl Draw<'_> {
    fn round(&mut self, cut: bool, length: Length) {
        let variants = &self.lives.catalogue.variants;
        let software = Rc::clone(&variants[self.choices.choose(variants.len())].software);
        let name: RevisionId = format!("locals/r{}", self.choices.choose(5))
            .parse()
            .expect("our own names are valid");
        self.software.push(Rc::clone(&software));
        self.faults();
        if self.choices.one_in(6) {
            let (number, len) = (self.choices.choose(3), self.choices.choose(30));
            self.acts
                .push(Act::UploadPart(Rc::clone(&software), number, len));
        }
        if !self.choices.one_in(12) {
            self.acts.push(Act::Upload(Rc::clone(&software)));
        }
        self.faults();
        self.acts.push(Act::Put(name.clone(), Rc::clone(&software)));
        if self.choices.one_in(20) {
            let object = software.objects[self.choices.choose(software.objects.len())].0;
            let is_base = self.lives.catalogue.factory.objects.iter();
            // What runs is not damaged behind the back of a running device: nothing but verity would notice.
            if !is_base.clone().any(|(other, _)| *other == object) {
                let changed = self.choices.one_in(2);
                self.acts.push(Act::Cut);
                self.acts.push(Act::Damage(object, changed));
            }
        }
        self.asides();
        self.acts.push(Act::Run {
            revision: name.clone(),
            again: self.choices.one_in(3),
            by_reboot: self.choices.one_in(8),
        });
        if cut || (length == Length::Long && self.choices.one_in(3)) {
            let time = self.choices.choose(12_000) as u64;
            self.acts.extend([Act::Wait(time), Act::Cut]);
        }
        self.faults();
        self.asides();
        if !self.choices.one_in(5) {
            self.acts.push(Act::WaitFinal(name.clone()));
        }
        self.names.push(name);
        self.asides();
    }

    fn some_name(&mut self) -> RevisionId {
        if self.names.is_empty() {
            return RevisionId::factory();
        }
        let number = self.choices.choose(self.names.len());
        self.names[number].clone()
    }

    fn client(&mut self) -> Client {
        let name = ["host", "host:cloud", "container:web"][self.choices.choose(3)];
        name.parse().expect("our own names are valid")
    }

    fn claim(&mut self) -> Request {
        let part = ["*", "bsp", "container:web", "group:app"][self.choices.choose(4)];
        let part: Part = part.parse().expect("our own parts are valid");
        let priority = 100 * self.choices.choose(3) as u64;
        let lease = [5, 30, 600, 86_400][self.choices.choose(4)];
        Request::Claim {
            client: self.client(),
            wanted: Wanted::new([part].into(), priority, lease)
                .expect("our own claims are within the limits"),
        }
    }

    /// Renews or ends a claim that may be there.
    fn about_a_claim(&mut self) -> Request {
        let (client, id) = (self.client(), self.choices.choose(4) as u64);
        if self.choices.one_in(2) {
            Request::ReleaseClaim { client, id }
        } else {
            let lease_s = self.choices.one_in(2).then_some(60);
            Request::RenewClaim {
                client,
                id,
                lease_s,
            }
        }
    }

    /// What else goes wrong.
    fn faults(&mut self) {
        if !self.choices.one_in(4) {
            return;
        }
        let time = self.choices.choose(5000) as u64;
        let act = match self.choices.choose(9) {
            0 => vec![Act::Link(false), Act::Wait(time), Act::Link(true)],
            1 => vec![Act::Wait(time), Act::Kill],
            2 => vec![Act::Full(true), Act::Wait(time), Act::Full(false)],
            3 => vec![Act::Wall(-1_800_000_000_000)],
            4 => vec![Act::Wall(3_000_000_000_000)],
            5 => vec![Act::Lie(true)],
            6 => vec![Act::Lie(false)],
            7 => vec![
                Act::BreakLoader(true),
                Act::Wait(time),
                Act::BreakLoader(false),
            ],
            _ => vec![Act::Wait(time), Act::Cut],
        };
        self.acts.extend(act);
    }

    /// What else is asked.
    fn asides(&mut self) {
        if !self.choices.one_in(4) {
            return;
        }
        let name = self.some_name();
        let container = ["base", "web", "log"][self.choices.choose(3)];
        let container = container.parse().expect("our own names are valid");
        let key = |n: usize| format!("k{n}").parse().expect("our own keys are valid");
        let kind = [MetaKind::User, MetaKind::Device][self.choices.choose(2)];
        let request = match self.choices.choose(18) {
            0 => Request::DeleteRevision(name),
            1 => Request::PutCommitMessage {
                revision: name,
                message: b"because".to_vec(),
            },
            2 => Request::Command(Command::Rollback),
            3 => Request::Command(Command::MakeFactory(Some(name))),
            4 => Request::Command(Command::Reboot("asked".to_owned())),
            5 => Request::Control {
                container,
                action: [Action::Start, Action::Stop, Action::Restart][self.choices.choose(3)],
            },
            6 => Request::PutMeta {
                kind,
                key: key(self.choices.choose(3)),
                value: vec![b'v'; self.choices.choose(9)],
            },
            7 => Request::DeleteMeta {
                kind,
                key: key(self.choices.choose(3)),
            },
            8 => Request::Stop {
                containers_keep_running: true,
            },
            9 => Request::Command(Command::Run {
                revision: name,
                again: false,
            }),
            10 => Request::Ready(container),
            11 => Request::Command(Command::Apply {
                revision: name,
                again: self.choices.one_in(2),
            }),
            12 | 13 => self.claim(),
            14 => self.about_a_claim(),
            15 => Request::As {
                client: self.client(),
                request: Box::new(Request::Command(Command::Run {
                    revision: name,
                    again: true,
                })),
            },
            16 if self.choices.one_in(4) => Request::Command(Command::FactoryReset {
                wipe_volumes: self.choices.one_in(2),
            }),
            _ => Request::Collect,
        };
        if self.choices.one_in(3) {
            let time = self.choices.choose(800_000) as u64;
            self.acts.push(Act::Wait(time));
        }
        let act = if self.choices.one_in(2) {
            Act::AskOnce(request)
        } else {
            Act::Ask(request)
        };
        self.acts.push(act);
    }
}
