//! A flat JSON object with the order and the exact text of its values kept: a manifest's order names the order of its containers, and
//! what a patch does not speak of stays byte for byte.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap as _};
use serde_json::value::RawValue;

/// Keys with values, in the order of the text.
#[derive(Debug, Clone, Default)]
pub struct Ordered {
    entries: Vec<(String, Box<RawValue>)>,
}

impl Ordered {
    /// Parses an object. A key that comes twice is an error.
    ///
    /// # Errors
    /// Where and what.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.entries
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value.as_ref())
    }

    /// Keys with values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_ref()))
    }

    /// Replaces a value where it stands, or adds it at the end.
    pub fn set(&mut self, key: &str, value: Box<RawValue>) {
        match self.entries.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// Removes all keys that do not fit.
    pub fn retain(&mut self, fits: impl Fn(&str) -> bool) {
        self.entries.retain(|(key, _)| fits(key));
    }

    /// The text, without white space between the entries.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and values that were parsed serialise")
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries: Vec<(String, Box<RawValue>)> = Vec::new();
                let mut known = std::collections::BTreeSet::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if entries.len() >= model::limits::MANIFEST_KEYS_MAX {
                        return Err(serde::de::Error::custom("it has too many keys"));
                    }
                    if !known.insert(key.clone()) {
                        return Err(serde::de::Error::custom(format_args!(
                            "the key {key:?} comes twice"
                        )));
                    }
                    entries.push((key, value));
                }
                Ok(Ordered { entries })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.entries.len()))?;
        for (key, value) in &self.entries {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_text_stay() {
        let text = br#"{"z":1.50,"a":{"y":1, "x":2},"m":"t"}"#;
        let mut ordered = Ordered::parse(text).unwrap();
        assert_eq!(ordered.to_bytes(), text);
        ordered.set("a", RawValue::from_string("7".to_owned()).unwrap());
        ordered.set("b", RawValue::from_string("8".to_owned()).unwrap());
        ordered.retain(|key| key != "z");
        assert_eq!(ordered.to_bytes(), br#"{"a":7,"m":"t","b":8}"#);
        for bad in ["[]", "{", r#"{"a":1,"a":2}"#, "7"] {
            assert!(Ordered::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
