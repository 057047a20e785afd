//! Who may change what, while several clients work on one device.
//!
//! A claim covers parts of the device for one client as long as its lease is renewed. Of the claims that cover a part the one with the
//! highest priority counts, the older one among equals; the others stay, and count again when it ends. Nobody gets a claim
//! over parts that another client holds with the same priority or a higher one. Decision 0031 has the reasons.
//!
//! Time comes in; only monotonic time decides. Not here: what a change touches (`touch`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::claim::{Claim, Client, Kept, Part, Wanted};
use model::limits::{CLAIMS_MAX, CLAIMS_OF_CLIENT_MAX};
use model::{ContainerName, GroupName, Instant};

use crate::touch::Touch;

/// The group of each container of the running revision.
pub type Members = BTreeMap<ContainerName, GroupName>;

/// A claim that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The claim.
    pub claim: Claim,
    /// When it ends unless it is renewed before.
    pub expires: Instant,
}

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The part that both want, in words.
    pub what: String,
    /// The claim on it.
    pub claim: Claim,
    /// How long that holds if it is not renewed.
    pub left: Duration,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Another client has it.
    Taken(Box<Conflict>),
    /// As many claims as there may be.
    Limit(String),
    /// There is no such claim: never was, released, or its lease ran out.
    NoSuch(u64),
    /// It is another client's.
    NotYours {
        /// Which.
        id: u64,
        /// Whose.
        client: Client,
    },
}

/// What became of something that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Number of the claim.
    pub id: u64,
    /// Whether what is kept changed; a renewal alone changes nothing that must outlive a restart.
    pub changed: bool,
}

/// All claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    next: u64,
    held: BTreeMap<u64, Held>,
}

impl Claims {
    /// After a start. Time before it cannot be counted, so every lease begins anew: it may last longer than was promised, never
    /// shorter. Once: what nobody renewed since the start before is dropped, and told.
    pub fn restore(now: Instant, kept: Kept) -> (Self, Vec<Claim>) {
        let (living, dropped): (Vec<_>, Vec<_>) =
            kept.claims.into_iter().partition(|claim| claim.renewed);
        let highest = living.iter().map(|claim| claim.id + 1).max();
        let held = living
            .into_iter()
            .take(CLAIMS_MAX)
            .map(|mut claim| {
                claim.renewed = false;
                let expires = now + lease(&claim);
                (claim.id, Held { claim, expires })
            })
            .collect();
        let next = kept.next.max(highest.unwrap_or(0));
        (Self { next, held }, dropped)
    }

    /// What must outlive a restart.
    pub fn keep(&self) -> Kept {
        Kept {
            next: self.next,
            claims: self.held.values().map(|held| held.claim.clone()).collect(),
        }
    }

    /// All that hold, by number.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// The claim of this number.
    pub fn get(&self, id: u64) -> Option<&Held> {
        self.held.get(&id)
    }

    /// Claims parts, or renews and changes the claim that the client has on just these parts.
    ///
    /// # Errors
    /// Somebody else has one of them with at least this priority, or there are too many claims.
    pub fn claim(
        &mut self,
        now: Instant,
        client: &Client,
        wanted: Wanted,
        members: &Members,
    ) -> Result<Granted, Refused> {
        if let Some(conflict) = self.conflict(now, client, &wanted, members) {
            return Err(Refused::Taken(Box::new(conflict)));
        }
        let own = self
            .held
            .values_mut()
            .find(|held| held.claim.client == *client && held.claim.parts == wanted.parts);
        if let Some(held) = own {
            let before = held.claim.clone();
            held.claim.priority = wanted.priority;
            held.claim.lease_s = wanted.lease_s;
            held.claim.renewed = true;
            held.expires = now + lease(&held.claim);
            return Ok(Granted {
                id: held.claim.id,
                changed: held.claim != before,
            });
        }
        self.room_for(client)?;
        let id = self.next.max(1);
        self.next = id + 1;
        let claim = Claim {
            id,
            client: client.clone(),
            parts: wanted.parts,
            priority: wanted.priority,
            lease_s: wanted.lease_s,
            renewed: true,
        };
        let expires = now + lease(&claim);
        self.held.insert(id, Held { claim, expires });
        Ok(Granted { id, changed: true })
    }

    fn room_for(&self, client: &Client) -> Result<(), Refused> {
        if self.held.len() >= CLAIMS_MAX {
            return Err(Refused::Limit(format!(
                "there are {CLAIMS_MAX} claims already; at most as many are kept"
            )));
        }
        let own = self
            .held
            .values()
            .filter(|held| held.claim.client == *client);
        if own.count() >= CLAIMS_OF_CLIENT_MAX {
            return Err(Refused::Limit(format!(
                "{client} holds {CLAIMS_OF_CLIENT_MAX} claims already; claim several parts at once, or release some"
            )));
        }
        Ok(())
    }

