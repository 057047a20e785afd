//! A revision's name as boot loaders and kernel command lines can carry it: letters, digits and `. _ - /` stand for themselves, every
//! other byte is written as `%XX`. So no name can add a word to a command line, a line to an environment, or run in a boot script.

use model::RevisionId;

/// Bytes of a token: a name has at most 64 characters after `locals/`.
pub const TOKEN_BYTES_MAX: usize = 7 + 64 * 4 * 3;

/// The token of a revision.
pub fn token(revision: &RevisionId) -> String {
    let mut token = String::new();
    for byte in revision.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' => {
                token.push(char::from(byte));
            }
            _ => {
                let digit = |value: u8| {
                    let digit = char::from_digit(u32::from(value), 16);
                    digit.expect("a nibble has one digit").to_ascii_uppercase()
                };
                token.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    token
}

/// The revision of a token. Plain names are their own tokens, so what Pantavisor or a person wrote is understood too.
pub fn revision(token: &str) -> Option<RevisionId> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let mut name = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        name.push(u8::try_from(high << 4 | low).ok()?);
    }
    String::from_utf8(name).ok()?.parse().ok()
}

/// What tells a torn or changed pair of names: CRC-32 (as zlib's) over `committed NUL trial`, in eight digits.
pub fn sum(committed: &str, trial: &str) -> String {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(committed.as_bytes());
    hasher.update(b"\0");
    hasher.update(trial.as_bytes());
    format!("{:08x}", hasher.finalize())
}

/// A short name for files of a revision where names are short and case is not kept: 16 digits of the SHA-256 of its name.
pub fn short_name(revision: &RevisionId) -> String {
    let mut name = model::ObjectId::of(revision.as_str().as_bytes()).to_string();
    name.truncate(16);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_and_is_one_harmless_word() {
        let long = format!("locals/{}", "\u{10FFFF}".repeat(60));
        for name in [
            "0",
            "123456",
            "locals/x",
            "locals/a b",
            "locals/x init=sh",
            "locals/$(reset);#'\"`\\",
            "locals/é%41+",
            &long,
        ] {
            let id: RevisionId = match name.parse() {
                Ok(id) => id,
                Err(error) => panic!("{name}: {error}"),
            };
            let token = token(&id);
            assert_eq!(revision(&token), Some(id), "{name}");
            assert!(token.len() <= TOKEN_BYTES_MAX);
            let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/%".contains(&byte);
            assert!(token.bytes().all(harmless), "{token}");
        }
    }

    #[test]
    fn what_is_no_revision_is_none() {
        for token in [
            "",
            "x",
            "%",
            "%4",
            "%ZZ",
            "00",
            "locals/",
            "locals/..",
            "locals/a%2Fb",
            "locals/a%00b",
            "%FF",
        ] {
            assert_eq!(revision(token), None, "{token}");
        }
        assert_eq!(revision(&"1".repeat(5000)), None);
    }
}
