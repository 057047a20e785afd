//! Files of modules: who may read them, ranges, conditions. The two releases differ in nearly every corner (recording
//! `artifact-download`), and a client must live with both.

use md5::Digest as _;
use serde_json::json;

use super::records::Artifact;
use super::schedule::{from_http_date, http_date};
use super::wire::{Answer, Fault, Good, Request, Response, decode};
use super::{Hawkbit, Release};

const BOUNDARY: &str = "THIS_STRING_SEPARATES_MULTIPART";

type Key = (String, String);

/// MD5 as lower-case hexadecimal text.
pub fn md5(bytes: &[u8]) -> String {
    hex(&md5::Md5::digest(bytes))
}

/// SHA-1 as lower-case hexadecimal text.
pub(crate) fn sha1(bytes: &[u8]) -> String {
    hex(&sha1::Sha1::digest(bytes))
}

/// SHA-256 as lower-case hexadecimal text.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a `Range` header comes to.
enum Wanted {
    Whole,
    Parts(Vec<(usize, usize)>),
    Unsatisfiable,
    /// The older release breaks: 500, with this `Content-Range` if any.
    Broken(Option<String>),
}

impl Hawkbit {
    fn module_of(&self, key: &Key, module: &str) -> Result<u64, Fault> {
        let id: u64 = module.parse().map_err(|_| Fault::unreadable())?;
        self.target(key)?;
        if !self.modules.contains_key(&id) {
            return Err(Fault::missing("SoftwareModule", module, json!(id)));
        }
        Ok(id)
    }

    /// The active action of the target that has this module.
    fn action_with(&self, key: &Key, module: u64) -> Option<u64> {
        self.actions
            .values()
            .find(|action| {
                let set = self.sets.get(&action.set);
                action.target == *key
                    && action.active
                    && !action.is_cancelling_or_cancelled()
                    && set.is_some_and(|set| set.modules.contains(&module))
            })
            .map(|action| action.id)
    }

    pub(crate) fn files(&mut self, key: &Key, base: &str, module: &str) -> Answer {
        let id = self.module_of(key, module)?;
        let installed = self.targets[key].installed;
        let has = |set: u64| {
            self.sets
                .get(&set)
                .is_some_and(|set| set.modules.contains(&id))
        };
        let may = self.setup.release == Release::V0_9_0
            || self.action_with(key, id).is_some()
            || installed.is_some_and(has);
        if !may {
            return Err(Fault::not_assigned(id, &key.1));
        }
        Ok(Good::Json(200, json!(self.file_list(base, id))))
    }

    pub(crate) fn file(
        &mut self,
        key: &Key,
        module: &str,
        file: &str,
        request: &Request,
    ) -> Answer {
        let id = self.module_of(key, module)?;
        let name = decode(file);
        let module = &self.modules[&id];
        let find = |name: &str| module.artifacts.iter().find(|a| a.name == name).cloned();
        if let Some(of) = name.strip_suffix(".MD5SUM") {
            let artifact = find(of).ok_or(Fault::Empty(404))?;
            let action = self
                .action_with(key, id)
                .ok_or_else(|| Fault::not_assigned(id, &key.1))?;
            self.downloads(action, &request.path)?;
            let body = format!("{}  {of}", artifact.md5).into_bytes();
            return Ok(Good::Raw(Response {
                status: 200,
                headers: vec![
                    ("Content-Type".into(), "text/plain;charset=UTF-8".into()),
                    ("Content-Length".into(), body.len().to_string()),
                    (
                        "Content-Disposition".into(),
                        format!("attachment;filename={name}"),
                    ),
                ],
                body,
            }));
        }
        let artifact = find(&name).ok_or(Fault::Empty(404))?;
        let fits = |given: &str| {
            given
                .split(',')
                .any(|one| one.trim() == artifact.sha1 || one.trim() == "*")
        };
        if request.header("if-match").is_some_and(|given| !fits(given)) {
            return Err(Fault::Empty(412));
        }
        let ranged = request.header("range").is_some();
        if !(ranged && self.setup.release == Release::V0_9_0) {
            let action = self
                .action_with(key, id)
                .ok_or_else(|| Fault::not_assigned(id, &key.1))?;
            if !ranged {
                self.downloads(action, &request.path)?;
            }
        }
        Ok(Good::Raw(self.bytes_of(&artifact, request)))
    }

