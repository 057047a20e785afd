//! What goes in and out of the server, as values: a request with its bytes, an answer, and every shape in which hawkBit refuses.
//! Which media type an answer has is decided here and nowhere else.

use serde_json::{Map, Value, json};

/// A request as the server sees it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Method in upper case.
    pub method: String,
    /// Path as sent, percent-encoding kept, without the query.
    pub path: String,
    /// Query without its question mark; empty when there is none.
    pub query: String,
    /// Headers as sent.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name, in any letter case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// A parameter of the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            (found == name).then(|| decode(&value.replace('+', " ")))
        })
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers, `Content-Length` included where the real server sends one.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The first header of this name, in any letter case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A good answer before it is rendered.
#[derive(Debug)]
pub(crate) enum Good {
    /// JSON, or CBOR if asked for.
    Json(u16, Value),
    /// No body.
    Empty(u16),
    /// Anything else.
    Raw(Response),
}

/// A refusal.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A bare status.
    Empty(u16),
    /// hawkBit's own body.
    Known {
        status: u16,
        class: &'static str,
        code: &'static str,
        message: String,
        info: Option<Value>,
    },
    /// The framework's body.
    Framework {
        status: u16,
        error: &'static str,
        allow: Option<&'static str>,
    },
    /// The page of the container below the framework.
    Page,
}

pub(crate) type Answer = Result<Good, Fault>;

const EXCEPTIONS: &str = "org.eclipse.hawkbit.repository.exception.";

fn known(status: u16, class: &'static str, code: &'static str, message: String) -> Fault {
    Fault::Known {
        status,
        class,
        code,
        message,
        info: None,
    }
}

impl Fault {
    pub(crate) fn unreadable() -> Self {
        known(
            400,
            "org.eclipse.hawkbit.rest.exception.MessageNotReadableException",
            "rest.body.notReadable",
            "The given request body is not well formed".to_owned(),
        )
    }

    /// `what` with this identifier does not exist.
    pub(crate) fn missing(what: &'static str, id: &str, info: Value) -> Self {
        Self::Known {
            status: 404,
            class: "EntityNotFoundException",
            code: "repo.entityNotFound",
            message: format!("{what} with given identifier {{{id}}} does not exist."),
            info: Some(json!({"entityId": info, "type": what})),
        }
    }

    pub(crate) fn no_action(id: u64) -> Self {
        Self::missing("Action", &id.to_string(), json!(id))
    }

    pub(crate) fn not_the_targets(action: u64, target: &str) -> Self {
        known(
            404,
            "EntityNotFoundException",
            "repo.entityNotFound",
            format!("Not a valid action ({action}) for target: {target}"),
        )
    }

    pub(crate) fn not_assigned(module: u64, target: &str) -> Self {
        known(
            404,
            "SoftwareModuleNotAssignedToTargetException",
            "repo.entityNotFound",
            format!(
                "No assignment found for SoftwareModule with id {{{module}}} to Target with id {{{target}}}."
            ),
        )
    }

    pub(crate) fn quota(
        status: u16,
        what: &str,
        to: &str,
        id: &str,
        more: usize,
        maximum: usize,
    ) -> Self {
        known(
            status,
            "AssignmentQuotaExceededException",
            "quota.tooManyEntries",
            format!(
                "Quota exceeded: Cannot assign {more} more {what} entities to {to} '{id}'. The maximum is {maximum}."
            ),
        )
    }

    pub(crate) fn of(
        status: u16,
        class: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        known(status, class, code, message.into())
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        Self::Framework {
            status: 405,
            error: "Method Not Allowed",
            allow: Some(allow),
        }
    }

    pub(crate) fn not_found() -> Self {
        Self::Framework {
            status: 404,
            error: "Not Found",
            allow: None,
        }
    }

    fn body(&self, now: &str) -> Option<Value> {
        match self {
            Self::Empty(_) | Self::Page => None,
            Self::Known {
                class,
                code,
                message,
                info,
                ..
            } => {
                let mut body = Map::new();
                let class = if class.contains('.') {
                    (*class).to_owned()
                } else {
                    format!("{EXCEPTIONS}{class}")
                };
                body.insert("exceptionClass".into(), json!(class));
                body.insert(
                    "errorCode".into(),
                    json!(format!("hawkbit.server.error.{code}")),
                );
                body.insert("message".into(), json!(message));
                if let Some(info) = info {
                    body.insert("info".into(), info.clone());
                }
                Some(Value::Object(body))
            }
            Self::Framework { status, error, .. } => {
                Some(json!({"timestamp": now, "status": status, "error": error}))
            }
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Empty(status) | Self::Known { status, .. } | Self::Framework { status, .. } => {
                *status
            }
            Self::Page => 400,
        }
    }
}