    /// The strongest claim of somebody else that a new one would not overrule.
    fn conflict(
        &self,
        now: Instant,
        client: &Client,
        wanted: &Wanted,
        members: &Members,
    ) -> Option<Conflict> {
        self.held
            .values()
            .filter(|held| held.claim.client != *client && held.claim.priority >= wanted.priority)
            .filter_map(|held| Some((held, overlap(&wanted.parts, &held.claim.parts, members)?)))
            .max_by_key(|(held, _)| strength(held))
            .map(|(held, what)| conflict(now, held, what))
    }

    /// Lets the lease of a claim begin anew, with another length if one is given. A claim that another one overrules is renewed too.
    ///
    /// # Errors
    /// There is no such claim, or it is another client's.
    pub fn renew(
        &mut self,
        now: Instant,
        client: &Client,
        id: u64,
        lease_s: Option<u32>,
    ) -> Result<Granted, Refused> {
        let held = self.held.get_mut(&id).ok_or(Refused::NoSuch(id))?;
        if held.claim.client != *client {
            let client = held.claim.client.clone();
            return Err(Refused::NotYours { id, client });
        }
        let before = held.claim.clone();
        held.claim.renewed = true;
        held.claim.lease_s = lease_s.unwrap_or(held.claim.lease_s);
        held.expires = now + lease(&held.claim);
        Ok(Granted {
            id,
            changed: held.claim != before,
        })
    }

    /// Ends a claim. A person on the host may end any.
    ///
    /// # Errors
    /// There is no such claim, or it is another client's.
    pub fn release(&mut self, client: &Client, id: u64) -> Result<Claim, Refused> {
        let held = self.held.get(&id).ok_or(Refused::NoSuch(id))?;
        if held.claim.client != *client && *client != Client::Host {
            let client = held.claim.client.clone();
            return Err(Refused::NotYours { id, client });
        }
        match self.held.remove(&id) {
            Some(held) => Ok(held.claim),
            None => Err(Refused::NoSuch(id)),
        }
    }

    /// Ends the claims whose leases have run out, and tells them.
    pub fn expire(&mut self, now: Instant) -> Vec<Claim> {
        let over = |held: &Held| held.expires <= now;
        let ended = self.held.values().filter(|held| over(held));
        let ended: Vec<_> = ended.map(|held| held.claim.clone()).collect();
        self.held.retain(|_, held| !over(held));
        ended
    }

    /// When the next lease runs out.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.held.values().map(|held| held.expires).min()
    }

    /// What stands in the way of a change by this client; `None` when nothing does.
    pub fn refuses(
        &self,
        now: Instant,
        client: &Client,
        touched: &BTreeSet<Touch>,
    ) -> Option<Conflict> {
        touched.iter().find_map(|touch| {
            let covering = self
                .held
                .values()
                .filter(|held| covers(&held.claim.parts, touch));
            let counts = covering.max_by_key(|held| strength(held))?;
            (counts.claim.client != *client).then(|| conflict(now, counts, touch.to_string()))
        })
    }

    /// Claims that are overruled, at least in part, each with the strongest one that does it.
    pub fn overruled(&self, members: &Members) -> BTreeMap<u64, u64> {
        self.held
            .iter()
            .filter_map(|(id, held)| {
                let by = self
                    .held
                    .values()
                    .filter(|other| {
                        other.claim.client != held.claim.client
                            && strength(other) > strength(held)
                            && overlap(&held.claim.parts, &other.claim.parts, members).is_some()
                    })
                    .max_by_key(|other| strength(other))?;
                Some((*id, by.claim.id))
            })
            .collect()
    }
}

/// The higher one has its way.
fn strength(held: &Held) -> (u16, Reverse<u64>) {
    (held.claim.priority, Reverse(held.claim.id))
}

fn lease(claim: &Claim) -> Duration {
    Duration::from_secs(claim.lease_s.into())
}

fn conflict(now: Instant, held: &Held, what: String) -> Conflict {
    Conflict {
        what,
        claim: held.claim.clone(),
        left: held.expires.since(now),
    }
}

fn covers(parts: &BTreeSet<Part>, touch: &Touch) -> bool {
    parts.contains(&Part::Everything)
        || match touch {
            Touch::Bsp => parts.contains(&Part::Bsp),
            Touch::Container { name, groups } => {
                parts.contains(&Part::Container(name.clone()))
                    || groups
                        .iter()
                        .any(|group| parts.contains(&Part::Group(group.clone())))
            }
            Touch::Group(name) => parts.contains(&Part::Group(name.clone())),
            Touch::Rest => false,
        }
}

/// A part that both sets cover, in words.
fn overlap(one: &BTreeSet<Part>, other: &BTreeSet<Part>, members: &Members) -> Option<String> {
    within(one, other, members).or_else(|| within(other, one, members))
}

/// A part of `small` that `large` covers.
fn within(small: &BTreeSet<Part>, large: &BTreeSet<Part>, members: &Members) -> Option<String> {
    let all = large.contains(&Part::Everything);
    let found = small.iter().find(|part| {
        all || large.contains(part)
            || match part {
                Part::Container(name) => members
                    .get(name)
                    .is_some_and(|group| large.contains(&Part::Group(group.clone()))),
                Part::Everything | Part::Bsp | Part::Group(_) => false,
            }
    })?;
    Some(found.to_string())
}

#[cfg(test)]
mod tests;