    fn bytes_of(&self, artifact: &Artifact, request: &Request) -> Response {
        let old = self.setup.release == Release::V0_9_0;
        let total = artifact.bytes.len();
        let tag = if old {
            artifact.sha1.clone()
        } else {
            format!("\"{}\"", artifact.sha1)
        };
        let mut response = Response::empty(200)
            .with("ETag", tag.clone())
            .with("Accept-Ranges", "bytes")
            .with("Last-Modified", http_date(artifact.stamp.created_at))
            .with(
                "Content-Disposition",
                format!("attachment;filename={}", artifact.name),
            );
        let kind = "application/octet-stream";
        match wanted(request, artifact, &tag, old) {
            Wanted::Whole => {
                if old {
                    response = response.with(
                        "Content-Range",
                        format!("bytes 0-{}/{total}", total.saturating_sub(1)),
                    );
                }
                response = response
                    .with("Content-Type", kind)
                    .with("Content-Length", total.to_string());
                response.body = artifact.bytes.to_vec();
            }
            Wanted::Unsatisfiable => {
                response.status = 416;
                response = response
                    .with("Content-Type", kind)
                    .with("Content-Range", format!("bytes */{total}"))
                    .with("Content-Length", "0");
            }
            Wanted::Broken(range) => {
                response.status = 500;
                response = response
                    .with("Content-Type", kind)
                    .with("Content-Length", "0");
                if let Some(range) = range {
                    response = response.with("Content-Range", range);
                }
            }
            Wanted::Parts(parts) if parts.len() == 1 => {
                let (from, to) = parts[0];
                // The older release calls the whole file 200, range or not.
                response.status = if old && from == 0 && to + 1 == total {
                    200
                } else {
                    206
                };
                response = response
                    .with("Content-Type", kind)
                    .with("Content-Range", format!("bytes {from}-{to}/{total}"))
                    .with("Content-Length", (to + 1 - from).to_string());
                response.body = artifact.bytes[from..=to].to_vec();
            }
            Wanted::Parts(parts) => {
                response.status = 206;
                let body = several(artifact, &parts, old);
                response = response.with(
                    "Content-Type",
                    format!("multipart/byteranges; boundary={BOUNDARY}"),
                );
                response = response.with("Content-Length", body.len().to_string());
                response.body = body;
            }
        }
        response
    }
}

fn several(artifact: &Artifact, parts: &[(usize, usize)], old: bool) -> Vec<u8> {
    let mut body = Vec::new();
    let total = artifact.bytes.len();
    for (from, to) in parts {
        let head = if old {
            format!("\r\n--{BOUNDARY}\r\nContent-Range: bytes {from}-{to}/{total}\r\n")
        } else {
            format!(
                "--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {from}-{to}/{total}\r\n\r\n"
            )
        };
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&artifact.bytes[*from..=*to]);
        if !old {
            body.extend_from_slice(b"\r\n");
        }
    }
    let line = if old { "\r\n" } else { "" };
    body.extend_from_slice(format!("{line}--{BOUNDARY}--").as_bytes());
    body
}

fn wanted(request: &Request, artifact: &Artifact, tag: &str, old: bool) -> Wanted {
    let Some(range) = request.header("range") else {
        return Wanted::Whole;
    };
    if !old && request.method == "HEAD" {
        return Wanted::Whole;
    }
    let list = range.strip_prefix("bytes=").filter(|list| {
        list.split(',').all(|one| {
            one.split_once('-').is_some_and(|(from, to)| {
                from.bytes().chain(to.bytes()).all(|b| b.is_ascii_digit())
            })
        })
    });
    let if_range = request.header("if-range").filter(|given| *given != tag);
    if let Some(given) = if_range {
        let slack = if old { 1000 } else { 0 };
        let fresh = from_http_date(given).is_some_and(|at| at + slack >= artifact.stamp.created_at);
        if !fresh {
            return Wanted::Whole;
        }
    }
    let Some(list) = list else {
        return Wanted::Unsatisfiable;
    };
    let total = i64::try_from(artifact.bytes.len()).unwrap_or(i64::MAX);
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for one in list.split(',') {
        let (from, to) = one.split_once('-').unwrap_or_default();
        let number = |text: &str| (!text.is_empty()).then(|| text.parse::<i64>());
        let (from, to) = match (number(from), number(to)) {
            (Some(Err(_)), _) | (_, Some(Err(_))) if old => return Wanted::Broken(None),
            (Some(Err(_)), _) | (_, Some(Err(_))) | (None, None) => return Wanted::Unsatisfiable,
            (None, Some(Ok(suffix))) => (total - suffix, total - 1),
            (Some(Ok(from)), None) => (from, total - 1),
            (Some(Ok(from)), Some(Ok(to))) => (from, to.min(total - 1)),
        };
        if from > to {
            return Wanted::Unsatisfiable;
        }
        let (Ok(first), Ok(last)) = (usize::try_from(from), usize::try_from(to)) else {
            return if old {
                Wanted::Broken(Some(format!("bytes {from}-{to}/{total}")))
            } else {
                Wanted::Unsatisfiable
            };
        };
        let overlaps = parts.iter().any(|(a, b)| first <= *b && *a <= last);
        if overlaps && !old {
            return Wanted::Unsatisfiable;
        }
        parts.push((first, last));
    }
    Wanted::Parts(parts)
}
