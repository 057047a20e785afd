//! The port to a cloud: what a client has to implement. It asks and reports; it decides nothing about a deployment.
//!
//! A cloud that is polled and one that pushes fit alike: `poll` is called at the end of an interval, when something must be known at
//! once, and whenever `wake` returns. Calls never overlap. Every future may be dropped in the middle when the client ends.

use std::future::Future;
use std::time::Duration;

use crate::config::Config;
use crate::deployment::Report;
use crate::offer::{DeploymentId, Offer};
use crate::web::Web;

/// Why the cloud is asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The first time since the client started.
    Start,
    /// The interval has passed.
    Interval,
    /// [`Cloud::wake`] returned.
    Woken,
    /// A link was refused (404, 410, 403) or did not lead to what it should: give fresh ones, or say that it is over.
    Links,
    /// A deployment has ended, and its last report has arrived.
    Closed,
    /// A deployment that the device holds from before its restart needs its links again.
    Restarted,
    /// A person asked, by metadata.
    Asked,
}

/// What a cloud may want to know when it is asked.
#[derive(Debug, Clone)]
pub struct Situation {
    /// Why it is asked.
    pub why: Why,
    /// The deployment that the device holds, with its phase, until its last report has arrived.
    pub held: Option<(DeploymentId, crate::deployment::Phase)>,
    /// Deployments that a person agreed to (`true`) or not, by user metadata.
    pub consents: Vec<(DeploymentId, bool)>,
    /// What the device tells about itself: device metadata and the running revision, as texts.
    pub attributes: std::collections::BTreeMap<String, String>,
}

/// What the cloud said.
#[derive(Debug, Clone)]
pub struct Polled {
    /// What it wants.
    pub news: News,
    /// After which time it wants to be asked again, if it says so.
    pub interval: Option<Duration>,
}

/// What a cloud wants.
#[derive(Debug, Clone)]
pub enum News {
    /// Nothing is known that was not known before: what is under way goes on.
    NoChange,
    /// The cloud wants nothing (any more): what can still be given up is given up without a report.
    Nothing,
    /// It wants this. To be said again at each poll until the deployment's last report has arrived: that is how a client that was
    /// restarted gets its links back.
    Offer(Box<Offer>),
    /// It wants this deployment to be stopped. To be said again until it is answered by a report.
    Cancel(DeploymentId),
    /// It wants something that cannot be understood. The deployment is refused with these words.
    Unreadable {
        /// Which.
        id: DeploymentId,
        /// Why.
        reason: String,
    },
}

/// How a report arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// The cloud has it.
    Taken,
    /// The cloud will never want it (it knows no such deployment, or the deployment is closed there): the report is dropped.
    Gone,
}

/// Why a call to a cloud did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// No answer, or one that says that it is busy: tried again with growing pauses.
    #[error("the cloud cannot be reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
        /// The pause that the cloud asked for.
        retry_after: Option<Duration>,
    },
    /// The cloud does not let this device in: tried again slowly, and said loudly; no work is dropped.
    #[error("the cloud does not accept this device: {reason}")]
    NotAllowed {
        /// Why.
        reason: String,
    },
    /// What came is no answer: tried again with growing pauses.
    #[error("the cloud's answer cannot be understood: {reason}")]
    BadAnswer {
        /// Why.
        reason: String,
    },
}

/// A cloud.
pub trait Cloud: Send {
    /// Settings hold from now on: called once at the start, and again whenever user metadata has changed one.
    ///
    /// # Errors
    /// In words: nothing is asked until settings come that can be used.
    fn configure(&mut self, _config: &Config, _web: &Web) -> Result<(), String> {
        Ok(())
    }

    /// Asks the cloud what it wants.
    fn poll(
        &mut self,
        situation: &Situation,
    ) -> impl Future<Output = Result<Polled, CloudError>> + Send;

    /// Tells the cloud. The same report (same number) may be told twice, after a crash between telling and remembering.
    fn report(
        &mut self,
        report: &Report,
    ) -> impl Future<Output = Result<Reported, CloudError>> + Send;

    /// Returns when the cloud has something to say before the interval is over; never, for a cloud that is only polled.
    fn wake(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}