/// The media types that the server can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Media {
    /// JSON under this name.
    Json(String),
    /// CBOR.
    Cbor,
}

impl Media {
    /// What an `Accept` header leads to; `None` is 406.
    pub(crate) fn wanted(accept: Option<&str>) -> Option<Self> {
        let hal = || Self::Json("application/hal+json;charset=UTF-8".to_owned());
        let Some(accept) = accept else {
            return Some(hal());
        };
        for one in accept.split(',') {
            let one = one.trim();
            let plain = one.split(';').next().unwrap_or_default().trim();
            match plain {
                "*/*" | "application/*" => return Some(hal()),
                "application/hal+json" | "application/json" => {
                    let name = match one.split(';').find(|p| p.trim().starts_with("charset=")) {
                        Some(charset) => format!("{plain};{}", charset.trim()),
                        None => format!("{plain};charset=UTF-8"),
                    };
                    return Some(Self::Json(name));
                }
                "application/cbor" => return Some(Self::Cbor),
                _ => {}
            }
        }
        None
    }
}

/// Renders an answer. `tagged` says whether the ETag filter stands before this resource.
pub(crate) fn render(answer: Answer, request: &Request, now: &str, tagged: bool) -> Response {
    let media = Media::wanted(request.header("accept"));
    let response = match answer {
        Ok(Good::Raw(response)) => return response,
        Ok(Good::Empty(status)) => Response::empty(status),
        Ok(Good::Json(status, value)) => match media {
            None if request.method != "POST" => {
                return not_acceptable(request);
            }
            None => Response::empty(status),
            Some(Media::Json(name)) => Response {
                status,
                headers: vec![("Content-Type".into(), name)],
                body: value.to_string().into_bytes(),
            },
            Some(Media::Cbor) => Response {
                status,
                headers: vec![(
                    "Content-Type".into(),
                    "application/cbor;charset=UTF-8".into(),
                )],
                body: super::cbor::write(&value),
            },
        },
        Err(fault) => return refuse(&fault, media, now),
    };
    let counts = request.method == "GET" && response.status < 300 && tagged;
    if !counts {
        return response;
    }
    let tag = format!("\"0{}\"", super::download::md5(&response.body));
    let matched = request.header("if-none-match").is_some_and(|given| {
        given
            .split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag)
    });
    if matched {
        return Response::empty(304).with("ETag", tag);
    }
    response.with("ETag", tag)
}

fn not_acceptable(request: &Request) -> Response {
    if request.header("accept").is_some_and(|a| a.contains("html")) {
        return Response {
            status: 406,
            headers: vec![("Content-Type".into(), "text/html;charset=UTF-8".into())],
            body: b"<html><body><h1>Whitelabel Error Page</h1></body></html>".to_vec(),
        };
    }
    Response::empty(406)
}

fn refuse(fault: &Fault, media: Option<Media>, now: &str) -> Response {
    if matches!(fault, Fault::Page) {
        return Response {
            status: 400,
            headers: vec![("Content-Type".into(), "text/html;charset=utf-8".into())],
            body: b"<!doctype html><html lang=\"en\"><head><title>HTTP Status 400 \xe2\x80\x93 Bad Request</title></head></html>".to_vec(),
        };
    }
    let mut response = Response::empty(fault.status());
    if let Some(body) = fault.body(now) {
        if media == Some(Media::Cbor) {
            response = response.with("Content-Type", "application/cbor;charset=UTF-8");
            response.body = super::cbor::write(&body);
        } else {
            response = response.with("Content-Type", "application/json;charset=UTF-8");
            response.body = body.to_string().into_bytes();
        }
    }
    if let Fault::Framework {
        allow: Some(allow), ..
    } = fault
    {
        response = response.with("Allow", *allow);
    }
    response
}

/// Whether the framework's firewall refuses a path before anybody asks what it means: an encoded slash, backslash, semicolon or
/// percent sign, and segments that lead upwards.
pub(crate) fn is_suspicious(path: &str) -> bool {
    let upper = path.to_ascii_uppercase();
    ["%2F", "%5C", "%3B", "%25", ";"]
        .iter()
        .any(|bad| upper.contains(bad))
        || path
            .split('/')
            .any(|segment| matches!(decode(segment).as_str(), "." | ".."))
}

/// Takes percent-encoding away; what is no encoding stays.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Percent-encodes a path segment as the server does for ids; `plus` writes a space as its links to files do.
pub(crate) fn encode(text: &str, plus: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' if plus => out.push('+'),
            b'*' if plus => out.push('*'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                out.push(char::from(byte));
            }
            b'~' if !plus => out.push('~'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
