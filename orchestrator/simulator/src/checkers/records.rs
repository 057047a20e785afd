//! The marker and the progress files as an outsider reads them: a parser of its own, so that a mistake in the store's cannot hide.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::RevisionId;
use serde_json::Value;

/// Where the marker may be.
pub const MARKERS: [&str; 2] = ["boot/marker", "boot/marker.copy"];

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MarkerRecord {
    /// Grows with each write.
    pub sequence: u64,
    /// The revision to boot.
    pub committed: Option<RevisionId>,
    /// The one before it.
    pub previous: Option<RevisionId>,
    /// The revision being tried.
    pub trial: Option<RevisionId>,
    /// Tries that it has left.
    pub tries_left: u32,
    /// How many manifests failed.
    pub failed: usize,
}

/// The newer one of two copies that can be read.
pub fn marker(copies: &[Option<Arc<[u8]>>; 2]) -> Option<MarkerRecord> {
    let read = copies
        .iter()
        .flatten()
        .filter_map(|bytes| read_marker(bytes));
    read.max_by_key(|marker| marker.sequence)
}

fn read_marker(bytes: &[u8]) -> Option<MarkerRecord> {
    let from = bytes.iter().position(|byte| *byte == b'{')?;
    let value = serde_json::Deserializer::from_slice(&bytes[from..])
        .into_iter::<Value>()
        .next()?
        .ok()?;
    let body = value.get("marker").unwrap_or(&value);
    let name = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    let trial = &body["trial"];
    Some(MarkerRecord {
        sequence: body["sequence"].as_u64()?,
        committed: name(&body["committed"]),
        previous: name(&body["previous"]),
        trial: name(&trial["revision"]),
        tries_left: u32::try_from(trial["tries_left"].as_u64().unwrap_or(0)).ok()?,
        failed: body["failed"].as_array().map_or(0, Vec::len),
    })
}

/// Claims that are kept: client by number. None when the file is not there or cannot be read.
pub fn claims(image: &dyn super::Image) -> BTreeMap<u64, String> {
    let body = image.file("boot/claims");
    let body: Value = body
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let claims = body["claims"].as_array().into_iter().flatten();
    claims
        .filter_map(|claim| Some((claim["id"].as_u64()?, claim["client"].as_str()?.to_owned())))
        .collect()
}

/// The progress of one revision on the disk.
#[derive(Debug, Clone, Default)]
pub struct ProgressRecord {
    path: String,
    bytes: Option<Arc<[u8]>>,
    /// Status, in Pantavisor's words; empty when there is none.
    pub status: String,
    /// Message.
    pub message: String,
    /// 0 to 100.
    pub percent: u64,
    /// Why it cannot be read, if it cannot.
    pub unreadable: Option<String>,
}

impl ProgressRecord {
    pub(super) fn update(&mut self, revision: &RevisionId, image: &dyn super::Image) {
        if self.path.is_empty() {
            self.path = format!("trails/{revision}/.pv/progress");
        }
        let bytes = image.file(&self.path);
        let same = match (&self.bytes, &bytes) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if same {
            return;
        }
        *self = Self {
            path: std::mem::take(&mut self.path),
            ..Self::default()
        };
        if let Some(bytes) = &bytes {
            match serde_json::from_slice::<Value>(bytes) {
                Ok(value) => {
                    self.status = value["status"].as_str().unwrap_or("").to_owned();
                    self.message = value["status-msg"].as_str().unwrap_or("").to_owned();
                    self.percent = value["progress"].as_u64().unwrap_or(0);
                }
                Err(error) => self.unreadable = Some(error.to_string()),
            }
        }
        self.bytes = bytes;
    }

    /// Whether there is a record.
    pub fn exists(&self) -> bool {
        self.bytes.is_some()
    }

    /// Whether nothing more comes by itself.
    pub fn is_final(&self) -> bool {
        matches!(
            self.status.as_str(),
            "UPDATED" | "DONE" | "WONTGO" | "ERROR"
        )
    }

    /// Whether it failed.
    pub fn is_failed(&self) -> bool {
        matches!(self.status.as_str(), "WONTGO" | "ERROR")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_readable_marker_counts() {
        let bytes = |text: &str| Some(Arc::from(text.as_bytes()));
        let one = r#"{"sequence":4,"committed":"0","previous":null,"trial":null,"failed":[],"generations_reserved":1}"#;
        let two = r#"{"sequence":5,"committed":"0","trial":{"revision":"locals/a","tries_left":2,"by_reboot":false},"failed":[]}"#;
        let marker_of = |one, two| marker(&[one, two]).unwrap();
        assert_eq!(marker_of(bytes(one), bytes(two)).tries_left, 2);
        assert_eq!(marker_of(bytes(one), bytes(&two[..60])).sequence, 4);
        assert_eq!(marker(&[None, bytes("nonsense")]), None);
    }
}
