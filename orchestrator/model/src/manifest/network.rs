//! `network` of a container: the host's, none, or an address of a pool of `device.json`.

use std::net::IpAddr;

use super::groups;
use super::json::Node;
use super::problems::{Reader, Shown, suggestion};
use super::run::Context;
use crate::container::Network;

/// Every field of `network`.
pub(super) const FIELDS: [&str; 5] = ["mode", "pool", "hostname", "ip", "mac"];

/// What `network` says.
pub(super) struct Found {
    pub(super) network: Network,
    /// A fixed address in a pool, with its place.
    pub(super) address: Option<(String, IpAddr, u32)>,
}

/// Reads `network`, which both kinds have.
pub(super) fn read(reader: &mut Reader<'_, '_>, context: &Context<'_>) -> Found {
    let mut found = Found {
        network: Network::Host,
        address: None,
    };
    let Some(node) = reader.root.get("network") else {
        return found;
    };
    if reader.object(node).is_none() {
        return found;
    }
    reader.only(node, &FIELDS);
    let mode = match node.get("mode") {
        Some(mode) => reader.choice(
            mode,
            "unknown-network-mode",
            &[("host", "host"), ("none", "none"), ("pool", "pool")],
        ),
        None if node.get("pool").is_some() => Some("pool"),
        None => Some("host"),
    };
    match mode {
        Some("none") => found.network = Network::None,
        Some("pool") => read_pool_address(reader, node, context, &mut found),
        Some(_) | None => {}
    }
    found
}

fn read_pool_address<'a>(
    reader: &mut Reader<'a, '_>,
    node: &'a Node,
    context: &Context<'_>,
    found: &mut Found,
) {
    let pools = &context.device.pools;
    let Some(name) = node.get("pool") else {
        reader.report(
            node,
            "missing-pool",
            format_args!("the mode \"pool\" needs the name of a pool"),
            format_args!("add \"pool\", a name from network.pools of device.json"),
        );
        return;
    };
    let Some(pool) = reader.text(name) else {
        return;
    };
    let Some(definition) = pools.get(pool) else {
        let remedy = suggestion(pool, pools.keys().map(String::as_str));
        reader.report(
            name,
            "unknown-pool",
            format_args!("device.json has no pool {}", Shown(pool)),
            format_args!("add it to network.pools of device.json; {remedy}"),
        );
        return;
    };
    let address = node.get("ip").and_then(|ip| {
        let address = groups::read_ip(reader, ip)?;
        if !groups::contains(definition.subnet, address) || Some(address) == definition.gateway {
            let (subnet, bits) = definition.subnet;
            reader.report(
                ip,
                "address-outside-pool",
                format_args!("{address} is no free address of the pool"),
                format_args!("use one of {subnet}/{bits} that is not the gateway's"),
            );
        }
        Some((address, ip.at))
    });
    let mac = node.get("mac").and_then(|mac| read_mac(reader, mac));
    found.address = address.map(|(address, at)| (pool.to_owned(), address, at));
    found.network = Network::Pool {
        pool: pool.to_owned(),
        ip: address.map(|(address, _)| address.to_string()),
        mac,
    };
}

fn read_mac<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<String> {
    let text = reader.text(node)?;
    let parts: Vec<&str> = text.split(':').take(7).collect();
    let is_hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let is_unicast = || u8::from_str_radix(parts[0], 16).is_ok_and(|first| first & 1 == 0);
    if parts.len() == 6 && parts.iter().all(is_hex) && is_unicast() {
        return Some(text.to_ascii_lowercase());
    }
    reader.report(
        node,
        "bad-mac",
        format_args!("{} is no hardware address of one device", Shown(text)),
        format_args!("use one such as \"02:00:0a:00:03:14\""),
    );
    None
}
