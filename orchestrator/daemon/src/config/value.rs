//! Values of settings: parsed from text once, printed the same way everywhere.

use std::fmt;
use std::time::Duration;

use super::Kind;

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, path or word.
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
            Kind::Text if text.chars().any(char::is_control) => {
                Err("use text without control characters".to_owned())
            }
            Kind::Text => Ok(Self::Text(text.to_owned())),
            Kind::Path if text.contains('\0') || !(text.is_empty() || text.starts_with('/')) => {
                Err("use an absolute path".to_owned())
            }
            Kind::Path => Ok(Self::Text(text.to_owned())),
            Kind::Number(from, to) => match text.parse() {
                Ok(number) if (from..=to).contains(&number) => Ok(Self::Number(number)),
                Ok(_) | Err(_) => Err(format!("use a whole number from {from} to {to}")),
            },
            Kind::Duration(from, to) => match duration(text) {
                Some(time)
                    if (Duration::from_secs(from)..=Duration::from_secs(to)).contains(&time) =>
                {
                    Ok(Self::Duration(time))
                }
                Some(_) | None => Err(format!(
                    "use a time from {from}s to {to}s, such as 25s or 10min"
                )),
            },
            Kind::Flag => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Ok(Self::Flag(true)),
                "false" | "no" | "off" | "0" => Ok(Self::Flag(false)),
                _ => Err("use true or false".to_owned()),
            },
            Kind::Word(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::Device if text.is_empty() => Ok(Self::Text(String::new())),
            Kind::Device => match text.parse::<linux::block::Wanted>() {
                Ok(device) => Ok(Self::Text(device.to_string())),
                Err(_) => {
                    Err("use LABEL=, UUID=, PARTLABEL=, PARTUUID= or a path below /dev".to_owned())
                }
            },
            Kind::Word(words) => Err(format!("use one of {}", words.join(", "))),
        }
    }

    /// The text, path or word.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The number.
    pub fn as_number(&self) -> Option<u64> {
        if let Self::Number(number) = self {
            Some(*number)
        } else {
            None
        }
    }

    /// The time.
    pub fn as_duration(&self) -> Option<Duration> {
        if let Self::Duration(time) = self {
            Some(*time)
        } else {
            None
        }
    }

    /// Yes or no.
    pub fn as_flag(&self) -> Option<bool> {
        if let Self::Flag(flag) = self {
            Some(*flag)
        } else {
            None
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "min" | "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
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
    fn times() {
        let kind = Kind::Duration(0, 3600);
        for (text, ms) in [
            ("250ms", 250),
            ("25", 25_000),
            ("25s", 25_000),
            ("10min", 600_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                Value::parse(kind, text),
                Ok(Value::Duration(Duration::from_millis(ms))),
                "{text}"
            );
        }
        for bad in [
            "",
            "s",
            "-1",
            "1.5s",
            "2h",
            "1d",
            "99999999999999999999",
            "18446744073709551615h",
        ] {
            assert!(Value::parse(kind, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        for (kind, text) in [
            (Kind::Duration(0, 3600), "1500ms"),
            (Kind::Duration(0, 3600), "60s"),
            (Kind::Flag, "true"),
            (Kind::Number(0, 9), "7"),
            (Kind::Path, "/a"),
            (Kind::Word(&["x", "y"]), "y"),
        ] {
            assert_eq!(Value::parse(kind, text).unwrap().to_string(), text);
        }
        for (kind, bad) in [
            (Kind::Path, "a"),
            (Kind::Text, "a\n"),
            (Kind::Word(&["x"]), "z"),
            (Kind::Flag, "maybe"),
        ] {
            assert!(Value::parse(kind, bad).is_err(), "{bad}");
        }
    }
}
