//! Who calls, and what they may.
//!
//! Who is asked once, when the connection is accepted: a process that exits and whose number is taken by another one later gains
//! nothing. What they may is looked up at each request, because the running revision changes.

use std::os::fd::BorrowedFd;

use api::routes::{Match, Shape, Style};
use api::{Access, Code, Problem};
use device::handle::View;
use model::ContainerName;

/// The other end of a connection, as the kernel told at accept time.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Process, in our numbers; `None` when it is not visible from here.
    pub pid: Option<u32>,
    /// User.
    pub uid: u32,
    /// The connected socket, for what only the kernel knows (`SO_PEERPIDFD`).
    pub socket: BorrowedFd<'a>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A process of the host, outside every container.
    Host {
        /// Its user.
        uid: u32,
    },
    /// A process of a container.
    Container(ContainerName),
    /// A process that belongs to something that the device does not know.
    Unknown,
}

/// Tells callers apart; given by the daemon.
pub trait Identify: Send + Sync + 'static {
    /// Who this is. Called once for each connection, from the accepting task: it must not wait long.
    fn caller(&self, peer: &Peer<'_>) -> Caller;
}

/// What a caller may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Signal, and what is its own.
    Own,
    /// Read everything.
    Monitor,
    /// Everything.
    Mgmt,
}

/// What this caller may now; `None` when it is not known to the running revision.
pub fn rights(caller: &Caller, view: &View) -> Option<Rights> {
    match caller {
        Caller::Host { uid: 0 } => Some(Rights::Mgmt),
        Caller::Host { uid: _ } => Some(Rights::Own),
        Caller::Unknown => None,
        Caller::Container(name) => {
            let container = view
                .containers
                .iter()
                .find(|container| container.name == *name)?;
            Some(if container.roles.contains(&"mgmt") {
                Rights::Mgmt
            } else if container.roles.contains(&"monitor") {
                Rights::Monitor
            } else {
                Rights::Own
            })
        }
    }
}

/// Checks a caller against a route.
///
/// # Errors
/// Pantavisor's texts: they differ between routes with and without parameters.
pub fn check(caller: &Caller, view: &View, found: &Match<'_>) -> Result<(), Problem> {
    let route = found.route;
    let plain = matches!(route.style, Style::Plain);
    let Some(rights) = rights(caller, view) else {
        let text = if plain {
            "Internal Error"
        } else {
            "Internal error, unknown caller"
        };
        let status = match route.shape {
            Shape::Pantavisor => 500,
            Shape::Ours => 403,
        };
        let detail = "the caller is neither the host nor a container of the running revision";
        return Err(Problem::new(Code::UnknownCaller, detail)
            .pantavisor(text)
            .status(status));
    };
    let (needed, allowed) = match route.access {
        Access::Anyone => return Ok(()),
        Access::Own => {
            let own = match (caller, found.params.segments.first()) {
                (Caller::Container(name), Some(segment)) => name.as_str() == segment.as_ref(),
                (Caller::Container(_) | Caller::Host { .. } | Caller::Unknown, _) => false,
            };
            ("monitor", own || rights >= Rights::Monitor)
        }
        Access::Monitor => ("monitor", rights >= Rights::Monitor),
        Access::Mgmt => ("mgmt", rights >= Rights::Mgmt),
    };
    if allowed {
        return Ok(());
    }
    let text = if plain {
        "Request not sent from a mgmt platform"
    } else {
        "Request not sent from mgmt platform"
    };
    Err(
        Problem::new(Code::NotAllowed, format!("this needs the role {needed}"))
            .pantavisor(text)
            .remedy("give the container the role in its run.json, or ask as root of the host"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::view;
    use api::Method;

    #[test]
    fn rights_follow_the_running_revision() {
        let view = view();
        let container = |name: &str| Caller::Container(name.parse().unwrap());
        for (caller, expected) in [
            (Caller::Host { uid: 0 }, Some(Rights::Mgmt)),
            (Caller::Host { uid: 1000 }, Some(Rights::Own)),
            (Caller::Unknown, None),
            (container("pvr-sdk"), Some(Rights::Mgmt)),
            (container("web"), Some(Rights::Own)),
            (container("gone"), None),
        ] {
            assert_eq!(rights(&caller, &view), expected, "{caller:?}");
        }
    }

    #[test]
    fn texts_as_recorded() {
        let view = view();
        let web = Caller::Container("web".parse().unwrap());
        let told = |caller: &Caller, method, target| {
            let found = api::routes::find(method, target).unwrap();
            check(caller, &view, &found).map_err(|problem| (problem.status, problem.pantavisor))
        };
        let refused = |status, text: &str| Err((status, text.to_owned()));
        assert_eq!(
            told(&web, Method::Get, "/containers"),
            refused(403, "Request not sent from a mgmt platform")
        );
        assert_eq!(
            told(&web, Method::Get, "/steps/0"),
            refused(403, "Request not sent from mgmt platform")
        );
        assert_eq!(
            told(&Caller::Unknown, Method::Post, "/signal"),
            refused(500, "Internal Error")
        );
        assert_eq!(
            told(&Caller::Unknown, Method::Get, "/steps/0"),
            refused(500, "Internal error, unknown caller")
        );
        assert_eq!(told(&web, Method::Post, "/signal"), Ok(()));
        assert_eq!(told(&web, Method::Get, "/logs/web"), Ok(()));
        assert!(told(&web, Method::Get, "/logs/pvr-sdk").is_err());
    }
}
