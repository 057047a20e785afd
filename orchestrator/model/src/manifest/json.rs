//! JSON as the manifest needs it: a small tree whose nodes know their order in the text.
//!
//! A node's number is its place in a walk of the text, so a problem needs only the node: its RFC 6901 pointer is found
//! by walking down from the root. Text is refused beyond `limits::JSON_DEPTH_MAX` before anything recurses over it.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Place in the text: parents before children, siblings in order.
    pub(super) at: u32,
    pub(super) data: Data,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// In text order; a name may stand twice, which [`Node::duplicates`] finds.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads one value that [`depth`] has let pass.
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let next = Cell::new(0);
        let mut source = serde_json::Deserializer::from_str(text);
        let node = Build(&next).deserialize(&mut source)?;
        source.end()?;
        Ok(node)
    }

    /// The field of this name; `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Data::Object(fields) = &self.data else {
            return None;
        };
        fields
            .iter()
            .find(|(field, node)| field == name && node.data != Data::Null)
            .map(|(_, node)| node)
    }

    /// What it is, for people.
    pub(super) fn noun(&self) -> &'static str {
        match self.data {
            Data::Null => "null",
            Data::Bool(_) => "true or false",
            Data::Number(_) => "a number",
            Data::Text(_) => "a text",
            Data::List(_) => "a list",
            Data::Object(_) => "an object",
        }
    }

    /// RFC 6901 pointer from this node to the one numbered `at`, appended to `pointer`.
    pub(super) fn point(&self, at: u32, pointer: &mut String) {
        let mut node = self;
        while node.at < at {
            // Children are numbered in order: the last one not after `at` holds it.
            match &node.data {
                Data::List(items) => {
                    let after = items.partition_point(|item| item.at <= at);
                    let Some(index) = after.checked_sub(1) else {
                        return;
                    };
                    pointer.push('/');
                    pointer.push_str(&index.to_string());
                    node = &items[index];
                }
                Data::Object(fields) => {
                    let after = fields.partition_point(|(_, value)| value.at <= at);
                    let Some(index) = after.checked_sub(1) else {
                        return;
                    };
                    push_part(pointer, &fields[index].0);
                    node = &fields[index].1;
                }
                Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) => return,
            }
        }
    }

    /// Calls `found` for each field whose name stood before in the same object.
    pub(super) fn duplicates(&self, found: &mut dyn FnMut(&str, &Self)) {
        match &self.data {
            Data::List(items) => items.iter().for_each(|item| item.duplicates(found)),
            Data::Object(fields) => {
                let mut order: Vec<usize> = (0..fields.len()).collect();
                order.sort_by_key(|&index| (&fields[index].0, index));
                for pair in order.windows(2) {
                    let (first, second) = (&fields[pair[0]], &fields[pair[1]]);
                    if first.0 == second.0 {
                        found(&second.0, &second.1);
                    }
                }
                fields.iter().for_each(|(_, node)| node.duplicates(found));
            }
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) => {}
        }
    }

    /// The value without white space and with sorted names: equal for values that mean the same.
    pub(super) fn canonical(&self) -> String {
        let mut text = String::new();
        self.write_canonical(&mut text);
        text
    }

    fn write_canonical(&self, text: &mut String) {
        match &self.data {
            Data::Null => text.push_str("null"),
            Data::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
            Data::Number(number) => text.push_str(&number.to_string()),
            Data::Text(value) => push_text(text, value),
            Data::List(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    item.write_canonical(text);
                }
                text.push(']');
            }
            Data::Object(fields) => write_fields(fields.iter(), text),
        }
    }

    /// As [`canonical`](Self::canonical), of an object without the named fields.
    pub(super) fn canonical_without(&self, names: &[&str]) -> String {
        let mut text = String::new();
        match &self.data {
            Data::Object(fields) => {
                let kept = fields
                    .iter()
                    .filter(|(name, _)| !names.contains(&name.as_str()));
                write_fields(kept, &mut text);
            }
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::List(_) => {
                self.write_canonical(&mut text);
            }
        }
        text
    }
}

fn write_fields<'a>(fields: impl Iterator<Item = &'a (String, Node)>, text: &mut String) {
    let mut fields: Vec<_> = fields.collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    text.push('{');
    for (index, (name, node)) in fields.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_text(text, name);
        text.push(':');
        node.write_canonical(text);
    }
    text.push('}');
}

fn push_text(text: &mut String, value: &str) {
    text.push_str(&serde_json::to_string(value).expect("a text is always JSON"));
}

/// Appends `/part` to an RFC 6901 pointer.
pub(super) fn push_part(pointer: &mut String, part: &str) {
    pointer.push('/');
    // A part this long is a problem already; the answer stays small.
    for letter in part.chars().take(crate::limits::KEY_BYTES_MAX) {
        match letter {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// How deep the lists and objects of a valid JSON text are nested; a plain value is 0.
pub(super) fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in text.bytes() {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Builds a [`Node`]; the cell holds the next number.
struct Build<'c>(&'c Cell<u32>);

impl Build<'_> {
    fn node(at: u32, data: Data) -> Node {
        Node { at, data }
    }

    fn number(&self) -> u32 {
        let at = self.0.get();
        self.0.set(at.saturating_add(1));
        at
    }
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Node, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Self::node(self.number(), Data::Null))
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Node, E> {
        Ok(Self::node(self.number(), Data::Bool(flag)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Node, E> {
        Ok(Self::node(self.number(), Data::Number(number.into())))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Node, E> {
        Ok(Self::node(self.number(), Data::Number(number.into())))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Node, E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Self::node(self.number(), Data::Number(number)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        Ok(Self::node(self.number(), Data::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Node, A::Error> {
        let at = self.number();
        let mut items = Vec::new();
        while let Some(item) = source.next_element_seed(Build(self.0))? {
            items.push(item);
        }
        Ok(Self::node(at, Data::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Node, A::Error> {
        let at = self.number();
        let mut fields = Vec::new();
        while let Some(name) = source.next_key::<String>()? {
            fields.push((name, source.next_value_seed(Build(self.0))?));
        }
        Ok(Self::node(at, Data::Object(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_at_every_node() {
        let text = r#"{"a":[1,{"b/c":null,"~":[[],2]}],"d":{}}"#;
        let node = Node::parse(text).unwrap();
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let pointers: Vec<String> = (0..9)
            .map(|at| {
                let mut pointer = String::new();
                node.point(at, &mut pointer);
                assert!(value.pointer(&pointer).is_some(), "{pointer}");
                pointer
            })
            .collect();
        assert_eq!(
            pointers,
            [
                "",
                "/a",
                "/a/0",
                "/a/1",
                "/a/1/b~1c",
                "/a/1/~0",
                "/a/1/~0/0",
                "/a/1/~0/1",
                "/d"
            ]
        );
    }

    #[test]
    fn depth_ignores_brackets_in_texts() {
        for (text, expected) in [
            ("1", 0),
            ("[]", 1),
            (r#"{"a":"[[[","b":[{}]}"#, 3),
            (r#"["\"[["]"#, 1),
        ] {
            assert_eq!(depth(text), expected, "{text}");
        }
    }

    #[test]
    fn canonical_forms_are_equal() {
        let one = Node::parse(r#"{ "b": [1, "\u0041"], "a": null }"#).unwrap();
        let other = Node::parse(r#"{"a":null,"b":[1,"A"]}"#).unwrap();
        assert_eq!(one.canonical(), other.canonical());
        assert_eq!(one.canonical(), r#"{"a":null,"b":[1,"A"]}"#);
        assert_eq!(one.canonical_without(&["b"]), r#"{"a":null}"#);
    }
}
