//! `deploymentBase`, `confirmationBase/{id}` and `installedBase`: what is to be installed, and when.

use serde_json::Value;

use super::{ActionId, CHUNKS_MAX, DdiError, json, wrong};

/// What a device may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// At once.
    Forced,
    /// When it suits the device or its user.
    Attempt,
    /// Not (yet).
    Skip,
    /// No word, or one that is not known: it allows nothing, and says nothing about what else is allowed.
    Unknown,
}

impl Handling {
    fn parse(value: &Value) -> Self {
        match value.as_str() {
            Some("forced") => Self::Forced,
            Some("attempt") => Self::Attempt,
            Some("skip") => Self::Skip,
            Some(_) | None => Self::Unknown,
        }
    }
}

/// A maintenance window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// It is open.
    Open,
    /// It is closed.
    Closed,
}

/// A file of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Any text; never a path.
    pub name: String,
    /// Bytes, when told.
    pub bytes: Option<u64>,
    /// Hashes as told, in hexadecimal digits; any may be missing.
    pub sha256: Option<String>,
    /// SHA-1.
    pub sha1: Option<String>,
    /// MD5.
    pub md5: Option<String>,
    /// Relation and address, best first; hash files left out.
    pub links: Vec<(String, String)>,
}

/// A module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its type: `os`, `bApp`, `jvm`, or what the operator made.
    pub part: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its files; there may be none.
    pub files: Vec<File>,
    /// What the operator wrote to it for devices.
    pub metadata: Vec<(String, String)>,
}

/// An update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The action.
    pub id: ActionId,
    /// Whether to fetch.
    pub download: Handling,
    /// Whether to install.
    pub update: Handling,
    /// The maintenance window, if there is one.
    pub window: Option<Window>,
    /// Modules, in no order.
    pub chunks: Vec<Chunk>,
    /// What this device reported before, newest first, when it was asked for.
    pub history: Vec<String>,
}

/// An update that waits for consent.
pub type Confirmation = Deployment;

impl Deployment {
    /// Whether everything is to be fetched and nothing installed, ever.
    pub fn is_download_only(&self) -> bool {
        self.update == Handling::Skip
            && self.window.is_none()
            && matches!(self.download, Handling::Forced | Handling::Attempt)
    }

    /// Reads one of the three resources.
    ///
    /// # Errors
    /// See [`DdiError`].
    pub fn parse(body: &[u8]) -> Result<Self, DdiError> {
        const WHAT: &str = "the server's deployment";
        let value = json(WHAT, body)?;
        let id = match &value["id"] {
            Value::String(text) => ActionId::parse(text),
            Value::Number(number) => ActionId::parse(&number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let id = id.ok_or_else(|| wrong(WHAT, "id", "is missing or no id"))?;
        let inner = ["deployment", "confirmation"]
            .iter()
            .find_map(|name| value.get(name).filter(|inner| inner.is_object()))
            .ok_or_else(|| wrong(WHAT, "deployment", "is missing"))?;
        let chunks = inner["chunks"]
            .as_array()
            .ok_or_else(|| wrong(WHAT, "chunks", "is missing"))?;
        if chunks.len() > CHUNKS_MAX {
            return Err(wrong(WHAT, "chunks", "has more than 1000 entries"));
        }
        let history = value["actionHistory"]["messages"].as_array();
        let history = history.into_iter().flatten().take(100);
        Ok(Self {
            id,
            download: Handling::parse(&inner["download"]),
            update: Handling::parse(&inner["update"]),
            window: match inner["maintenanceWindow"].as_str() {
                None => None,
                Some("available") => Some(Window::Open),
                Some(_) => Some(Window::Closed),
            },
            chunks: chunks.iter().map(chunk).collect::<Result<_, _>>()?,
            history: history
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect(),
        })
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn chunk(value: &Value) -> Result<Chunk, DdiError> {
    let files = value["artifacts"].as_array();
    let metadata = value["metadata"].as_array();
    let metadata = metadata.into_iter().flatten().take(200);
    Ok(Chunk {
        part: text(value, "part"),
        name: text(value, "name"),
        version: text(value, "version"),
        files: files
            .into_iter()
            .flatten()
            .map(file)
            .collect::<Result<_, _>>()?,
        metadata: metadata
            .map(|entry| (text(entry, "key"), text(entry, "value")))
            .collect(),
    })
}

fn file(value: &Value) -> Result<File, DdiError> {
    let name = text(value, "filename");
    if name.is_empty() {
        return Err(wrong("the server's deployment", "filename", "is missing"));
    }
    let hashes = &value["hashes"];
    let hash = |name: &str| hashes[name].as_str().map(str::to_ascii_lowercase);
    Ok(File {
        bytes: value["size"].as_u64(),
        sha256: hash("sha256"),
        sha1: hash("sha1"),
        md5: hash("md5"),
        links: links(value),
        name,
    })
}

/// `download` first, then `download-http`, then whatever a server calls its own.
fn links(value: &Value) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut add = |rel: &str, href: Option<&str>| {
        if let Some(href) = href
            && !rel.starts_with("md5sum")
        {
            found.push((rel.to_owned(), href.to_owned()));
        }
    };
    if let Some(links) = value["_links"].as_object() {
        for (rel, link) in links {
            add(rel, link["href"].as_str());
        }
    }
    for link in value["links"].as_array().into_iter().flatten() {
        add(
            link["rel"].as_str().unwrap_or_default(),
            link["href"].as_str(),
        );
    }
    let rank = |rel: &str| match rel {
        "download" => 0,
        "download-http" => 1,
        _ => 2,
    };
    found.sort_by_key(|(rel, _)| rank(rel));
    found
}
