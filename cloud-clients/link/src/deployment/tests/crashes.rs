//! A crash at every effect, and at every pair of effects: the client is killed before or after each single thing that it does, goes
//! on from what was durable, and the deployment ends right, once, and is told once.
//!
//! The world is small and honest: a device that remembers what it was told, a cloud that says the same until it has the last word.
//! Nothing but [`Record`] survives a crash of the client.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// What is going to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Good,
    Sick,
    /// The revision reboots the device, with the client in it.
    Reboots,
    CancelEarly,
    CancelDownloaded,
    CancelLate,
    DownloadOnly,
    NoSpace,
    Window,
    Superseded,
    Withdrawn,
    RunsAlready,
    ObjectsVanish,
}

const STORIES: [Story; 13] = [
    Story::Good,
    Story::Sick,
    Story::Reboots,
    Story::CancelEarly,
    Story::CancelDownloaded,
    Story::CancelLate,
    Story::DownloadOnly,
    Story::NoSpace,
    Story::Window,
    Story::Superseded,
    Story::Withdrawn,
    Story::RunsAlready,
    Story::ObjectsVanish,
];

/// The client was killed.
struct Killed;

struct World {
    story: Story,
    /// Things that the client does, and those at which it is killed.
    done: u32,
    kills: Vec<u32>,
    durable: Record,
    // The device.
    looks: BTreeMap<RevisionId, u32>,
    started: BTreeMap<RevisionId, u32>,
    vanished: bool,
    // The cloud.
    polls: u32,
    heard: BTreeMap<u64, Report>,
    last_words: Vec<(DeploymentId, u64, News)>,
}

impl World {
    fn new(story: Story, kills: Vec<u32>) -> Self {
        Self {
            story,
            done: 0,
            kills,
            durable: Record::default(),
            looks: BTreeMap::new(),
            started: BTreeMap::new(),
            vanished: false,
            polls: 0,
            heard: BTreeMap::new(),
            last_words: Vec::new(),
        }
    }

    /// One thing is done, or the client is killed before it.
    fn point(&mut self) -> Result<(), Killed> {
        let kill = self.kills.contains(&self.done);
        self.done += 1;
        if kill { Err(Killed) } else { Ok(()) }
    }

    fn is_closed(&self, name: &str) -> bool {
        self.last_words.iter().any(|(known, ..)| *known == id(name))
    }

    /// What the cloud says.
    fn poll(&mut self) -> Option<Event> {
        self.polls += 1;
        let asked = |world: &Self, at: &dyn Fn(&News) -> bool| {
            world.heard.values().any(|report| at(&report.news))
        };
        if self.is_closed("8") {
            let second = self.story == Story::Superseded && !self.is_closed("9");
            return Some(if second {
                Event::Offered(terms("9"))
            } else {
                Event::Withdrawn
            });
        }
        let mut offer = terms("8");
        match self.story {
            Story::CancelEarly if asked(self, &|news| *news == News::Accepted) => {
                return Some(Event::CancelAsked(id("8")));
            }
            Story::CancelDownloaded => {
                offer.install = wait("the window is closed");
                if asked(self, &|news| matches!(news, News::Waiting { .. })) {
                    return Some(Event::CancelAsked(id("8")));
                }
            }
            Story::CancelLate
                if asked(self, &|news| matches!(news, News::Installing { .. }))
                    && !asked(self, &|news| matches!(news, News::CancelRefused { .. })) =>
            {
                return Some(Event::CancelAsked(id("8")));
            }
            Story::DownloadOnly => offer.install = Gate::Never,
            Story::Window if !asked(self, &|news| matches!(news, News::Waiting { .. })) => {
                offer.install = wait("the window is closed");
            }
            Story::Superseded if asked(self, &|news| *news == News::Accepted) => {
                return Some(Event::Offered(terms("9")));
            }
            Story::Withdrawn if asked(self, &|news| *news == News::Accepted) => {
                self.last_words.push((id("8"), 0, News::Cancelled));
                return Some(Event::Withdrawn);
            }
            Story::Good
            | Story::Sick
            | Story::Reboots
            | Story::CancelEarly
            | Story::CancelLate
            | Story::NoSpace
            | Story::Window
            | Story::Superseded
            | Story::Withdrawn
            | Story::RunsAlready
            | Story::ObjectsVanish => {}
        }
        Some(Event::Offered(offer))
    }

    fn report(&mut self, report: &Report) -> Reported {
        if self.is_closed(report.deployment.as_str()) {
            // The same last word again is how a crash shows.
            return Reported::Gone;
        }
        let known = self.heard.insert(report.number, report.clone());
        assert!(
            known.is_none_or(|known| known == *report),
            "number {} was used twice",
            report.number
        );
        if report.is_final() {
            let word = (
                report.deployment.clone(),
                report.number,
                report.news.clone(),
            );
            self.last_words.push(word);
        }
        Reported::Taken
    }

    /// What the device tells about a revision, a little further at each look.
    fn look(&mut self, name: &RevisionId) -> Event {
        let looks = self.looks.entry(name.clone()).or_default();
        if !self.started.contains_key(name) {
            return told(name.as_str().trim_start_matches("locals/"), State::New);
        }
        *looks += 1;
        let bad = self.story == Story::Sick;
        let status = match *looks {
            1 => State::InProgress,
            2 => State::Testing,
            3 if bad => State::Error,
            3 => State::Updated,
            _ if bad => State::Error,
            _ => State::Done,
        };
        told(name.as_str().trim_start_matches("locals/"), status)
    }
}

