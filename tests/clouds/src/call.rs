//! HTTP calls of an operator and of simulated devices: over the standard library, with nothing of the code under test.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use acceptance::http::{Answer, parse};
use serde_json::Value;

/// Calls `http://host:port` + `target`.
///
/// # Errors
/// In words.
pub fn call(
    server: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, String> {
    let said = |error: std::io::Error| format!("{method} {server}{target}: {error}");
    let rest = server
        .strip_prefix("http://")
        .ok_or_else(|| format!("{server} is not http://host:port"))?;
    let (host, folder) = match rest.split_once('/') {
        Some((host, folder)) => (host, format!("/{folder}")),
        None => (rest, String::new()),
    };
    let mut stream = TcpStream::connect(host).map_err(said)?;
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).map_err(said)?;
    let mut head = format!(
        "{method} {folder}{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).map_err(said)?;
    stream.write_all(body).map_err(said)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(said)?;
    parse(&bytes).map_err(said)
}

/// A call with a JSON body (none for `null`) whose answer must be good.
///
/// # Errors
/// In words, with what the server said.
pub fn json(
    server: &str,
    method: &str,
    target: &str,
    authorization: &str,
    body: &Value,
) -> Result<Value, String> {
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let mut headers = vec![
        ("Accept", "application/json"),
        ("Authorization", authorization),
    ];
    if !body.is_null() {
        headers.push(("Content-Type", "application/json"));
    }
    let answer = call(server, method, target, &headers, text.as_bytes())?;
    if !(200..300).contains(&answer.status) {
        return Err(format!(
            "{method} {target} with {text}: {} {}",
            answer.status,
            answer.text()
        ));
    }
    Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
}

/// A multipart form with one file in the field `file`.
///
/// # Errors
/// In words.
pub fn upload(
    server: &str,
    method: &str,
    target: &str,
    authorization: &str,
    name: &str,
    bytes: &[u8],
) -> Result<Value, String> {
    let mark = "coxswain-test-boundary";
    let mut body = format!(
        "--{mark}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(format!("\r\n--{mark}--\r\n").as_bytes());
    let kind = format!("multipart/form-data; boundary={mark}");
    let headers = [
        ("Authorization", authorization),
        ("Content-Type", kind.as_str()),
    ];
    let answer = call(server, method, target, &headers, &body)?;
    if !(200..300).contains(&answer.status) {
        return Err(format!(
            "upload of {name}: {} {}",
            answer.status,
            answer.text()
        ));
    }
    Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
}
