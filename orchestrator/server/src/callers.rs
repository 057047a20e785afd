//! Who calls, and what they may.
//!
//! Who is asked once, when the connection is accepted: a process that exits and whose number is taken by another one later gains
//! nothing, and a connection that is handed on keeps the rights of the one who made it. What they may is looked up at each request,
//! because the running revision changes. What comes of it for every route stands in `access.md`.

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
    use api::routes::{ROUTES, Route};
    use std::fmt::Write as _;

    /// Kinds of caller, as the head of the table names them.
    fn kinds() -> [(&'static str, Caller); 7] {
        let container = |name: &str| Caller::Container(name.parse().unwrap());
        [
            ("host root", Caller::Host { uid: 0 }),
            ("host user", Caller::Host { uid: 1000 }),
            ("`mgmt`", container("pvr-sdk")),
            ("`monitor`", container("watcher")),
            ("no role", container("web")),
            ("no role, own", container("sensor")),
            ("unknown", Caller::Unknown),
        ]
    }

    /// The path with a name for each parameter; the container that it names is `sensor`.
    fn target(route: &Route) -> String {
        let named = |part: &str| match part {
            "{container}" | "{name}" | "{subject}" => "sensor".to_owned(),
            "{rev}" | "{id}" => "7".to_owned(),
            "{sha256}" => "ab".repeat(32),
            other => other.trim_matches(['{', '}']).to_owned(),
        };
        route
            .path
            .split('/')
            .map(named)
            .collect::<Vec<_>>()
            .join("/")
    }

    #[test]
    fn every_route_has_an_outcome_for_every_caller() {
        let view = view();
        let mut page = "# Who may call what\n\n\
            Made from the table of routes by `UPDATE_EXPECT=1 cargo test -p server`: look at what changes. `own` is a \
            container that the path names; a status is that of the refusal. How callers are told apart stands in \
            [decision 0030](../decisions/0030-who-calls.md).\n\n| |"
            .to_owned();
        for (kind, _) in kinds() {
            write!(page, " {kind} |").unwrap();
        }
        write!(page, "\n|---|{}", "---|".repeat(kinds().len())).unwrap();
        for route in ROUTES {
            let target = target(route);
            let found = api::routes::find(route.method, &target).unwrap();
            assert_eq!(found.route.path, route.path, "{target} is another route's");
            write!(page, "\n| `{} {}` |", route.method.as_str(), route.path).unwrap();
            for (kind, caller) in kinds() {
                let outcome = check(&caller, &view, &found).map_err(|problem| problem.status);
                must_hold(kind, route, outcome);
                match outcome {
                    Ok(()) => page.push_str(" yes |"),
                    Err(status) => write!(page, " {status} |").unwrap(),
                }
            }
        }
        page.push('\n');
        expect_test::expect_file!["../access.md"].assert_eq(&page);
    }

    /// What no change of the table may break.
    fn must_hold(kind: &str, route: &Route, outcome: Result<(), u16>) {
        // A plan is asked for by POST and changes nothing.
        let reads =
            matches!(route.method, Method::Get | Method::Head) || route.path.ends_with("/plan");
        let open = matches!(
            route.path,
            "/signal" | "/healthz" | "/version" | "/openapi.json"
        );
        let expected = match kind {
            "host root" | "`mgmt`" => Some(true),
            "`monitor`" => Some(reads || open),
            "host user" | "no role" => Some(open),
            "no role, own" if open => Some(true),
            // Only reading, and only where the path names the container.
            "no role, own" => (!reads || !route.path.contains('{')).then_some(false),
            _ => Some(false),
        };
        if let Some(expected) = expected {
            let place = format!("{kind}: {} {}", route.method.as_str(), route.path);
            assert_eq!(outcome.is_ok(), expected, "{place}");
        }
    }

    #[test]
    fn rights_follow_the_running_revision() {
        let view = view();
        let container = |name: &str| Caller::Container(name.parse().unwrap());
        for (caller, expected) in [
            (Caller::Host { uid: 0 }, Some(Rights::Mgmt)),
            (Caller::Host { uid: 1000 }, Some(Rights::Own)),
            (Caller::Unknown, None),
            (container("pvr-sdk"), Some(Rights::Mgmt)),
            (container("watcher"), Some(Rights::Monitor)),
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
