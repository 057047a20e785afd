//! The machine by itself: the ways through it, properties over any sequence of events, and a crash at every effect.

use model::{ObjectId, Progress, RevisionId};

use super::*;

fn id(text: &str) -> DeploymentId {
    text.parse().unwrap()
}

fn terms(name: &str) -> Terms {
    Terms {
        id: id(name),
        content: ObjectId::of(name.as_bytes()),
        download: Gate::Now,
        install: Gate::Now,
        again: false,
    }
}

fn revision(name: &str) -> RevisionId {
    format!("locals/{name}").parse().unwrap()
}

fn prepared(name: &str) -> Event {
    Event::Prepared {
        revision: revision(name),
        manifest: ObjectId::of(name.as_bytes()),
        base: None,
    }
}

fn told(name: &str, status: State) -> Event {
    Event::Told(Box::new(Told {
        revision: revision(name),
        progress: Some(Progress::new(status, "as it is", 0)),
        trouble: None,
    }))
}

/// Steps through events; the kinds of what is told, taken by the cloud at once.
fn run(machine: &mut Machine, events: impl IntoIterator<Item = Event>) -> Vec<News> {
    let mut told = Vec::new();
    for event in events {
        machine.step(Instant::ZERO, event);
        while let Some(report) = machine.next_report().cloned() {
            told.push(report.news);
            machine.step(
                Instant::ZERO,
                Event::Reported {
                    number: report.number,
                    how: Reported::Taken,
                },
            );
        }
    }
    told
}

#[test]
fn the_whole_way() {
    let mut machine = Machine::new(Record::default());
    let news = run(
        &mut machine,
        [
            Event::Started,
            Event::Offered(terms("8")),
            prepared("a"),
            Event::Fetched(Fetched::default()),
            Event::Accepted,
            told("a", State::InProgress),
            told("a", State::Testing),
            told("a", State::Updated),
            told("other", State::Done),
        ],
    );
    assert_eq!(machine.current().unwrap().phase, Phase::Observing);
    assert_eq!(
        news,
        [
            News::Accepted,
            News::Downloaded,
            News::Installing {
                revision: revision("a")
            },
            News::Observing {
                revision: revision("a")
            },
        ]
    );
    let news = run(&mut machine, [told("a", State::Done)]);
    assert_eq!(
        news,
        [News::Done {
            revision: revision("a"),
            ran_already: false
        }]
    );
    assert_eq!(machine.current(), None);
}
