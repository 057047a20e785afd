//! How a container is asked whether it is well, and how it is stopped.

use std::time::Duration;

use super::json::{Data, Node};
use super::oci::read_command;
use super::problems::{Reader, Shown, suggestion};
use crate::container::{Health, Probe};
use crate::{limits, signal};

/// Every field of `health`; the first four are questions.
pub(super) const FIELDS: [&str; 8] = [
    "exec",
    "http",
    "tcp",
    "ready",
    "interval",
    "timeout",
    "retries",
    "start-period",
];

/// `health`.
pub(super) fn read_health<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<Health> {
    reader.object(node)?;
    reader.only(node, &FIELDS);
    let probes: Vec<&str> = FIELDS[..4]
        .iter()
        .copied()
        .filter(|name| node.get(name).is_some())
        .collect();
    let probe = match probes.as_slice() {
        ["exec"] => node
            .get("exec")
            .and_then(|node| read_command(reader, node))
            .map(Probe::Exec),
        ["http"] => node.get("http").and_then(|node| read_http(reader, node)),
        ["tcp"] => node
            .get("tcp")
            .and_then(|node| read_port(reader, node))
            .map(|port| Probe::Tcp { port }),
        // The READY signal alone: there is nothing to ask.
        ["ready"] => {
            node.get("ready").and_then(|node| reader.flag(node));
            None
        }
        _ => {
            reader.report(
                node,
                "bad-health",
                format_args!("the health check has {} questions", probes.len()),
                format_args!("give exactly one of \"exec\", \"http\", \"tcp\", \"ready\""),
            );
            None
        }
    };
    let mut time = |name: &str, default: u64| {
        let given = node
            .get(name)
            .and_then(|node| reader.duration(node).map(|time| (node, time)));
        match given {
            // A pause of nothing would ask without end.
            Some((node, Duration::ZERO)) if name != "start-period" => {
                reader.report(
                    node,
                    "out-of-range",
                    format_args!("the {name} is zero"),
                    format_args!("use at least \"1ms\""),
                );
                Duration::from_secs(default)
            }
            Some((_, time)) => time,
            None => Duration::from_secs(default),
        }
    };
    let (interval, timeout, start_period) = (
        time("interval", 10),
        time("timeout", 5),
        time("start-period", 0),
    );
    let retries = node
        .get("retries")
        .and_then(|node| reader.whole(node, 1, 1_000));
    Some(Health {
        probe: probe?,
        interval,
        timeout,
        retries: retries
            .and_then(|retries| u32::try_from(retries).ok())
            .unwrap_or(3),
        start_period,
    })
}

fn read_port<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<u16> {
    let node = match &node.data {
        Data::Object(_) => {
            reader.only(node, &["port", "path"]);
            node.get("port").unwrap_or(node)
        }
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::List(_) => node,
    };
    reader
        .whole(node, 1, 65_535)
        .and_then(|port| u16::try_from(port).ok())
}

fn read_http<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<Probe> {
    reader.object(node)?;
    let port = read_port(reader, node);
    let path = match node.get("path") {
        None => Some("/"),
        Some(path) => {
            let text = reader.text(path)?;
            let is_clean = text.starts_with('/')
                && text.len() <= limits::KEY_BYTES_MAX
                && text.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_clean {
                reader.report(
                    path,
                    "bad-path",
                    format_args!("{} is no path of a URL", Shown(text)),
                    format_args!("use one such as \"/healthz\""),
                );
            }
            is_clean.then_some(text)
        }
    };
    Some(Probe::Http {
        port: port?,
        path: path?.to_owned(),
    })
}

/// A signal by name (`TERM`, `SIGTERM`, `RTMIN+3`) or number.
pub(super) fn read_signal<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<u32> {
    let Data::Text(text) = &node.data else {
        return reader
            .whole(node, 1, 64)
            .and_then(|number| u32::try_from(number).ok());
    };
    let number = signal::number(text);
    if number.is_none() {
        let remedy = suggestion(
            text.trim_start_matches("SIG"),
            signal::NAMES.iter().copied(),
        );
        reader.report(
            node,
            "unknown-signal",
            format_args!("there is no signal {}", Shown(text)),
            format_args!("{remedy}"),
        );
    }
    number
}
