//! Uploads of the operator: one file of a multipart form, and what the server refuses.

use std::sync::Arc;

use super::Hawkbit;
use super::download::{md5, sha1, sha256};
use super::records::{Artifact, Stamp};
use super::wire::{Answer, Fault, Good, Request};

const ARTIFACTS_MAX: usize = 50;

/// Name and bytes of the field `file`.
fn file(request: &Request) -> Option<(String, Vec<u8>)> {
    let kind = request.header("content-type")?;
    let boundary = kind.split_once("boundary=")?.1.trim_matches('"');
    let mark = format!("--{boundary}");
    let body = &request.body;
    let start = find(body, mark.as_bytes(), 0)?;
    let head_end = find(body, b"\r\n\r\n", start)?;
    let head = String::from_utf8_lossy(&body[start..head_end]).into_owned();
    let name = head
        .split_once("filename=\"")?
        .1
        .split_once('"')?
        .0
        .to_owned();
    let end = find(body, format!("\r\n{mark}").as_bytes(), head_end)?;
    Some((name, body.get(head_end + 4..end)?.to_vec()))
}

fn find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    bytes
        .get(from..)?
        .windows(wanted.len())
        .position(|window| window == wanted)
        .map(|at| at + from)
}

impl Hawkbit {
    pub(crate) fn upload(&mut self, module: u64, request: &Request) -> Answer {
        let Some((name, bytes)) = file(request) else {
            return Err(Fault::unreadable());
        };
        let name = request.parameter("filename").unwrap_or(name);
        let found = &self.modules[&module];
        if bytes.is_empty() {
            return Err(Fault::Empty(400));
        }
        if found.locked {
            return Err(Fault::of(
                423,
                "LockedException",
                "locked",
                format!(
                    "JpaSoftwareModule with given identifier {{{module}}} is locked and ADD_ARTIFACT is forbidden!"
                ),
            ));
        }
        if found.artifacts.iter().any(|artifact| artifact.name == name) {
            return Err(Fault::of(
                409,
                "EntityAlreadyExistsException",
                "repo.entityAlreadyExists",
                "File with that name already exists in the Software Module",
            ));
        }
        if found.artifacts.len() >= ARTIFACTS_MAX {
            return Err(Fault::quota(
                self.setup.release.quota_status(),
                "Artifact",
                "SoftwareModule",
                &module.to_string(),
                1,
                ARTIFACTS_MAX,
            ));
        }
        if name.chars().count() > 256 {
            return Err(Fault::of(
                400,
                "jakarta.validation.ConstraintViolationException",
                "repo.constraintViolation",
                "filename size must be between 1 and 256.",
            ));
        }
        let real = sha256(&bytes);
        if let Some(given) = request
            .parameter("sha256sum")
            .filter(|given| *given != real)
        {
            let class = match self.setup.release {
                super::Release::V0_9_0 => "InvalidSHA256HashException",
                super::Release::V1_0_4 => "InvalidSha256HashException",
            };
            return Err(Fault::of(
                400,
                class,
                "artifact.uploadFailed.checksum.sha256.match",
                format!(
                    "The given sha256 hash {given} does not match the calculated sha256 hash {real}"
                ),
            ));
        }
        let artifact = Artifact {
            id: self.next_id("artifact"),
            name,
            sha1: sha1(&bytes),
            md5: md5(&bytes),
            sha256: real,
            bytes: Arc::from(bytes),
            stamp: Stamp::new(&self.setup.user, self.now),
        };
        let shown = self.artifact_view(module, &artifact, request);
        if let Some(module) = self.modules.get_mut(&module) {
            module.artifacts.push(artifact);
        }
        Ok(Good::Json(201, shown))
    }
}
