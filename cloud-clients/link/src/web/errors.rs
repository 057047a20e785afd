//! Every way in which a call over the web can fail, in words for a person, sorted by what the caller can do.

use std::time::Duration;

/// A call over the web that did not succeed. Answers with an error status are no errors here.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Not an address that can be called.
    #[error("{address:?} cannot be called: {reason}")]
    BadAddress {
        /// As given, without what follows `?`.
        address: String,
        /// Why not.
        reason: String,
    },
    /// A setting, or a file that it names, cannot be used.
    #[error("{what}: {reason}")]
    Settings {
        /// Which.
        what: String,
        /// Why not.
        reason: String,
    },
    /// No connection.
    #[error("cannot connect to {to}")]
    Connect {
        /// To whom: the server or its proxy.
        to: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The proxy does not open the tunnel.
    #[error("proxy {proxy}, asked for {target}: {reason}")]
    Proxy {
        /// The proxy.
        proxy: String,
        /// Where to.
        target: String,
        /// Why not.
        reason: String,
    },
    /// The server could not prove who it is, or does not believe us.
    #[error("no TLS with {to}: {reason}{}", .advice.map(|advice| format!(" ({advice})")).unwrap_or_default())]
    Tls {
        /// With whom.
        to: String,
        /// Why not.
        reason: String,
        /// What to do about it.
        advice: Option<&'static str>,
    },
    /// Nothing came for too long.
    #[error("{to}: no {what} within {} s", .after.as_secs())]
    Timeout {
        /// From whom.
        to: String,
        /// `connection`, `answer`, `bytes`.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("{to}: the connection broke: {reason}")]
    Broken {
        /// With whom.
        to: String,
        /// How.
        reason: String,
    },
    /// A redirect that is not followed.
    #[error("{from} redirects: {reason}")]
    Redirect {
        /// Who.
        from: String,
        /// Why it is not followed.
        reason: String,
    },
    /// The answer is longer than it may be.
    #[error("{from}: the answer has more than {max} bytes")]
    TooLong {
        /// Whose.
        from: String,
        /// The limit.
        max: usize,
    },
}

impl WebError {
    /// Whether the same call may succeed later without anything being changed here.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Proxy { .. }
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. } => true,
            Self::BadAddress { .. }
            | Self::Settings { .. }
            | Self::Redirect { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// The error with all its causes, in one line.
    pub fn whole(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        text
    }
}
