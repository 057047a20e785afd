//! What a server offers, as `link` understands it: files with their hashes and links, and when what may be done.

use link::offer::{Artifact, Credentials, DeploymentId, Gate, Hashes, Link, Offer};
use link::web::Address;

use crate::ddi::{Chunk, Deployment, File, Handling, Window};
use crate::settings::encode;

/// Metadata key of a module whose values are rules for plain artifacts.
pub const MAP_KEY: &str = "coxswain.map";

/// A deployment as an offer. Links to the server's own origin get the credentials, others none.
///
/// # Errors
/// In words: the deployment is refused with them.
pub fn offer(
    deployment: &Deployment,
    server: &Address,
    credentials: Option<&Credentials>,
) -> Result<Offer, String> {
    let id: DeploymentId = deployment
        .id
        .as_str()
        .parse()
        .map_err(|error| format!("action {}: {error}", deployment.id))?;
    let mut artifacts = Vec::new();
    for chunk in &deployment.chunks {
        for file in &chunk.files {
            artifacts.push(artifact(chunk, file, server, credentials)?);
        }
    }
    let mut offer = Offer::new(id, artifacts);
    offer.title = Some(title(&deployment.chunks)).filter(|title| !title.is_empty());
    (offer.download, offer.install) = gates(deployment);
    let map = deployment.chunks.iter().flat_map(|chunk| &chunk.metadata);
    offer.map = map
        .filter(|(key, _)| key == MAP_KEY)
        .flat_map(|(_, value)| value.split(','))
        .map(|rule| rule.trim().to_owned())
        .filter(|rule| !rule.is_empty())
        .collect();
    Ok(offer)
}

/// Why nothing is done about a word of a server that is newer than this client.
const UNKNOWN: &str = "the server says when with a word that is not known here";

/// Whether to fetch and whether to install.
fn gates(deployment: &Deployment) -> (Gate, Gate) {
    let wait = |reason: &str| Gate::Wait {
        reason: reason.to_owned(),
    };
    let download = match deployment.download {
        // Soft: the device may fetch when it likes, and it likes.
        Handling::Forced | Handling::Attempt => Gate::Now,
        Handling::Skip => wait("the server does not allow the download yet"),
        Handling::Unknown => wait(UNKNOWN),
    };
    let install = match (deployment.update, deployment.window) {
        (Handling::Forced, _) => Gate::Now,
        (Handling::Attempt, _) => Gate::Ask,
        (Handling::Skip, Some(Window::Closed)) => wait("the maintenance window is closed"),
        (Handling::Skip, Some(Window::Open)) => wait("the server does not allow it yet"),
        (Handling::Skip, None) if deployment.is_download_only() => Gate::Never,
        (Handling::Skip, None) => wait("the server does not allow it yet"),
        (Handling::Unknown, _) => wait(UNKNOWN),
    };
    (download, install)
}

fn title(chunks: &[Chunk]) -> String {
    let names = chunks.iter().map(|chunk| {
        format!("{} {}", chunk.name, chunk.version)
            .trim()
            .to_owned()
    });
    let all: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    all.join(", ").chars().take(200).collect()
}

fn artifact(
    chunk: &Chunk,
    file: &File,
    server: &Address,
    credentials: Option<&Credentials>,
) -> Result<Artifact, String> {
    let mut links = Vec::new();
    for (_, href) in &file.links {
        let href = mended(href, &file.name);
        // One bad link beside good ones is no harm.
        let Ok(address) = server.join(&href) else {
            continue;
        };
        let own = address.origin() == server.origin();
        links.push(Link {
            url: format!("{}{}", address.origin(), address.path()),
            credentials: credentials.filter(|_| own).cloned(),
        });
    }
    if links.is_empty() {
        return Err(format!(
            "file {:?} of module {:?} has no link that can be followed",
            file.name, chunk.name
        ));
    }
    Ok(Artifact {
        module: chunk.name.clone(),
        name: file.name.clone(),
        bytes: file.bytes,
        hashes: Hashes {
            sha256: hash(file, "sha256", file.sha256.as_deref())?.map(model::ObjectId::from_digest),
            sha1: hash(file, "sha1", file.sha1.as_deref())?,
            md5: hash(file, "md5", file.md5.as_deref())?,
        },
        links,
    })
}

