//! One line of the table.

use std::fmt;
use std::time::Duration;

/// Head of the table.
pub(crate) const HEADING: &str =
    "| what | ours | peer or limit | ratio | to reach | verdict |\n|---|---|---|---|---|---|";

/// Whether a figure is where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Reached,
    /// It is not.
    Short,
    /// The row broke before there was a figure; why is on standard error.
    NotMeasured,
}

/// What was measured.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// What, in words.
    pub(crate) what: String,
    /// Our median, with unit.
    pub(crate) ours: String,
    /// The peer's median of the same run, or the limit.
    pub(crate) peer: String,
    /// Ours divided by the peer's; empty when that says nothing.
    pub(crate) ratio: Option<f64>,
    /// What ours must be.
    pub(crate) to_reach: String,
    /// Whether it is.
    pub(crate) verdict: Verdict,
}

impl Figure {
    /// A row that broke.
    pub(crate) fn not_measured(name: &str) -> Self {
        Self {
            what: name.to_owned(),
            ours: "not measured".to_owned(),
            peer: String::new(),
            ratio: None,
            to_reach: String::new(),
            verdict: Verdict::NotMeasured,
        }
    }
}

impl From<bool> for Verdict {
    fn from(reached: bool) -> Self {
        if reached { Self::Reached } else { Self::Short }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.ratio.map_or_else(String::new, |r| format!("{r:.2}"));
        let verdict = match self.verdict {
            Verdict::Reached => "reached",
            Verdict::Short => "**short**",
            Verdict::NotMeasured => "**not measured**",
        };
        write!(
            f,
            "| {} | {} | {} | {ratio} | {} | {verdict} |",
            self.what, self.ours, self.peer, self.to_reach
        )
    }
}

/// A time, in the unit in which it is easiest to read.
pub(crate) fn time(seconds: f64) -> String {
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 0.1 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// A number of bytes.
pub(crate) fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // shown with two digits
    let count = count as f64;
    if count < 10_000.0 {
        format!("{count:.0} B")
    } else if count < 1_000_000.0 {
        format!("{:.0} KiB", count / 1024.0)
    } else {
        format!("{:.2} MiB", count / 1024.0 / 1024.0)
    }
}

/// Seconds of a duration that must be reached: `peer * factor + extra`.
pub(crate) fn limit(peer: f64, factor: f64, extra: Duration) -> f64 {
    peer.mul_add(factor, extra.as_secs_f64())
}
