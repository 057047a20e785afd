//! What the machine tells about itself in the device metadata, in Pantavisor's keys and form (reference, section 8.1). Read when it
//! is asked for; what a machine does not offer is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::net::if_::InterfaceFlags;
use serde_json::Value;

/// Bytes of a name that the firmware gives.
const MODEL_BYTES_MAX: usize = 256;

/// Reads the machine.
#[derive(Debug)]
pub struct Facts {
    storage: PathBuf,
    reserve_percent: u64,
    /// They cannot change while the kernel runs.
    models: OnceLock<Models>,
}

#[derive(Debug)]
struct Models {
    cpu: Option<String>,
    board: Option<String>,
}

impl Facts {
    /// Of this machine, with the space of this folder's file system, of which uploads leave `reserve_percent` free.
    pub fn new(storage: &Path, reserve_percent: u64) -> Self {
        Self {
            storage: storage.to_owned(),
            reserve_percent,
            models: OnceLock::new(),
        }
    }

    /// Keys with their values as they are now, in Pantavisor's order.
    pub fn now(&self) -> Vec<(&'static str, String)> {
        let models = self.models.get_or_init(|| Models {
            cpu: fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| cpu_model(&text)),
            board: fs::read("/proc/device-tree/model")
                .ok()
                .and_then(|bytes| plain(&bytes)),
        });
        let facts = [
            ("storage", self.storage()),
            ("interfaces", Some(interfaces())),
            ("sysinfo", Some(sysinfo())),
            ("time", Some(time())),
            ("pantavisor.uname", Some(uname())),
            ("pantavisor.dtmodel", models.board.clone()),
            ("pantavisor.cpumodel", models.cpu.clone()),
        ];
        facts
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }

    fn storage(&self) -> Option<String> {
        let stat = rustix::fs::statvfs(&self.storage).ok()?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let reserved = total / 100 * self.reserve_percent;
        Some(object([
            ("total", total),
            ("free", free),
            ("reserved", reserved),
            ("real_free", free.saturating_sub(reserved)),
        ]))
    }
}

/// A JSON object with its keys in this order: Pantavisor's, which its clients see.
fn object<K: Into<String>, V: Into<Value>>(pairs: impl IntoIterator<Item = (K, V)>) -> String {
    let mut text = String::from("{");
    for (key, value) in pairs {
        if text.len() > 1 {
            text.push(',');
        }
        let (key, value): (Value, Value) = (key.into().into(), value.into());
        text.push_str(&format!("{key}:{value}"));
    }
    text.push('}');
    text
}

fn sysinfo() -> String {
    let info = rustix::system::sysinfo();
    let loads = info.loads.into_iter().enumerate();
    let loads = loads.map(|(index, load)| (format!("loads.{index}"), Value::from(load)));
    let memory = [
        ("totalram", info.totalram),
        ("freeram", info.freeram),
        ("sharedram", info.sharedram),
        ("bufferram", info.bufferram),
        ("totalswap", info.totalswap),
        ("freeswap", info.freeswap),
        ("procs", info.procs.into()),
        ("totalhigh", info.totalhigh),
        ("freehigh", info.freehigh),
        ("mem_unit", info.mem_unit.into()),
    ];
    let memory = memory.map(|(name, value)| (name.to_owned(), Value::from(value)));
    let uptime = ("uptime".to_owned(), Value::from(info.uptime));
    object(std::iter::once(uptime).chain(loads).chain(memory))
}

fn time() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (seconds, micros) = (now.as_secs(), now.subsec_micros());
    // The kernel's own time zone, which has been 0 for decades.
    format!(
        r#"{{"timeval":{{"tv_sec":{seconds},"tv_usec":{micros}}},"timezone":{{"tz_minuteswest":0,"tz_dsttime":0}}}}"#
    )
}

fn uname() -> String {
    let uname = rustix::system::uname();
    let parts = [
        ("kernel.name", uname.sysname()),
        ("kernel.release", uname.release()),
        ("kernel.version", uname.version()),
        ("node.name", uname.nodename()),
        ("machine", uname.machine()),
    ];
    object(parts.map(|(name, part)| (name, part.to_string_lossy().into_owned())))
}

/// Addresses of an interface, each list in the kernel's order.
#[derive(Debug, Default)]
struct Addresses {
    mac: Vec<String>,
    v4: Vec<String>,
    v6: Vec<String>,
}

