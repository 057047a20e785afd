//! Claims of clients: asked for, kept durably, ended when their leases run out; and what they keep others from.
//!
//! What the orchestrator does by itself (a rollback, a restart of a container) is never kept by a claim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifecycle::claims::{Claims, Conflict, Granted, Members, Refused};
use lifecycle::touch::{self, Touch};
use lifecycle::update::Phase;
use model::claim::{Claim, Client, Part, Wanted};
use model::{Instant, Manifest, ObjectId, RevisionId};
use store::explain;

use crate::device::Device;
use crate::handle::{Answer, ClaimView, Command, Refusal, Request};
use crate::ports::World;
use crate::requests::disk_refusal;

/// Claims, and what was last told and shown of them.
#[derive(Debug, Default)]
pub(crate) struct Register {
    claims: Claims,
    /// Whether the storage was read.
    read: bool,
    /// Something about them changed since they were shown last.
    stale: bool,
    /// The manifest by which `overruled` was found.
    manifest: Option<ObjectId>,
    overruled: BTreeMap<u64, u64>,
    pub(crate) shown: Arc<Vec<ClaimView>>,
}

impl Register {
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.claims.next_expiry()
    }
}

impl<W: World> Device<W> {
    /// Reads what an earlier start kept, once.
    pub(crate) fn read_claims(&mut self, now: Instant) {
        if std::mem::replace(&mut self.register.read, true) {
            return;
        }
        let kept = match self.store.claims() {
            Ok((kept, notice)) => {
                if let Some(notice) = notice {
                    self.notice(notice);
                }
                kept
            }
            Err(error) => {
                self.notice(explain(&error));
                return;
            }
        };
        let any = !kept.claims.is_empty();
        let (claims, dropped) = Claims::restore(now, kept);
        self.register.claims = claims;
        self.register.stale = true;
        for claim in dropped {
            self.tell_claim(
                &claim,
                "was not renewed since the start before; it has ended",
            );
        }
        // Until this is durable a next start drops nothing: at worst a claim lasts one lease longer.
        if any && let Err(error) = self.store.set_claims(&self.register.claims.keep()) {
            self.notice(explain(&error));
        }
    }

    /// Ends what has run out.
    pub(crate) fn expire_claims(&mut self, now: Instant) {
        let ended = self.register.claims.expire(now);
        if ended.is_empty() {
            return;
        }
        self.register.stale = true;
        for claim in ended {
            self.tell_claim(&claim, "was not renewed; it has ended");
        }
        // A claim that has ended and is not taken off the disk would come back at the next start, for one lease at most.
        if let Err(error) = self.store.set_claims(&self.register.claims.keep()) {
            self.notice(explain(&error));
        }
    }

    pub(crate) fn on_claim(
        &mut self,
        now: Instant,
        client: &Client,
        wanted: Wanted,
    ) -> Result<Answer, Refusal> {
        let before = self.register.claims.clone();
        let members = self.members();
        let granted = self.register.claims.claim(now, client, wanted, &members);
        let granted = self.keep_claims(before, granted)?;
        if granted.changed
            && let Some(held) = self.register.claims.get(granted.id)
        {
            let claim = held.claim.clone();
            let text = format!("holds for {} s unless it is renewed", claim.lease_s);
            self.tell_claim(&claim, &text);
        }
        Ok(self.claim_answer(granted.id))
    }

    pub(crate) fn on_renew(
        &mut self,
        now: Instant,
        client: &Client,
        id: u64,
        lease_s: Option<u32>,
    ) -> Result<Answer, Refusal> {
        let before = self.register.claims.clone();
        let granted = self.register.claims.renew(now, client, id, lease_s);
        self.keep_claims(before, granted)?;
        Ok(self.claim_answer(id))
    }