fn hash<const BYTES: usize>(
    file: &File,
    kind: &str,
    text: Option<&str>,
) -> Result<Option<[u8; BYTES]>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let mut bytes = [0; BYTES];
    let good = text.len() == 2 * BYTES
        && text.is_ascii()
        && bytes.iter_mut().enumerate().all(|(at, byte)| {
            let digits = u8::from_str_radix(&text[2 * at..2 * at + 2], 16);
            digits.map(|value| *byte = value).is_ok()
        });
    if good {
        return Ok(Some(bytes));
    }
    Err(format!(
        "file {:?} has a {kind} that is none: {text:?}",
        file.name
    ))
}

/// A link with its file's name encoded as it must be: hawkBit writes a space as `+`, and does not find it by that.
fn mended(href: &str, name: &str) -> String {
    let (path, query) = match href.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (href, None),
    };
    let Some((folder, last)) = path.rsplit_once('/') else {
        return href.to_owned();
    };
    if decoded(&last.replace('+', " ")) != name && decoded(last) != name {
        return href.to_owned();
    }
    let mended = format!("{folder}/{}", encode(name));
    match query {
        Some(query) => format!("{mended}?{query}"),
        None => mended,
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(inner: &str) -> Deployment {
        let text = format!(r#"{{"id":"8","deployment":{inner}}}"#);
        Deployment::parse(text.as_bytes()).expect("a deployment")
    }

    #[test]
    fn what_may_be_done_when() {
        let wait = |reason: &str| Gate::Wait {
            reason: reason.to_owned(),
        };
        let closed = || wait("the maintenance window is closed");
        for (words, expected) in [
            (
                r#""download":"forced","update":"forced""#,
                (Gate::Now, Gate::Now),
            ),
            (
                r#""download":"attempt","update":"attempt""#,
                (Gate::Now, Gate::Ask),
            ),
            (
                r#""download":"forced","update":"skip""#,
                (Gate::Now, Gate::Never),
            ),
            (
                r#""download":"attempt","update":"skip","maintenanceWindow":"unavailable""#,
                (Gate::Now, closed()),
            ),
            (
                r#""download":"forced","update":"forced","maintenanceWindow":"available""#,
                (Gate::Now, Gate::Now),
            ),
            (
                r#""download":"skip","update":"skip""#,
                (
                    wait("the server does not allow the download yet"),
                    wait("the server does not allow it yet"),
                ),
            ),
            (
                r#""download":"whatever","update":"whatever""#,
                (wait(UNKNOWN), wait(UNKNOWN)),
            ),
            // Not download-only, which would be told as done.
            (
                r#""download":"forced","update":"whatever""#,
                (Gate::Now, wait(UNKNOWN)),
            ),
            (r#""download":"forced""#, (Gate::Now, wait(UNKNOWN))),
        ] {
            let deployment = deployment(&format!(r#"{{{words},"chunks":[]}}"#));
            assert_eq!(gates(&deployment), expected, "{words}");
        }
    }

    #[test]
    fn links_and_who_gets_the_token() {
        let server =
            Address::parse("https://hawkbit.example/DEFAULT/controller/v1/d").expect("one");
        let token = Credentials::authorization("TargetToken s");
        let deployment = deployment(
            r#"{"download":"forced","update":"forced","chunks":[{"part":"os","name":"n","version":"1",
            "metadata":[{"key":"coxswain.map","value":"a=web, b=web/x"}],
            "artifacts":[{"filename":"a b+c.bin","size":5000000000,"hashes":{"sha1":"2b0e0a6a0f450196516c531666249a5dfc235ae5"},
            "_links":{"md5sum-http":{"href":"http://x/m"},"cdn":{"href":"https://cdn.example/x?sig=1"},
            "download-http":{"href":"https://hawkbit.example/m/1/artifacts/a+b%2Bc.bin"}}}]}]}"#,
        );
        let offer = offer(&deployment, &server, Some(&token)).expect("an offer");
        let artifact = &offer.artifacts[0];
        assert_eq!(artifact.bytes, Some(5_000_000_000));
        assert!(artifact.hashes.sha256.is_none() && artifact.hashes.sha1.is_some());
        let urls: Vec<(&str, bool)> = artifact
            .links
            .iter()
            .map(|link| (link.url.as_str(), link.credentials.is_some()))
            .collect();
        assert_eq!(
            urls,
            [
                (
                    "https://hawkbit.example:443/m/1/artifacts/a%20b%2Bc.bin",
                    true
                ),
                ("https://cdn.example:443/x?sig=1", false),
            ]
        );
        assert_eq!(offer.map, ["a=web", "b=web/x"]);
        assert_eq!(offer.title.as_deref(), Some("n 1"));
    }
}
