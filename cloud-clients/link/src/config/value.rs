//! Values of settings: parsed from text once, printed the same way everywhere.

use std::fmt;
use std::time::Duration;

use super::Kind;

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, list, path or word.
    Text(String),
    /// Number.
    Number(u64),
    /// Time.
    Duration(Duration),
    /// Yes or no.
    Flag(bool),
}

impl Value {
    /// Parses what a person typed.
    ///
    /// # Errors
    /// What is accepted, as a sentence that starts with "use".
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        match kind {
            Kind::Text | Kind::TextOrFile | Kind::List if text.chars().any(char::is_control) => {
                Err("use text without control characters".to_owned())
            }
            Kind::TextOrFile if text.starts_with("file:") && !text.starts_with("file:/") => {
                Err("use file: with an absolute path".to_owned())
            }
            Kind::Path if text.contains('\0') || !(text.is_empty() || text.starts_with('/')) => {
                Err("use an absolute path".to_owned())
            }
            Kind::Text | Kind::TextOrFile | Kind::List | Kind::Path => {
                Ok(Self::Text(text.to_owned()))
            }
            Kind::Number(from, to) => match text.parse() {
                Ok(number) if (from..=to).contains(&number) => Ok(Self::Number(number)),
                Ok(_) | Err(_) => Err(format!("use a whole number from {from} to {to}")),
            },
            Kind::Duration(from, to) => {
                let range = Duration::from_secs(from)..=Duration::from_secs(to);
                match duration(text).filter(|time| range.contains(time)) {
                    Some(time) => Ok(Self::Duration(time)),
                    None => Err(format!(
                        "use a time from {from}s to {to}s, such as 25s or 10min"
                    )),
                }
            }
            Kind::Flag => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Ok(Self::Flag(true)),
                "false" | "no" | "off" | "0" => Ok(Self::Flag(false)),
                _ => Err("use true or false".to_owned()),
            },
            Kind::Word(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::Word(words) => Err(format!("use one of {}", words.join(", "))),
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "min" | "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(24 * 3600),
        _ => None,
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Duration(time) if time.subsec_millis() != 0 => {
                write!(f, "{}ms", time.as_millis())
            }
            Self::Duration(time) => write!(f, "{}s", time.as_secs()),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (kind, text, shown) in [
            (Kind::Duration(0, 3600), "250ms", Some("250ms")),
            (Kind::Duration(0, 3600), "10min", Some("600s")),
            (Kind::Duration(0, 3600), "2h", None),
            (Kind::Duration(0, 3600), "1.5s", None),
            (Kind::Duration(0, u64::MAX), "18446744073709551615h", None),
            (Kind::Flag, "Yes", Some("true")),
            (Kind::Flag, "maybe", None),
            (Kind::Number(1, 9), "0", None),
            (Kind::Path, "a", None),
            (Kind::Path, "", Some("")),
            (Kind::TextOrFile, "file:x", None),
            (Kind::TextOrFile, "file:/x", Some("file:/x")),
            (Kind::Text, "a\n", None),
            (Kind::Word(&["x", "y"]), "y", Some("y")),
            (Kind::Word(&["x", "y"]), "z", None),
        ] {
            let parsed = Value::parse(kind, text).ok().map(|value| value.to_string());
            assert_eq!(parsed.as_deref(), shown, "{kind:?} {text:?}");
        }
    }
}