    pub(crate) fn on_release(&mut self, client: &Client, id: u64) -> Result<Answer, Refusal> {
        let before = self.register.claims.clone();
        let released = self.register.claims.release(client, id);
        let claim = released.map_err(refusal)?;
        self.keep_claims(before, Ok(Granted { id, changed: true }))?;
        let text = if claim.client == *client {
            "was released".to_owned()
        } else {
            format!("was ended by {client}")
        };
        self.tell_claim(&claim, &text);
        Ok(Answer::Done)
    }

    /// Makes a change durable, or undoes it.
    fn keep_claims(
        &mut self,
        before: Claims,
        granted: Result<Granted, Refused>,
    ) -> Result<Granted, Refusal> {
        let granted = granted.map_err(refusal)?;
        if granted.changed
            && let Err(error) = self.store.set_claims(&self.register.claims.keep())
        {
            self.register.claims = before;
            return Err(disk_refusal(&error));
        }
        self.register.stale = true;
        Ok(granted)
    }

    /// The claim as it will be shown with the next view, which is published before anything else is handled.
    fn claim_answer(&mut self, id: u64) -> Answer {
        self.refresh_claims();
        let shown = self
            .register
            .shown
            .iter()
            .find(|shown| shown.claim.id == id);
        shown.map_or(Answer::Done, |shown| {
            Answer::Claimed(Box::new(shown.clone()))
        })
    }

    fn tell_claim(&mut self, claim: &Claim, text: &str) {
        let (id, client, priority) = (claim.id, &claim.client, claim.priority);
        let parts: Vec<_> = claim.parts.iter().map(Part::to_string).collect();
        let parts = parts.join(", ");
        let text = format!("claim {id} of {client} on {parts} with priority {priority} {text}");
        self.tell("claim", None, None, text);
    }

    /// Tells who gives way to whom since the last time, and renders what is shown.
    pub(crate) fn refresh_claims(&mut self) {
        let running = self.update().and_then(|update| update.running());
        let manifest = running.map(|running| running.digest);
        if !self.register.stale && self.register.manifest == manifest {
            return;
        }
        let members = self.members();
        let now = self.register.claims.overruled(&members);
        let before = std::mem::replace(&mut self.register.overruled, now.clone());
        for (id, by) in &now {
            if before.get(id) != Some(by)
                && let Some(held) = self.register.claims.get(*id)
            {
                let claim = held.claim.clone();
                self.tell_claim(
                    &claim,
                    &format!("gives way to claim {by} where both overlap"),
                );
            }
        }
        for id in before.keys().filter(|id| !now.contains_key(id)) {
            if let Some(held) = self.register.claims.get(*id) {
                let claim = held.claim.clone();
                self.tell_claim(&claim, "counts for all of it again");
            }
        }
        let shown = self.register.claims.held().map(|held| ClaimView {
            claim: held.claim.clone(),
            expires: held.expires,
            overruled_by: now.get(&held.claim.id).copied(),
        });
        self.register.shown = Arc::new(shown.collect());
        self.register.manifest = manifest;
        self.register.stale = false;
    }

    fn members(&mut self) -> Members {
        let manifest = self.running_manifest();
        let containers = manifest.iter().flat_map(|manifest| manifest.containers());
        containers
            .map(|spec| (spec.name.clone(), spec.group.clone()))
            .collect()
    }

    fn running_manifest(&mut self) -> Option<Arc<Manifest>> {
        let running = self.update()?.running()?.revision.clone();
        self.manifest(&running).ok()
    }

    /// Whether another client's claim stands in the way of a request.
    pub(crate) fn claimed(
        &mut self,
        now: Instant,
        client: &Client,
        request: &Request,
    ) -> Option<Refusal> {
        // Nobody pays for reading manifests where there are no claims.
        self.register.claims.next_expiry()?;
        let touched = self.touched(request);
        let conflict = self.register.claims.refuses(now, client, &touched)?;
        Some(Refusal::Claimed(Box::new(conflict)))
    }

