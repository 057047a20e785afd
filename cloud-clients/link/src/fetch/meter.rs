//! The budget at work: shared by all downloads of a client, and durable.
//!
//! What a budget wants kept is on the disk before more bytes are taken. When the disk does not take it, nothing more is taken either:
//! a budget is money. Nothing is written where there is no byte budget.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::Budget;
use super::budget::Spent;
use crate::backoff::Backoff;
use crate::clock::{self, Moment};
use crate::keep::{Keep, KeepError};
use crate::limits;
use crate::web::tls;

/// Counts bytes. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Meter {
    budget: Arc<Mutex<Budget>>,
    keep: Option<Keep>,
    time: tls::Time,
}

impl Meter {
    /// A budget that nobody keeps.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget: Arc::new(Mutex::new(budget)),
            keep: None,
            time: tls::Time::default(),
        }
    }

    /// A budget that goes on where an earlier life of the client has left it.
    pub fn kept(budget: Budget, keep: Keep, time: tls::Time) -> Self {
        let moment = Moment::now(time.now());
        let budget = match keep.spent() {
            Some(spent) => budget.with_spent(&spent, &moment, clock::now()),
            None => budget,
        };
        Self {
            budget: Arc::new(Mutex::new(budget)),
            keep: Some(keep),
            time,
        }
    }

    /// Settings that have changed.
    pub fn set(&self, rate: u64, bytes: u64, window: Duration) {
        self.budget().set(rate, bytes, window);
    }

    /// Bytes have come: returns when more may be taken, as far as the rate goes.
    pub(crate) async fn took(&self, bytes: u64) {
        let (wait, spent, used_up) = {
            let (mut budget, now) = (self.budget(), clock::now());
            let wait = budget.took(now, bytes);
            let spent = budget.to_keep(now, || Moment::now(self.time.now()));
            (wait, spent, budget.rest(now))
        };
        if let Some(rest) = used_up {
            tracing::info!(
                "the byte budget is used up: downloads go on in {} s",
                rest.as_secs()
            );
        }
        if let Some(spent) = spent {
            let mut backoff = Backoff::new(limits::KEEP_PAUSE_MAX);
            while let Err(error) = self.keep(&spent) {
                let pause = backoff.failed(clock::random(), None);
                tracing::error!("{error}; nothing is downloaded before that is done");
                tokio::time::sleep(pause).await;
            }
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait before the next look when the budget is used up. A person may raise it meanwhile.
    pub(crate) fn rest(&self) -> Option<Duration> {
        let rest = self.budget().rest(clock::now());
        rest.map(|rest| rest.min(limits::BUDGET_LOOK))
    }

    /// The client ends: what was kept ahead is given back.
    pub(crate) fn settle(&self) {
        let spent = {
            let mut budget = self.budget();
            budget.to_settle(clock::now(), || Moment::now(self.time.now()))
        };
        if let Some(spent) = spent
            && let Err(error) = self.keep(&spent)
        {
            tracing::warn!("{error}");
        }
    }

    fn keep(&self, spent: &Spent) -> Result<(), KeepError> {
        match &self.keep {
            Some(keep) => keep.save_spent(spent),
            None => Ok(()),
        }
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        // Numbers are whole whoever panicked with them.
        self.budget
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}
