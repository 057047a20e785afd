//! What people tell the client through user metadata, and what the client tells about itself through device metadata.

use std::collections::BTreeMap;

use model::metadata::MetaKind;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Agent, LOOK, Running};
use crate::deployment::line;
use crate::device::Device;
use crate::offer::DeploymentId;

/// What somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Deployments that somebody agrees to, or not.
    pub(super) consents: Vec<(DeploymentId, bool)>,
    /// A poll is wanted whenever this changes.
    pub(super) poll: Option<String>,
}

/// Consents that are read.
const CONSENTS_MAX: usize = 32;

impl Wishes {
    /// From `<client>.consent` (`ID`, `deny:ID`, several by commas) and `<client>.poll`.
    pub(super) fn read(client: &str, meta: &BTreeMap<String, Value>) -> Self {
        let text = |name: &str| {
            let value = meta.get(&format!("{client}.{name}"))?;
            Some(value.as_str()?.to_owned())
        };
        let consents = text("consent").unwrap_or_default();
        let consents = consents.split(',').map(str::trim).filter_map(|word| {
            let (id, given) = match word.strip_prefix("deny:") {
                Some(id) => (id, false),
                None => (word, true),
            };
            Some((id.trim().parse().ok()?, given))
        });
        Self {
            consents: consents.take(CONSENTS_MAX).collect(),
            poll: text("poll"),
        }
    }
}

/// Device metadata as a cloud's attributes: texts as they are, everything else as JSON.
pub(super) fn attributes(meta: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
    meta.iter()
        .map(|(key, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                other @ (Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_)) => other.to_string(),
            };
            (key.clone(), text)
        })
        .collect()
}

/// What was published last.
#[derive(Debug, Default)]
pub(super) struct Published {
    text: String,
    at: Option<Instant>,
}

/// Shortest time between two values that are published: each is a write to flash.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(5);

impl<D: Device> Agent<D> {
    /// Publishes what the client is doing under `<client>.status`, when that has changed.
    pub(super) async fn publish(&mut self, now: &mut Running) {
        if !self.config.flag("publish") || now.published.at.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        let held = self.machine.current();
        let status = json!({
            "deployment": held.map(|held| held.id.as_str()),
            "phase": held.map(|held| held.phase.as_str()),
            "revision": held.and_then(|held| held.revision.as_ref()).map(ToString::to_string),
            "waits-for": held.and_then(|held| held.waits_for.as_deref()).map(line),
            "trouble": held.and_then(|held| held.trouble.as_ref()).map(|trouble| &trouble.summary),
            "problem": now.problem.as_deref().map(line),
            "last": self.machine.record().past.back().map(|past| json!({
                "deployment": past.id.as_str(),
                "phase": past.phase.as_str(),
            })),
            "reports-waiting": self.machine.record().outbox.len(),
            "megabytes-fetched": self.taken_now() >> 20,
        });
        let text = status.to_string();
        if text == now.published.text {
            return;
        }
        let key = format!("{}.status", self.config.client());
        let key = key
            .parse()
            .expect("the name of a client is short and plain");
        let value = text.clone().into_bytes().into();
        match self
            .device
            .put_metadata(MetaKind::Device, &key, value)
            .await
        {
            Ok(()) => {
                now.published.text = text;
                now.published.at = Some(Instant::now());
            }
            Err(error) => {
                tracing::debug!("{error}");
                now.published.at = Some(Instant::now() + LOOK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_leniently() {
        let meta = BTreeMap::from([
            ("hawkbit.consent".to_owned(), json!("8, deny:9,,")),
            ("hawkbit.poll".to_owned(), json!("now")),
            ("kaa.poll".to_owned(), json!("x")),
        ]);
        let wishes = Wishes::read("hawkbit", &meta);
        let shown: Vec<(&str, bool)> = wishes
            .consents
            .iter()
            .map(|(id, given)| (id.as_str(), *given))
            .collect();
        assert_eq!(shown, [("8", true), ("9", false)]);
        assert_eq!(wishes.poll.as_deref(), Some("now"));
        let odd = BTreeMap::from([("hawkbit.consent".to_owned(), json!({"a": 1}))]);
        assert_eq!(Wishes::read("hawkbit", &odd), Wishes::default());
    }
}
