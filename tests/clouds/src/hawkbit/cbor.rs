//! CBOR as hawkBit's serializer writes it: the same members as JSON, but links as a list. Reading takes what a device sends.

use serde_json::{Map, Value, json};

/// Members of objects (beside the one about auto-confirmation) that have a list of links in CBOR even when it is empty.
const LINKED: &[&str] = &["deployment", "confirmation"];

/// Writes a value.
pub(crate) fn write(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(&shaped(value), &mut bytes).expect("memory takes every byte");
    bytes
}

/// Reads a value; `None` when it is none.
pub fn read(bytes: &[u8]) -> Option<Value> {
    ciborium::from_reader(bytes).ok()
}

fn shaped(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut out = Map::new();
            for (name, member) in members {
                if let (true, Some(links)) = (name == "_links", member.as_object()) {
                    let links = links
                        .iter()
                        .map(|(rel, link)| json!({"rel": rel, "href": link["href"]}));
                    out.insert("links".to_owned(), Value::Array(links.collect()));
                } else {
                    out.insert(name.clone(), shaped(member));
                }
            }
            let linked = LINKED.iter().any(|name| members.contains_key(*name))
                || members.contains_key("activatedAt");
            if linked && !out.contains_key("links") {
                out.insert("links".to_owned(), json!([]));
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.iter().map(shaped).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