/// One life of the client: until it is killed, or nothing is left to do.
fn live(world: &mut World) -> Result<(), Killed> {
    let mut machine = Machine::new(world.durable.clone());
    let mut waiting: VecDeque<Effect> = VecDeque::new();
    let mut events: VecDeque<Event> = VecDeque::from([Event::Started]);
    let mut idle = 0;
    let mut watched: Option<RevisionId> = None;
    let mut rounds = 0;
    loop {
        rounds += 1;
        assert!(rounds < 1000, "it never settles: {:?}", machine.record());
        if let Some(event) = events.pop_front() {
            waiting.extend(machine.step(Instant::ZERO, event));
        }
        while let Some(effect) = waiting.pop_front() {
            idle = 0;
            world.point()?;
            match effect {
                Effect::Save => world.durable = machine.record().clone(),
                Effect::Ask(_) => {
                    let news = world.poll();
                    world.point()?;
                    events.extend(news);
                }
                Effect::Fetch => match world.story {
                    Story::NoSpace => events.push_back(Event::Rejected(trouble(Code::NoSpace))),
                    Story::RunsAlready => events.push_back(Event::RunsAlready {
                        revision: revision("a"),
                        manifest: ObjectId::of(b"a"),
                    }),
                    // The cloud is polled while it goes on.
                    Story::CancelEarly | Story::Superseded | Story::Withdrawn
                        if !world.is_closed("8") =>
                    {
                        events.extend([prepared("a")]);
                    }
                    Story::Good
                    | Story::Sick
                    | Story::Reboots
                    | Story::CancelEarly
                    | Story::CancelDownloaded
                    | Story::CancelLate
                    | Story::DownloadOnly
                    | Story::Window
                    | Story::Superseded
                    | Story::Withdrawn
                    | Story::ObjectsVanish => events.extend([prepared("a"), fetched()]),
                },
                Effect::Install(name) => {
                    if world.story == Story::ObjectsVanish && !world.vanished {
                        world.vanished = true;
                        events.push_back(Event::Vanished);
                        continue;
                    }
                    // As the agent does: what runs already is not asked for again.
                    *world.started.entry(name.clone()).or_default() +=
                        u32::from(!world.started.contains_key(&name));
                    world.point()?;
                    events.push_back(Event::Accepted);
                }
                Effect::Observe(name) => watched = Some(name),
                Effect::Report => {
                    if let Some(report) = machine.next_report().cloned() {
                        let how = world.report(&report);
                        world.point()?;
                        let number = report.number;
                        events.push_back(Event::Reported { number, how });
                    }
                }
                Effect::StopFetching => events
                    .retain(|event| !matches!(event, Event::Prepared { .. } | Event::Fetched(_))),
                Effect::Remove(name) => {
                    let runs = world.started.contains_key(&name);
                    assert!(
                        !runs || world.story == Story::Sick,
                        "what runs is not removed"
                    );
                }
            }
        }
        if !events.is_empty() {
            continue;
        }
        // Nothing is under way: time passes.
        let held = machine.current();
        if let Some(name) = watched.clone().filter(|_| {
            held.is_some_and(|held| matches!(held.phase, Phase::Running | Phase::Observing))
        }) {
            let looked = world.look(&name);
            let reboots = world.story == Story::Reboots && world.looks.get(&name) == Some(&2);
            if reboots && machine.record().outbox.is_empty() {
                // The machine restarts with the revision, and the client with it.
                world.kills.push(world.done);
            }
            world.point()?;
            events.push_back(looked);
            idle = 0;
        } else {
            idle += 1;
        }
        // Everything is polled now and then.
        world.point()?;
        events.extend(world.poll());
        if idle > 3 && machine.current().is_none() && machine.next_report().is_none() {
            return Ok(());
        }
    }
}

/// Lives until the client has settled; how many things it did.
fn play(story: Story, kills: Vec<u32>) -> u32 {
    let shown = kills.clone();
    let mut world = World::new(story, kills);
    let mut lives = 0;
    while live(&mut world).is_err() {
        lives += 1;
        assert!(lives < 20);
    }
    let of = |name: &str| -> Vec<&News> {
        let words = world.last_words.iter();
        words
            .filter(|(known, ..)| *known == id(name))
            .map(|(_, _, news)| news)
            .collect()
    };
    let words = of("8");
    assert_eq!(
        words.len(),
        1,
        "{story:?} {shown:?}: {:?}",
        world.last_words
    );
    let right = match story {
        Story::Good | Story::Reboots | Story::CancelLate | Story::Window | Story::ObjectsVanish => {
            matches!(
                words[0],
                News::Done {
                    ran_already: false,
                    ..
                }
            )
        }
        Story::RunsAlready => matches!(
            words[0],
            News::Done {
                ran_already: true,
                ..
            }
        ),
        Story::Sick => matches!(words[0], News::Failed { .. }),
        Story::NoSpace => matches!(words[0], News::Refused { .. }),
        Story::DownloadOnly => *words[0] == News::DownloadedOnly,
        Story::CancelEarly | Story::CancelDownloaded | Story::Superseded | Story::Withdrawn => {
            *words[0] == News::Cancelled
        }
    };
    assert!(right, "{story:?} {shown:?}: {words:?}");
    if story == Story::Superseded {
        assert!(matches!(of("9")[..], [News::Done { .. }]));
    }
    assert!(world.started.values().all(|times| *times == 1));
    world.done
}

#[test]
fn a_crash_at_every_effect() {
    for story in STORIES {
        let things = play(story, Vec::new());
        assert!(things > 5, "{story:?}");
        for kill in 0..=things {
            play(story, vec![kill]);
        }
    }
}

#[test]
fn two_crashes_at_every_pair_of_effects() {
    for story in STORIES {
        let things = play(story, Vec::new());
        for first in 0..=things {
            for second in first..=things + 10 {
                // The second counts from the start too: at the same place it is a crash right after the restart.
                play(story, vec![first, second + 1]);
            }
        }
    }
}
