//! The table of settings that every cloud client has. A line here, and the reference page knows it.

use std::fmt;

/// What a setting accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text without control characters.
    Text,
    /// Text, or `file:/path`.
    TextOrFile,
    /// Items separated by commas.
    List,
    /// An absolute path, or empty for none.
    Path,
    /// A whole number from .. to.
    Number(u64, u64),
    /// A time: `250ms`, `25s`, `10min`, `1h`, or seconds; from .. to in seconds.
    Duration(u64, u64),
    /// true/false, yes/no, on/off, 1/0.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::TextOrFile => f.write_str("text, or `file:/path`"),
            Self::List => f.write_str("list, by commas"),
            Self::Path => f.write_str("absolute path"),
            Self::Number(from, to) => write!(f, "{from} to {to}"),
            Self::Duration(from, to) => write!(f, "time, {from}s to {to}s"),
            Self::Flag => f.write_str("true, false"),
            Self::Word(words) => f.write_str(&words.join(", ")),
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name, in words joined by hyphens.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// Its default, as a person would type it.
    pub default: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
    /// Whether user metadata may set it.
    pub from_meta: bool,
    /// Whether its value is never shown.
    pub secret: bool,
}

impl Setting {
    /// A setting that user metadata may not set and that may be shown.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default,
            doc,
            from_meta: false,
            secret: false,
        }
    }

    /// User metadata may set it.
    #[must_use]
    pub const fn with_meta(mut self) -> Self {
        self.from_meta = true;
        self
    }

    /// Its value is never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

const DAY: u64 = 24 * 3600;
const BYTES_MAX: u64 = 1 << 50;

/// What every cloud client has, in the order in which it is shown.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting::new("socket", Kind::Path, "/run/coxswain/control.sock", "The control socket."),
    Setting::new("folder", Kind::Path, "/var/lib/coxswain-cloud", "Folder for the client's record; a volume that outlives revisions. Each client needs one of its own."),
    Setting::new("device-id", Kind::TextOrFile, "file:/etc/machine-id", "The name of this device at the cloud.").with_meta(),
    Setting::new("log-level", Kind::Word(&["error", "warn", "info", "debug", "trace"]), "info", "How much the client itself logs."),
    // Polling.
    Setting::new("poll-interval", Kind::Duration(1, 30 * DAY), "5min", "Time between two polls when the cloud does not say one; spread by a tenth either way.").with_meta(),
    Setting::new("poll-min", Kind::Duration(1, 30 * DAY), "30s", "Shortest time between two polls that the cloud can ask for.").with_meta(),
    Setting::new("poll-max", Kind::Duration(1, 30 * DAY), "24h", "Longest time between two polls that the cloud can ask for.").with_meta(),
    Setting::new("poll-busy", Kind::Duration(1, DAY), "20s", "Time between two polls while a deployment can still be cancelled; never longer than otherwise.").with_meta(),
    Setting::new("back-off-max", Kind::Duration(1, DAY), "10min", "Longest pause after calls that failed; pauses grow from 1 s, each is random."),
    Setting::new("metadata-interval", Kind::Duration(1, 3600), "10s", "Time between two looks at user metadata: settings, consent, and `<client>.poll`, which polls at once when it changes."),
    Setting::new("publish", Kind::Flag, "true", "Tell in device metadata, under `<client>.status`, what the client is doing.").with_meta(),
    // Deployments.
    Setting::new("consent", Kind::Word(&["auto", "ask"]), "auto", "Whether a deployment that leaves it to the device needs a person: `ask` waits for user metadata `<client>.consent` (`ID`, or `deny:ID`).").with_meta(),
    Setting::new("failed-again", Kind::Word(&["refuse", "retry"]), "refuse", "What to do with a new deployment whose manifest has failed on this device before.").with_meta(),
    Setting::new("map", Kind::List, "", "Rules for plain artifacts: `[MODULE/]FILE=CONTAINER[/KEY]`, `*` stands for any text; without KEY the container's root volume.").with_meta(),
    Setting::new("claim", Kind::List, "*", "Parts of the device that the client claims: `*`, `bsp`, `container:NAME`, `group:NAME`; empty for none."),
    Setting::new("claim-priority", Kind::Number(0, 1000), "100", "Priority of the claim; the higher one has its way."),
    Setting::new("claim-lease", Kind::Duration(30, DAY), "10min", "Lease of the claim; renewed at a third of it."),
    // Downloads.
    Setting::new("parallel", Kind::Number(1, 4), "1", "Connections that fetch one artifact in blocks, over all its mirrors; 512 KiB of memory each.").with_meta(),
    Setting::new("rate-limit", Kind::Number(0, BYTES_MAX), "0", "Bytes per second that downloads may take; 0 for no limit.").with_meta(),
    Setting::new("byte-budget", Kind::Number(0, BYTES_MAX), "0", "Bytes that downloads may take within `byte-budget-time`; 0 for no limit. A download goes on in the next one.").with_meta(),
    Setting::new("byte-budget-time", Kind::Duration(1, 31 * DAY), "24h", "Time after which the byte budget is full again.").with_meta(),
    Setting::new("min-rate", Kind::Number(0, BYTES_MAX), "100", "Bytes per second below which a connection counts as dead after `stall-timeout`."),
    Setting::new("stall-timeout", Kind::Duration(1, 3600), "60s", "Time without enough bytes after which a connection is given up."),
    Setting::new("connect-timeout", Kind::Duration(1, 600), "20s", "Time for a connection, with its TLS and proxy."),
    Setting::new("answer-timeout", Kind::Duration(1, 3600), "60s", "Time for the head of an answer, and between two pieces of it."),
    Setting::new("fetch-attempts", Kind::Number(1, 1_000_000), "1000", "Attempts in a row that bring nothing after which a download has failed."),
    // TLS and proxies.
    Setting::new("tls-ca", Kind::Path, "", "PEM file with the only certificate authorities that count; the system's when empty."),
    Setting::new("tls-pin", Kind::List, "", "SHA-256 of a public key (SPKI, hexadecimal): the server's, or one that vouches for it; one of them must fit, beside the authority.").with_meta(),
    Setting::new("tls-certificate", Kind::Path, "", "PEM file with the client's certificate and what leads to its authority."),
    Setting::new("tls-key", Kind::Path, "", "PEM file with the client's key (PKCS#8, PKCS#1 or SEC1)."),
    Setting::new("pkcs11-module", Kind::Path, "", "Library of the token that holds the key of `tls-certificate`, instead of `tls-key`. Needs a build with the feature `pkcs11`, which is not static."),
    Setting::new("pkcs11-key", Kind::Text, "pkcs11:", "Which key: `pkcs11:token=NAME;object=NAME` (RFC 7512), also `serial` and `id`; whatever it says, one key must fit."),
    Setting::new("pkcs11-pin", Kind::TextOrFile, "", "PIN of the token. One that was refused is not tried again.").secret(),
    Setting::new("proxy", Kind::Text, "", "`http://host:port` of a proxy; the variables `https_proxy` and `http_proxy` when empty, `none` for none.").with_meta(),
    Setting::new("proxy-credentials", Kind::TextOrFile, "", "`user:password` for the proxy.").with_meta().secret(),
    Setting::new("no-proxy", Kind::List, "", "Hosts without proxy: names with what is below them, addresses, `*`; the variable `no_proxy` when empty.").with_meta(),
];
