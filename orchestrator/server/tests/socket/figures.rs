//! Figures for monitors, as a strict reader of the OpenMetrics format takes them.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::Bench;
use crate::wire::get;

/// What a text holds: the value of each sample, by its name and labels.
type Samples = BTreeMap<String, f64>;

/// Reads a text as strictly as the format asks; says what is wrong and where.
fn parse(text: &str) -> Result<Samples, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it has no end")?;
    let mut families = BTreeSet::new();
    let mut samples = Samples::new();
    let (mut family, mut kind) = (String::new(), String::new());
    for line in body.lines() {
        let wrong = |what: &str| format!("{what}: {line}");
        if let Some(metadata) = line.strip_prefix("# ") {
            let mut words = metadata.splitn(3, ' ');
            let (keyword, name) = (words.next().unwrap(), words.next().unwrap());
            let value = words.next().ok_or_else(|| wrong("no value"))?;
            match keyword {
                "TYPE" => {
                    if !families.insert(name.to_owned()) {
                        return Err(wrong("a family comes twice"));
                    }
                    (family, kind) = (name.to_owned(), value.to_owned());
                }
                "UNIT" if name.ends_with(&format!("_{value}")) => {}
                "HELP" => {}
                _ => return Err(wrong("bad metadata")),
            }
            if name != family {
                return Err(wrong("metadata of another family"));
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').ok_or_else(|| wrong("no value"))?;
        let name = series.split('{').next().unwrap();
        let suffix = name
            .strip_prefix(&family)
            .ok_or_else(|| wrong("outside of its family"))?;
        let allowed: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => return Err(wrong("unknown type")),
        };
        if !allowed.contains(&suffix) {
            return Err(wrong("bad suffix"));
        }
        labels(series[name.len()..].trim_end()).ok_or_else(|| wrong("bad labels"))?;
        let value: f64 = value.parse().map_err(|_| wrong("bad value"))?;
        if kind == "counter" && (value.is_nan() || value < 0.0) {
            return Err(wrong("a counter below zero"));
        }
        if samples.insert(series.to_owned(), value).is_some() {
            return Err(wrong("a sample comes twice"));
        }
    }
    Ok(samples)
}

/// `{name="value",…}` with every quote and backslash escaped, or nothing.
fn labels(text: &str) -> Option<()> {
    if text.is_empty() {
        return Some(());
    }
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
    loop {
        let (name, after) = rest.split_once("=\"")?;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(good) {
            return None;
        }
        let mut escaped = false;
        let end = after.find(|character| {
            let quote = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            quote
        })?;
        rest = after.get(end + 1..)?;
        if rest.is_empty() {
            return Some(());
        }
        rest = rest.strip_prefix(',')?;
    }
}

#[test]
fn metrics_are_what_a_monitor_reads() {
    let bench = Bench::start();
    for _ in 0..3 {
        assert_eq!(get(&bench.socket, "/containers").status(), 200);
    }
    assert_eq!(get(&bench.socket, "/steps/none").status(), 404);
    let got = get(&bench.socket, "/metrics");
    let media = got.header("Content-Type").unwrap();
    assert_eq!(
        media,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let samples = parse(got.text()).unwrap();
    let calls = |route: &str, class: &str| {
        let labels = format!(r#"method="GET",route="{route}",class="{class}""#);
        samples.get(&format!("coxswain_api_calls_total{{{labels}}}"))
    };
    assert_eq!(calls("/containers", "2xx"), Some(&3.0));
    assert_eq!(calls("/steps/{rev}", "4xx"), Some(&1.0));
    for (series, expected) in [
        ("coxswain_healthy", 1.0),
        (r#"coxswain_container_good{container="web"}"#, 1.0),
        (
            r#"coxswain_container_cpu_seconds_total{container="web"}"#,
            5e-6,
        ),
        ("coxswain_store_objects", 0.0),
    ] {
        assert_eq!(samples.get(series), Some(&expected), "{series}");
    }
    assert!(samples["coxswain_store_free_bytes"] > 0.0);
    // Histograms add up and never fall.
    let labels = r#"method="GET",route="/containers""#;
    let name = "coxswain_api_call_duration_seconds";
    assert_eq!(samples[&format!("{name}_count{{{labels}}}")], 3.0);
    assert_eq!(
        samples[&format!("{name}_bucket{{{labels},le=\"+Inf\"}}")],
        3.0
    );
}

#[test]
fn the_strict_reader_is_strict() {
    for text in [
        "a 1\n",
        "# TYPE a gauge\na 1\n",
        "# TYPE a counter\na 1\n# EOF\n",
        "# TYPE a gauge\n# TYPE b gauge\na 1\n# EOF\n",
        "# TYPE a gauge\na{x=\"\"\"} 1\n# EOF\n",
        "# TYPE a gauge\n# UNIT a seconds\na 1\n# EOF\n",
        "# TYPE a gauge\na 1\na 1\n# EOF\n",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
    assert!(parse("# TYPE a gauge\na{x=\"\\\"\",y=\"\"} 1\n# EOF\n").is_ok());
}

#[test]
fn usage_for_programs() {
    let bench = Bench::start();
    let got = get(&bench.socket, "/usage");
    let usage: model::usage::Usage = serde_json::from_slice(&got.body).unwrap();
    assert_eq!(usage.containers.len(), 1);
    assert!(!got.text().contains("null"), "what is not told is left out");
}