fn interfaces() -> String {
    let mut order: Vec<String> = Vec::new();
    let mut known: BTreeMap<String, Addresses> = BTreeMap::new();
    // Without a list of interfaces there are none to tell.
    let listed = nix::ifaddrs::getifaddrs().into_iter().flatten();
    for one in listed {
        let name = one.interface_name;
        if !order.contains(&name) {
            order.push(name.clone());
        }
        let addresses = known.entry(name.clone()).or_default();
        let Some(address) = one.address else {
            continue;
        };
        if let Some(v4) = address.as_sockaddr_in() {
            addresses.v4.push(v4.ip().to_string());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            let scope = if v6.ip().is_unicast_link_local() {
                format!("%{name}")
            } else {
                String::new()
            };
            addresses.v6.push(format!("{}{scope}", v6.ip()));
        } else if let Some(link) = address.as_link_addr()
            && !one.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            && let Some(mac) = link.addr()
            && mac != [0; 6]
        {
            let bytes = mac.map(|byte| format!("{byte:02x}"));
            addresses.mac.push(bytes.join(":"));
        }
    }
    rendered(&order, known)
}

fn rendered(order: &[String], mut known: BTreeMap<String, Addresses>) -> String {
    let mut pairs = Vec::new();
    for name in order {
        let addresses = known.remove(name).unwrap_or_default();
        for (kind, list) in [
            ("mac", addresses.mac),
            ("ipv4", addresses.v4),
            ("ipv6", addresses.v6),
        ] {
            if !list.is_empty() {
                pairs.push((format!("{name}.{kind}"), list));
            }
        }
    }
    object(pairs)
}

/// `model name` of x86, `Model` or `Processor` of others.
fn cpu_model(text: &str) -> Option<String> {
    let field = |wanted: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == wanted).then(|| value.trim().to_owned())
        })
    };
    ["model name", "cpu model", "Processor", "Model", "isa"]
        .into_iter()
        .find_map(field)
        .and_then(|model| plain(model.as_bytes()))
}

/// Text of the firmware without the NUL at its end; short, and nothing that is no text.
fn plain(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let text: String = text
        .chars()
        .filter(|char| !char.is_control())
        .take(MODEL_BYTES_MAX)
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_pantavisors_keys() {
        let facts: BTreeMap<_, _> = Facts::new(Path::new("/"), 5).now().into_iter().collect();
        let value = |key: &str| -> Value { serde_json::from_str(&facts[key]).unwrap() };
        let storage = value("storage");
        let number = |name: &str| storage[name].as_u64().unwrap();
        assert!(number("total") > 0);
        assert_eq!(number("reserved"), number("total") / 100 * 5);
        assert!(number("real_free") <= number("free"));
        assert_eq!(value("interfaces")["lo.ipv4"][0], "127.0.0.1");
        assert!(value("interfaces").get("lo.mac").is_none());
        assert_eq!(value("sysinfo").as_object().unwrap().len(), 14);
        assert!(value("sysinfo")["uptime"].as_u64().unwrap() > 0);
        assert!(value("time")["timeval"]["tv_sec"].as_u64().unwrap() > 1_700_000_000);
        assert_eq!(value("pantavisor.uname")["kernel.name"], "Linux");
        assert!(!facts["pantavisor.cpumodel"].is_empty());
    }

    #[test]
    fn models_of_several_architectures() {
        for (text, expected) in [
            (
                "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n",
                Some("Some CPU @ 2 GHz"),
            ),
            (
                "processor : 0\nBogoMIPS : 1\n\nModel : Raspberry Pi 4\n",
                Some("Raspberry Pi 4"),
            ),
            ("isa : rv64imafdc\n", Some("rv64imafdc")),
            ("nothing here", None),
        ] {
            assert_eq!(cpu_model(text).as_deref(), expected, "{text}");
        }
        assert_eq!(plain(b"Some Board\0").as_deref(), Some("Some Board"));
        assert_eq!(plain(b"\0"), None);
    }

    #[test]
    fn order_of_an_interface() {
        let eth = Addresses {
            mac: vec!["36:d3:9e:ef:fb:ec".to_owned()],
            v4: vec!["10.0.3.1".to_owned()],
            v6: vec!["fe80::1%eth0".to_owned()],
        };
        let order = ["eth0".to_owned(), "down0".to_owned()];
        let known = BTreeMap::from([("eth0".to_owned(), eth)]);
        assert_eq!(
            rendered(&order, known),
            r#"{"eth0.mac":["36:d3:9e:ef:fb:ec"],"eth0.ipv4":["10.0.3.1"],"eth0.ipv6":["fe80::1%eth0"]}"#
        );
    }
}
