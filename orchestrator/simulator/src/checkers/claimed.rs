//! Invariant 1, for claims: one that was granted stands on the durable disk until its lease ends, its client ends it, or two starts have
//! passed without a renewal; and its number is never given to another one.

use std::collections::{BTreeMap, BTreeSet};

use device::handle::{Answer, Refusal, Request};
use model::claim::{Client, Part};

use super::{Checker, Facts, records};

/// A claim nobody renews is forgotten at the second start.
const STARTS_MAX: u8 = 2;

/// What was granted.
#[derive(Debug, Clone)]
struct Promise {
    client: Client,
    until: u64,
    /// Starts since it was renewed.
    starts: u8,
}

/// Who claimed what, for one number.
type Holder = (Client, BTreeSet<Part>);

/// See the file.
#[derive(Debug, Default)]
pub struct Claimed {
    granted: BTreeMap<u64, Promise>,
    /// What each number stands for, ever.
    numbers: BTreeMap<u64, Holder>,
    /// When each request was made, which is not answered yet.
    asked: BTreeMap<u64, u64>,
}

impl Claimed {
    fn all_hold(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        self.granted
            .retain(|_, promise| facts.now < promise.until && promise.starts < STARTS_MAX);
        if self.granted.is_empty() {
            return Ok(());
        }
        let kept = records::claims(facts.image);
        for (id, promise) in &self.granted {
            if kept.get(id) != Some(&promise.client.to_string()) {
                return Err(format!(
                    "claim {id} of {} was granted, and it is not kept",
                    promise.client
                ));
            }
        }
        Ok(())
    }

    /// Another lease may count as soon as it was asked for.
    fn may_end(&mut self, id: u64, at: u64) {
        if let Some(promise) = self.granted.get_mut(&id) {
            promise.until = promise.until.min(at);
        }
    }
}

fn after(now: u64, lease_s: u32) -> u64 {
    now + u64::from(lease_s) * 1000
}

impl Checker for Claimed {
    fn invariant(&self) -> u8 {
        1
    }

    fn asked(&mut self, facts: &Facts<'_>, id: u64, request: &Request) {
        match request {
            Request::Claim { client, wanted } => {
                self.asked.insert(id, facts.now);
                let holder = (client.clone(), wanted.parts.clone());
                let numbers = self.numbers.iter();
                let same: Vec<_> = numbers
                    .filter(|(_, other)| **other == holder)
                    .map(|(number, _)| *number)
                    .collect();
                for number in same {
                    self.may_end(number, after(facts.now, wanted.lease_s));
                }
            }
            Request::RenewClaim {
                id: number,
                lease_s,
                ..
            } => {
                self.asked.insert(id, facts.now);
                if let Some(lease_s) = lease_s {
                    self.may_end(*number, after(facts.now, *lease_s));
                }
            }
            Request::ReleaseClaim { client, id: number } => {
                let promise = self.granted.get(number);
                if promise.is_some_and(|it| *client == Client::Host || it.client == *client) {
                    self.granted.remove(number);
                }
            }
            Request::PutRevision { .. }
            | Request::DeleteRevision(_)
            | Request::PutCommitMessage { .. }
            | Request::PutMeta { .. }
            | Request::DeleteMeta { .. }
            | Request::Command(_)
            | Request::Control { .. }
            | Request::Ready(_)
            | Request::Collect
            | Request::Plan(_)
            | Request::As { .. }
            | Request::Stop { .. } => {}
        }
    }

    fn answered(
        &mut self,
        facts: &Facts<'_>,
        id: u64,
        request: &Request,
        answer: &Result<Answer, Refusal>,
    ) -> Result<(), String> {
        let asked = self.asked.remove(&id);
        let (Some(asked), Ok(Answer::Claimed(view))) = (asked, answer) else {
            return Ok(());
        };
        let claim = &view.claim;
        let holder = (claim.client.clone(), claim.parts.clone());
        let before = self.numbers.insert(claim.id, holder.clone());
        if before.is_some_and(|before| before != holder) {
            return Err(format!(
                "the number {} was given to two claims: {request:?}",
                claim.id
            ));
        }
        self.granted.insert(
            claim.id,
            Promise {
                client: claim.client.clone(),
                until: after(asked, claim.lease_s),
                starts: 0,
            },
        );
        self.all_hold(facts)
    }

    fn started(&mut self, facts: &Facts<'_>, _: bool) -> Result<(), String> {
        self.all_hold(facts)?;
        for promise in self.granted.values_mut() {
            promise.starts += 1;
        }
        Ok(())
    }

    fn settled(&mut self, facts: &Facts<'_>, _: &super::Rest) -> Result<(), String> {
        self.all_hold(facts)
    }
}
