//! Events as a stream (server-sent events).
//!
//! A client has no queue of its own: it is given what the loop keeps after the last event that it took. One that is slower than that
//! is told that events were lost, one that takes nothing at all is closed; neither holds anybody up.

use std::sync::Arc;
use std::time::Duration;

use api::Problem;
use api::messages::ours::Event;
use bytes::Bytes;
use device::Handle;
use device::handle::Happened;
use tokio::sync::{Notify, mpsc, watch};

use super::Asked;
use crate::http1::answer::{Answer, Body};
use crate::limits;

/// Where a client's ids come from: they count from one at each start of the orchestrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Epoch(String);

impl Epoch {
    /// Named after the moment of the start.
    pub(crate) fn new(wall_ms: u64) -> Self {
        Self(format!("{wall_ms:x}"))
    }

    fn id(&self, number: u64) -> String {
        format!("{}.{number}", self.0)
    }

    /// The number of an id of this start; `None` for another start's.
    fn number(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('.')?;
        (epoch == self.0).then(|| number.parse().ok()).flatten()
    }
}

pub(super) fn follow(asked: &Asked<'_, '_>, since: Option<String>) -> Result<Answer, Problem> {
    let shared = asked.shared;
    let since = asked.head.last_event_id.clone().or(since);
    let (after, lost) = match since.as_deref() {
        None => (shared.handle.events_since(u64::MAX).last, false),
        Some("0") => (0, false),
        Some(id) => match shared.epoch.number(id) {
            Some(number) => (number, false),
            // The orchestrator was started anew: what was missed before is not known any more.
            None => (0, true),
        },
    };
    let place = shared.follower()?;
    let (sender, pieces) = mpsc::channel(1);
    let follower = Follower {
        handle: shared.handle.clone(),
        epoch: shared.epoch.clone(),
        heartbeat: shared.timeouts.heartbeat,
        stopping: shared.stopping.clone(),
        sender,
    };
    tokio::spawn(async move {
        follower.run(after, lost).await;
        drop(place);
    });
    let body = Body::Stream {
        pieces,
        length: None,
    };
    let mut answer = Answer::new(200, "text/event-stream", body).with("Cache-Control", "no-store");
    answer.close = true;
    Ok(answer)
}

struct Follower {
    handle: Handle,
    epoch: Epoch,
    heartbeat: Duration,
    stopping: watch::Receiver<bool>,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
}

impl Follower {
    async fn run(mut self, mut after: u64, mut lost: bool) {
        let woken = Arc::new(Notify::new());
        let waker = Arc::clone(&woken);
        // Registered before the first look, so that nothing falls between.
        let _registration = self.handle.on_event(move || waker.notify_one());
        // The head is sent with the first piece; a comment lets the client know that it is connected, and the id alone where it would
        // go on if the connection broke before the first event.
        let mut piece = format!(": connected\nid: {}\n\n", self.epoch.id(after)).into_bytes();
        loop {
            let news = self.handle.events_since(after);
            if lost || news.lost {
                push_lost(&mut piece, &self.epoch, after);
                lost = false;
            }
            after = news.last;
            for happened in &news.events {
                push_event(&mut piece, &self.epoch, happened);
                // What one client holds is bounded; the rest comes when it has taken this.
                if piece.len() >= limits::PIECE_BYTES {
                    after = happened.id;
                    break;
                }
            }
            if !piece.is_empty() {
                let full = std::mem::take(&mut piece);
                if self.sender.send(Ok(full.into())).await.is_err() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = woken.notified() => {}
                () = self.sender.closed() => return,
                _ = self.stopping.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(self.heartbeat) => piece.extend_from_slice(b": still here\n\n"),
            }
        }
    }
}

fn push_lost(piece: &mut Vec<u8>, epoch: &Epoch, after: u64) {
    let event = Event {
        id: epoch.id(after),
        time: String::new(),
        kind: "lost".to_owned(),
        revision: None,
        container: None,
        message: "events before this one are no longer kept; read the status anew".to_owned(),
    };
    push(piece, &event);
}

fn push_event(piece: &mut Vec<u8>, epoch: &Epoch, happened: &Happened) {
    let event = Event {
        id: epoch.id(happened.id),
        time: happened.time.to_string(),
        kind: happened.kind.to_owned(),
        revision: happened.revision.clone(),
        container: happened.container.clone(),
        message: happened.message.clone(),
    };
    push(piece, &event);
}

fn push(piece: &mut Vec<u8>, event: &Event) {
    let data = serde_json::to_string(event).expect("messages have text keys and finite numbers");
    let text = format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind);
    piece.extend_from_slice(text.as_bytes());
}
