//! Which container a process belongs to, by our own registry.
//!
//! Two things must agree: the control group, which the run time set and a process with enough rights can leave, and the name space of its
//! processes, which it cannot. What does not fit together is nobody we know: a process that moved itself gains nothing and loses
//! what it had. Decision 0030 has the whole table.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use linux::peer::{PidNamespace, Place};
use model::ContainerName;

use crate::registry::Registry;
use crate::runtime::Shared;

/// Who a process belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The host: in our own name space of processes, and in no control group of ours.
    Host,
    /// This container.
    Container(ContainerName),
    /// Anything else: to be refused.
    Unknown,
}

/// Tells who a process belongs to. Cheap to clone; does not wait.
#[derive(Clone)]
pub struct Callers {
    shared: Arc<Shared>,
    own: PidNamespace,
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callers").finish_non_exhaustive()
    }
}

impl Callers {
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            shared,
            own: PidNamespace::own()?,
        })
    }

    /// Control groups of the containers that run.
    pub fn groups(&self) -> BTreeMap<ContainerName, String> {
        self.shared.registry().running_groups(&self.shared.config)
    }

    /// By the place of the process.
    pub fn identify(&self, place: &Place) -> Caller {
        let parent = &self.shared.config.cgroup_parent;
        let caller = decide(place, parent, self.own, &self.shared.registry());
        if caller == Caller::Unknown {
            tracing::debug!(?place, "a caller that fits no container");
        }
        caller
    }
}

fn decide(place: &Place, parent: &str, own: PidNamespace, registry: &Registry) -> Caller {
    let ours = place.pid_namespaces.first() == Some(&own);
    let mut groups = place.groups_below(parent).into_iter();
    let (id, another) = (groups.next(), groups.next());
    let Some(id) = id else {
        // In another name space: it left a group of ours, or belongs to containers of somebody else.
        return if ours { Caller::Host } else { Caller::Unknown };
    };
    // Moved in some hierarchies only.
    if another.is_some() {
        return Caller::Unknown;
    }
    let Some(record) = registry.get(id).map(|entry| &entry.record) else {
        return Caller::Unknown;
    };
    let Some(namespace) = record.pid_namespace.map(PidNamespace::from_numbers) else {
        return Caller::Unknown;
    };
    let inside = if namespace == own {
        // A container that shares ours; one below it belongs to somebody else.
        ours
    } else {
        place.pid_namespaces.contains(&namespace)
    };
    if inside {
        Caller::Container(record.container.clone())
    } else {
        Caller::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Phase, Record};
    use model::ObjectId;

    const OWN: u64 = 1;
    const WEB: u64 = 10;
    const DB: u64 = 20;
    const ELSEWHERE: u64 = 90;

    fn namespace(inode: u64) -> PidNamespace {
        PidNamespace::from_numbers((4, inode))
    }

    fn registry() -> Registry {
        let mut registry = Registry::default();
        for (id, pid_namespace) in [
            ("web-1", Some(WEB)),
            ("db-1", Some(DB)),
            ("host-pid-1", Some(OWN)),
            ("ended-1", None),
        ] {
            let record = Record {
                container: id.trim_end_matches("-1").parse().unwrap(),
                fingerprint: ObjectId::of(b"x"),
                generation: 1,
                revision: "locals/x".parse().unwrap(),
                phase: Phase::Running,
                ready: false,
                pid_namespace: pid_namespace.map(|inode| (4, inode)),
                halt_signal: None,
                image: None,
            };
            registry.insert(id, record);
        }
        registry
    }

    /// Every combination of what a control group and a name space can say.
    #[test]
    fn both_must_agree() {
        let web = "2:cpu:/coxswain/web-1\n1:name=systemd:/coxswain/web-1\n0::/coxswain/web-1/in\n";
        let none = "2:cpu:/\n1:name=systemd:/init.scope\n0::/\n";
        let part = "2:cpu:/\n1:name=systemd:/coxswain/web-1\n0::/\n";
        let two = "2:cpu:/coxswain/db-1\n1:name=systemd:/coxswain/web-1\n0::/\n";
        let unheard = "0::/coxswain/gone-1\n";
        let ended = "0::/coxswain/ended-1\n";
        let shares = "0::/coxswain/host-pid-1\n";
        let registry = registry();
        let container = |name: &str| Caller::Container(name.parse().unwrap());
        let cases: [(&str, &[u64], Caller); 23] = [
            (none, &[OWN], Caller::Host),
            (web, &[WEB, OWN], container("web")),
            // A name space that it made itself.
            (web, &[77, WEB, OWN], container("web")),
            (part, &[WEB, OWN], container("web")),
            // It left its control group, for none, for that of another one, or in one hierarchy.
            (none, &[WEB, OWN], Caller::Unknown),
            (none, &[77, WEB, OWN], Caller::Unknown),
            (web, &[DB, OWN], Caller::Unknown),
            (web, &[77, DB, OWN], Caller::Unknown),
            (two, &[WEB, OWN], Caller::Unknown),
            (two, &[DB, OWN], Caller::Unknown),
            (two, &[OWN], Caller::Unknown),
            (unheard, &[WEB, OWN], Caller::Unknown),
            (ended, &[WEB, OWN], Caller::Unknown),
            (shares, &[WEB, OWN], Caller::Unknown),
            // The host was moved into one, or has entered one.
            (web, &[OWN], Caller::Unknown),
            (unheard, &[OWN], Caller::Unknown),
            (ended, &[OWN], Caller::Unknown),
            // A container that shares our name space.
            (shares, &[OWN], container("host-pid")),
            (shares, &[77, OWN], Caller::Unknown),
            // Containers of somebody else.
            (none, &[ELSEWHERE, OWN], Caller::Unknown),
            ("0::/docker/1\n", &[ELSEWHERE, OWN], Caller::Unknown),
            (web, &[ELSEWHERE, OWN], Caller::Unknown),
            // Nothing is known of its name space.
            (none, &[], Caller::Unknown),
        ];
        for (groups, namespaces, expected) in cases {
            let place = Place {
                control_groups: groups.to_owned(),
                pid_namespaces: namespaces.iter().map(|inode| namespace(*inode)).collect(),
            };
            let found = decide(&place, "/coxswain", namespace(OWN), &registry);
            assert_eq!(found, expected, "{place:?}");
        }
    }
}
