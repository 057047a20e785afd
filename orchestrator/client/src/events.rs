//! The stream of events, taken up again after the last one that was seen when the connection breaks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use api::messages::ours::Event;
use api::routes::Method;
use http::header::{self, HeaderName, HeaderValue};

use crate::error::Error;
use crate::limits;
use crate::sse::Parser;
use crate::transport::{Ask, Client, Pieces, encode};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Events as they happen; made by [`Client::events`].
#[derive(Debug)]
pub struct Events {
    client: Client,
    last: Option<String>,
    patience: Option<Duration>,
    connection: Option<(Pieces, Parser)>,
    waiting: VecDeque<Event>,
    pause: Duration,
    broken_since: Option<Instant>,
}

impl Client {
    /// Events after `since` (`0`: all that are kept), or from now on when `None`.
    ///
    /// When the connection breaks, the stream is taken up again; it gives up with the last error when that does not succeed for
    /// as long as `patience` (`None`: never).
    ///
    /// # Errors
    /// See [`Error`]: the first connection is made here and not repeated.
    pub async fn events(
        &self,
        since: Option<String>,
        patience: Option<Duration>,
    ) -> Result<Events, Error> {
        let mut events = Events {
            client: self.clone(),
            last: since,
            patience,
            connection: None,
            waiting: VecDeque::new(),
            pause: limits::RESUME_PAUSE_MIN,
            broken_since: None,
        };
        events.connect().await?;
        Ok(events)
    }
}

impl Events {
    /// Id of the last event that was given out: where another stream would go on.
    pub fn last_id(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// The next event. Waits as long as nothing happens.
    ///
    /// # Errors
    /// A refusal, an answer that is no event stream, or the last transport error when patience is at its end.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.last = Some(event.id.clone());
                return Ok(event);
            }
            let error = match self.read().await {
                Ok(()) => continue,
                Err(error) => error,
            };
            self.connection = None;
            let starting = error.refusal().is_some_and(|refusal| refusal.status == 503);
            let since = *self.broken_since.get_or_insert_with(Instant::now);
            let given_up = self
                .patience
                .is_some_and(|patience| since.elapsed() >= patience);
            if !(error.is_transport() || starting) || given_up {
                return Err(error);
            }
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(limits::RESUME_PAUSE_MAX);
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        // The query serves ids that no header can carry, and a server that knows only one of the two.
        let path = match &self.last {
            Some(id) => format!("/events?since={}", encode(id)),
            None => "/events".to_owned(),
        };
        let mut ask = Ask::new(Method::Get, path).header(
            header::ACCEPT,
            HeaderValue::from_static("text/event-stream"),
        );
        if let Some(id) = self
            .last
            .as_deref()
            .and_then(|id| HeaderValue::from_str(id).ok())
        {
            ask = ask.header(LAST_EVENT_ID, id);
        }
        let reply = self.client.send(ask).await?.accepted().await?;
        let kind = reply.response.headers().get(header::CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return Err(Error::BadAnswer {
                call: reply.call,
                reason: "it is no stream of events".to_owned(),
            });
        }
        self.connection = Some((reply.pieces(None), Parser::default()));
        Ok(())
    }

    /// Reads until something is waiting.
    async fn read(&mut self) -> Result<(), Error> {
        if self.connection.is_none() {
            self.connect().await?;
        }
        let Some((pieces, parser)) = &mut self.connection else {
            return Ok(());
        };
        let bad = |pieces: &Pieces, reason: String| Error::BadAnswer {
            call: pieces.call.clone(),
            reason,
        };
        let Some(piece) = pieces.next().await? else {
            return Err(Error::Broken {
                call: pieces.call.clone(),
                source: "the server ended the stream".into(),
            });
        };
        let mut frames = Vec::new();
        parser
            .push(&piece, &mut frames)
            .map_err(|_| bad(pieces, "an event is longer than 1 MiB".to_owned()))?;
        for frame in frames {
            let mut event: Event = serde_json::from_str(&frame.data)
                .map_err(|error| bad(pieces, format!("an event is not understood: {error}")))?;
            if !frame.id.is_empty() {
                event.id = frame.id;
            }
            self.waiting.push_back(event);
        }
        // Nothing came yet: an id alone tells where to go on all the same.
        if self.last.is_none() && self.waiting.is_empty() {
            self.last = parser.last_id().map(str::to_owned);
        }
        self.broken_since = None;
        self.pause = match parser.retry_ms() {
            Some(asked) => Duration::from_millis(asked)
                .clamp(limits::RESUME_PAUSE_MIN, limits::RESUME_PAUSE_MAX),
            None => limits::RESUME_PAUSE_MIN,
        };
        Ok(())
    }
}
