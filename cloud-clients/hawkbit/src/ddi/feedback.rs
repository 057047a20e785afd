//! What a device tells: progress and results of an action, answers to a cancel, consent. Written so that every release takes it,
//! and never so much that a quota is used up.

use serde_json::{Value, json};

/// Lines of one report; hawkBit takes 50, and adds one for a code.
const DETAILS_MAX: usize = 40;
/// Characters of a line; hawkBit cuts at 512 and counts the pieces.
const LINE_CHARS_MAX: usize = 500;

/// Which resource's feedback it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// `deploymentBase`.
    Deployment,
    /// `cancelAction`.
    Cancel,
}

impl Channel {
    /// The resource's name in a path.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Deployment => "deploymentBase",
            Self::Cancel => "cancelAction",
        }
    }
}

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// It is over; only this ends a deployment, and only this confirms a cancel.
    Closed,
    /// Something is being done.
    Proceeding,
    /// Nothing is being done yet.
    Scheduled,
    /// A cancel comes too late.
    Rejected,
    /// Files are fetched.
    Download,
    /// Files are there; this ends an action that is only to be downloaded.
    Downloaded,
}

impl Execution {
    fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Proceeding => "proceeding",
            Self::Scheduled => "scheduled",
            Self::Rejected => "rejected",
            Self::Download => "download",
            Self::Downloaded => "downloaded",
        }
    }
}

/// How it ended. `None` with [`Execution::Closed`] counts as success at the server: it is never sent so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It has not.
    None,
    /// Well.
    Success,
    /// Badly.
    Failure,
}

impl Finished {
    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// What goes on.
    pub execution: Execution,
    /// How it ended.
    pub finished: Finished,
    /// For programs: shown to the operator as the last status code.
    pub code: Option<i32>,
    /// How much of how much.
    pub progress: Option<(u64, u64)>,
    /// For people.
    pub details: Vec<String>,
}

impl Feedback {
    /// A report without code.
    pub fn new(execution: Execution, finished: Finished, line: &str) -> Self {
        Self {
            execution,
            finished,
            code: None,
            progress: None,
            details: vec![line.to_owned()],
        }
    }

    /// Whether it ends an action.
    pub fn is_final(&self) -> bool {
        self.execution == Execution::Closed
    }

    /// The same with only what must be there.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self {
            details: Vec::new(),
            progress: None,
            ..self.clone()
        }
    }

    /// The body. No time is sent: hawkBit takes it for the time of installation, and one that is wrong spoils the target.
    pub fn body(&self) -> Value {
        let mut status = json!({
            "execution": self.execution.word(),
            "result": {"finished": self.finished.word()},
        });
        if let Some((done, of)) = self.progress {
            status["result"]["progress"] = json!({"cnt": done, "of": of});
        }
        if let Some(code) = self.code {
            status["code"] = json!(code);
        }
        let details = lines(&self.details);
        if !details.is_empty() {
            status["details"] = json!(details);
        }
        json!({"status": status})
    }
}

/// An answer to a question for consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Whether it is given.
    pub given: bool,
    /// For people.
    pub line: String,
}

impl Consent {
    /// The body.
    pub fn body(&self) -> Value {
        let word = if self.given { "confirmed" } else { "denied" };
        json!({
            "confirmation": word,
            "code": if self.given { 1 } else { -1 },
            "details": lines(std::slice::from_ref(&self.line)),
        })
    }
}

fn lines(details: &[String]) -> Vec<String> {
    details
        .iter()
        .map(|line| line.chars().take(LINE_CHARS_MAX).collect::<String>())
        .filter(|line| !line.is_empty())
        .take(DETAILS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_beyond_a_quota_is_sent() {
        let mut feedback = Feedback::new(Execution::Closed, Finished::Failure, "x");
        feedback.details = vec!["ü".repeat(2000); 100];
        feedback.code = Some(203);
        let body = feedback.body();
        let details = body["status"]["details"].as_array().expect("details");
        assert_eq!(details.len(), DETAILS_MAX);
        let long = |line: &Value| line.as_str().map_or(0, |line| line.chars().count());
        assert!(details.iter().all(|line| long(line) == LINE_CHARS_MAX));
        assert_eq!(
            feedback.bare().body(),
            json!({"status": {"execution": "closed", "result": {"finished": "failure"}, "code": 203}})
        );
    }
}
