//! User and device metadata.

use api::call::bad_meta;
use api::messages::pantavisor::metadata_text;
use api::{Code, Problem};
use device::handle::Request;
use model::metadata::{MetaKey, MetaKind};

use super::Asked;
use crate::http1::answer::Answer;

/// Keys that the device tells of itself, in the order in which Pantavisor lists them after those that were set.
const OWN: [&str; 15] = [
    "storage",
    "interfaces",
    "pantavisor.status",
    "sysinfo",
    "time",
    "pantavisor.uname",
    "pantahub.claimed",
    "pantahub.online",
    "pantavisor.mode",
    "pantavisor.revision",
    "pantavisor.dtmodel",
    "pantavisor.cpumodel",
    "pantavisor.version",
    "pantavisor.arch",
    "pantahub.state",
];

type Pairs = Vec<(String, Vec<u8>)>;

pub(super) async fn list(asked: &Asked<'_, '_>, kind: MetaKind) -> Result<Answer, Problem> {
    let view = asked.shared.handle.view();
    Ok(Answer::json(match kind {
        MetaKind::User => metadata_text(&view.user_meta),
        MetaKind::Device => {
            let facts = asked.machine(|machine| machine.facts()).await?;
            metadata_text(&with_facts(&view.device_meta, facts))
        }
    }))
}

/// The loop's pairs, which end with its own keys, and what the machine tells; what somebody set wins.
fn with_facts(pairs: &Pairs, facts: Vec<(&'static str, String)>) -> Pairs {
    let is_own = |pair: &(String, Vec<u8>)| OWN.contains(&pair.0.as_str());
    let set = pairs
        .iter()
        .rposition(|pair| !is_own(pair))
        .map_or(0, |last| last + 1);
    let (set, own) = pairs.split_at(set);
    let facts = facts
        .into_iter()
        .filter(|(key, _)| !pairs.iter().any(|(known, _)| known == key))
        .map(|(key, value)| (key.to_owned(), value.into_bytes()));
    let mut own: Pairs = own.iter().cloned().chain(facts).collect();
    own.sort_by_key(|(key, _)| OWN.iter().position(|own| own == key));
    set.iter().cloned().chain(own).collect()
}

pub(super) async fn put(
    asked: &mut Asked<'_, '_>,
    kind: MetaKind,
    key: MetaKey,
) -> Result<Answer, Problem> {
    // Pantavisor takes no value without a length, hence no chunked one and no empty one; its clients rely on neither.
    if asked.body.announced().unwrap_or(0) == 0 {
        return Err(bad_meta(
            kind,
            "the value is empty or has no Content-Length",
        ));
    }
    let value = asked.whole_body().await?.to_vec();
    asked
        .ask(Request::PutMeta { kind, key, value })
        .await
        .map_err(|problem| worded(problem, kind))?;
    Ok(Answer::done())
}

pub(super) async fn delete(
    asked: &mut Asked<'_, '_>,
    kind: MetaKind,
    key: MetaKey,
) -> Result<Answer, Problem> {
    // As recorded, what the device tells of itself can be removed, and comes back when it is told again: here at once.
    let own = kind == MetaKind::Device && OWN.contains(&key.as_str());
    match asked.ask(Request::DeleteMeta { kind, key }).await {
        Ok(_) => Ok(Answer::done()),
        Err(problem) if own && problem.code == Code::NoSuchMeta => Ok(Answer::done()),
        Err(problem) => Err(worded(problem, kind)),
    }
}

/// Pantavisor's text names the map.
fn worded(problem: Problem, kind: MetaKind) -> Problem {
    if problem.code != Code::NoSuchMeta {
        return problem;
    }
    problem.pantavisor(match kind {
        MetaKind::User => "User meta does not exist",
        MetaKind::Device => "Device meta does not exist",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_in_pantavisors_place_and_do_not_win() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.as_bytes().to_vec());
        let pairs = vec![
            pair("mine", "1"),
            pair("time", "set by somebody"),
            pair("other", "2"),
            pair("pantavisor.arch", "x"),
            pair("pantavisor.mode", "local"),
        ];
        let facts = vec![
            ("time", "{}".to_owned()),
            ("sysinfo", "{}".to_owned()),
            ("storage", "{}".to_owned()),
        ];
        let listed = with_facts(&pairs, facts);
        let keys: Vec<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "mine",
                "time",
                "other",
                "storage",
                "sysinfo",
                "pantavisor.mode",
                "pantavisor.arch"
            ]
        );
        assert_eq!(listed[1].1, b"set by somebody");
        assert!(with_facts(&Vec::new(), Vec::new()).is_empty());
    }
}