    /// What a request would change of the parts that can be claimed. What cannot be read touches nothing: it is refused for that.
    fn touched(&mut self, request: &Request) -> BTreeSet<Touch> {
        match request {
            Request::Command(
                Command::Run { revision, .. }
                | Command::RunCommit { revision, .. }
                | Command::Apply { revision, .. },
            ) => self.touched_by_run(revision),
            Request::Command(Command::Rollback) => self.touched_by_rollback(),
            Request::Command(Command::FactoryReset { .. }) => self.touched_by_reset(),
            Request::Command(Command::MakeFactory(revision)) => {
                let mut touched = match revision {
                    Some(revision) => self.touched_by_run(revision),
                    None => BTreeSet::new(),
                };
                touched.insert(Touch::Rest);
                touched
            }
            Request::Control { container, .. } => {
                let manifest = self.running_manifest();
                let spec = manifest.as_ref().and_then(|it| it.container(container));
                spec.map(|spec| touch::by_control(&spec.name, &spec.group))
                    .unwrap_or_default()
            }
            // A revision is worth to its owner what running it would change.
            Request::DeleteRevision(revision) => self.touched_by_run(revision),
            Request::PutRevision { revision, manifest } => {
                match self.store.read_manifest(revision) {
                    Ok(known) if known != *manifest => self.touched_by_run(revision),
                    Ok(_) | Err(_) => BTreeSet::new(),
                }
            }
            Request::Command(
                Command::Reboot(_)
                | Command::PowerOff(_)
                | Command::Collect
                | Command::UpdateMetadata(_),
            )
            | Request::PutCommitMessage { .. }
            | Request::Ready(_)
            | Request::PutMeta { .. }
            | Request::DeleteMeta { .. }
            | Request::Collect
            | Request::Plan(_)
            | Request::Claim { .. }
            | Request::RenewClaim { .. }
            | Request::ReleaseClaim { .. }
            | Request::As { .. }
            | Request::Stop { .. } => BTreeSet::new(),
        }
    }

    fn touched_by_run(&mut self, revision: &RevisionId) -> BTreeSet<Touch> {
        let next = self.store.read_manifest(revision).ok();
        let Some(next) = next.and_then(|bytes| Manifest::parse(&bytes).ok()) else {
            return BTreeSet::new();
        };
        let running = self.running_manifest();
        touch::by_run(running.as_deref(), &next)
    }

    fn touched_by_rollback(&mut self) -> BTreeSet<Touch> {
        let Some(update) = self.update() else {
            return BTreeSet::new();
        };
        let running = update.running().map(|running| &running.revision);
        let base = update.base().map(|base| &base.revision);
        let marker = update.marker();
        let trial = marker.trial.as_ref().map(|trial| &trial.revision);
        let other = match update.phase() {
            // Nothing was changed yet; what is given up is what it would have changed.
            Phase::Verifying { wanted, .. } => Some(&wanted.revision),
            Phase::Starting(_) | Phase::Observing { .. } => base,
            Phase::Settled if trial.is_some() && trial == running => base,
            Phase::Settled => marker.previous.as_ref().filter(|it| Some(*it) != running),
            Phase::RollingBack { .. } | Phase::ShuttingDown { .. } | Phase::Clearing { .. } => None,
        };
        match other.cloned() {
            Some(other) => self.touched_by_run(&other),
            None => BTreeSet::new(),
        }
    }
}

fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::Taken(conflict) => Refusal::Claimed(conflict),
        Refused::Limit(text) => Refusal::Limit(text),
        Refused::NoSuch(id) => Refusal::NoSuchClaim(id),
        Refused::NotYours { id, client } => Refusal::NotYourClaim { id, client },
    }
}

/// In words: what, whose, and for how long.
pub(crate) fn in_words(conflict: &Conflict) -> String {
    let Claim {
        id,
        client,
        priority,
        ..
    } = &conflict.claim;
    let left = conflict.left.as_secs().max(1);
    format!(
        "{} is claimed by {client} (claim {id}, priority {priority}), for another {left} s unless it is renewed",
        conflict.what
    )
}
