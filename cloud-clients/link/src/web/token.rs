//! A client certificate whose key never leaves a token: a TPM, a secure element, a smart card, behind a library that speaks PKCS#11.
//!
//! Which key is told by a `pkcs11:` address (RFC 7512; `token`, `serial`, `object` and `id` of it). The library is loaded at run time,
//! which a static binary cannot do: this is a feature of the build, `pkcs11`, and without it the settings say so. The certificate itself
//! is a file, as always.

use std::path::PathBuf;

use rustls::sign::CertifiedKey;

use super::WebError;
use super::tls::Identity;

#[cfg(feature = "pkcs11")]
mod pkcs11;

/// Which key of which token. What is not said fits everything; exactly one key must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locator {
    /// Label of the token.
    pub token: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Label of the key.
    pub object: Option<String>,
    /// The key's id.
    pub id: Option<Vec<u8>>,
}

impl Locator {
    /// Parses `pkcs11:token=device;object=client;id=%01`.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let usage = "use pkcs11:token=NAME;object=NAME, also with serial=… and id=%…";
        let path = text.strip_prefix("pkcs11:").ok_or(usage)?;
        let mut found = Self::default();
        for part in path.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or(usage)?;
            let bytes = decode(value).ok_or_else(|| format!("{part:?}: {usage}"))?;
            let text =
                || String::from_utf8(bytes.clone()).map_err(|_| format!("{part:?}: {usage}"));
            match name {
                "token" => found.token = Some(text()?),
                "serial" => found.serial = Some(text()?),
                "object" => found.object = Some(text()?),
                "id" => found.id = Some(bytes),
                "type" if value == "private" => {}
                _ => return Err(format!("{name:?} is not understood: {usage}")),
            }
        }
        Ok(found)
    }
}

/// Percent-decoding; `None` where `%` is not followed by two hexadecimal digits.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(bytes)
}

/// Certificate in a file, key in a token.
#[derive(Clone)]
pub struct TokenIdentity {
    /// The certificate and what leads to its authority.
    pub certificate: PathBuf,
    /// The library that speaks with the token.
    pub module: PathBuf,
    /// Which key.
    pub key: Locator,
    /// The user's PIN; `None` where none is needed.
    pub pin: Option<String>,
}

impl Identity for TokenIdentity {
    #[cfg(feature = "pkcs11")]
    fn certified_key(&self) -> Result<CertifiedKey, WebError> {
        pkcs11::certified_key(self)
    }

    #[cfg(not(feature = "pkcs11"))]
    fn certified_key(&self) -> Result<CertifiedKey, WebError> {
        Err(self.refused("this build cannot load it: build with `--features pkcs11`, not static"))
    }
}

impl TokenIdentity {
    fn refused(&self, reason: impl Into<String>) -> WebError {
        WebError::Settings {
            what: format!("pkcs11-module {}", self.module.display()),
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_keys() {
        let text = "pkcs11:token=My%20token;serial=12;object=client;id=%01%ff;type=private";
        assert_eq!(
            Locator::parse(text),
            Ok(Locator {
                token: Some("My token".to_owned()),
                serial: Some("12".to_owned()),
                object: Some("client".to_owned()),
                id: Some(vec![1, 255]),
            })
        );
        assert_eq!(Locator::parse("pkcs11:"), Ok(Locator::default()));
        for bad in [
            "",
            "client",
            "pkcs11:token",
            "pkcs11:id=%1",
            "pkcs11:id=%+1",
            "pkcs11:id=%é",
            "pkcs11:token=%ff",
            "pkcs11:pin-value=1234",
            "pkcs11:type=cert",
        ] {
            assert!(Locator::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_loaded_is_told_with_the_file() {
        let home = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["device".to_owned()]).unwrap();
        let certificate = home.path().join("c.pem");
        std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        let identity = TokenIdentity {
            certificate,
            module: "/no/such/module.so".into(),
            key: Locator::default(),
            pin: None,
        };
        let error = identity.certified_key().unwrap_err().to_string();
        assert!(
            error.starts_with("pkcs11-module /no/such/module.so: "),
            "{error}"
        );
    }
}
