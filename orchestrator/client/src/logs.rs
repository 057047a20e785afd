//! What a container wrote, as it was written.

use api::call::LogForm;
use api::routes::Method;
use bytes::Bytes;
use model::ContainerName;

use crate::calls::LogQuery;
use crate::error::Error;
use crate::transport::{Ask, Client, Pieces, encode};

/// The text of a log, piece by piece. Pieces are cut anywhere; texts are a container's: clean them before they reach a terminal.
#[derive(Debug)]
pub struct Logs {
    pieces: Pieces,
}

impl Client {
    /// Lines that a container wrote, and with `follow` those that it writes from now on, until the connection breaks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn logs(&self, container: &ContainerName, query: &LogQuery) -> Result<Logs, Error> {
        let mut path = format!("/logs/{}", encode(container.as_str()));
        let mut mark = '?';
        let mut add = |name: &str, value: &str| {
            path.push(mark);
            path.push_str(name);
            path.push('=');
            path.push_str(value);
            mark = '&';
        };
        if let Some(lines) = query.tail {
            add("tail", &lines.to_string());
        }
        if query.follow {
            add("follow", "1");
        }
        if let Some(revision) = &query.revision {
            add("revision", &encode(revision.as_str()));
        }
        if let Some(since) = &query.since {
            add("since", &encode(since));
        }
        if let Some(level) = query.level {
            add("level", level.as_str());
        }
        if let Some(form) = query.form {
            add(
                "format",
                match form {
                    LogForm::Raw => "raw",
                    LogForm::Text => "text",
                    LogForm::Json => "json",
                },
            );
        }
        let reply = self
            .send(Ask::new(Method::Get, path))
            .await?
            .accepted()
            .await?;
        let patience = (!query.follow).then_some(self.timeouts.answer);
        Ok(Logs {
            pieces: reply.pieces(patience),
        })
    }
}

impl Logs {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Broken`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.pieces.next().await
    }
}
