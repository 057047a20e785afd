//! The key behind PKCS#11: found, tried once at the start, asked for each signature. Elliptic curves P-256 and P-384, and RSA.
//!
//! A session is opened for each signature and closed after it, so that a token that was pulled, or a service that was restarted, is found
//! again. A PIN that was refused is never tried again, and none is tried when one try is left: tokens lock themselves. A signature is
//! asked for in the middle of a handshake and holds up the client as long as the token takes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::{AuthPin, Ulong};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use sha2::Digest as _;

use super::{Locator, TokenIdentity};
use crate::web::{WebError, tls};

/// Libraries that were loaded: one is initialised once in a process, and never unloaded, since it may have threads.
static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// What keys can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    P256,
    P384,
    Rsa,
}

/// DER of the names of curves, as a token tells them.
const CURVES: [(Sort, &[u8]); 2] = [
    (Sort::P256, &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]),
    (Sort::P384, &[6, 5, 0x2b, 0x81, 4, 0, 0x22]),
];

impl Sort {
    fn schemes(self) -> &'static [SignatureScheme] {
        match self {
            Self::P256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Self::P384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Self::Rsa => &[
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::RSA_PSS_SHA384,
                SignatureScheme::RSA_PSS_SHA512,
                SignatureScheme::RSA_PKCS1_SHA256,
                SignatureScheme::RSA_PKCS1_SHA384,
                SignatureScheme::RSA_PKCS1_SHA512,
            ],
        }
    }
}

/// A token and how to get in.
struct Token {
    module: Pkcs11,
    key: Locator,
    pin: Option<AuthPin>,
    /// The PIN was refused.
    locked_out: AtomicBool,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("key", &self.key).finish()
    }
}

/// A key that signs in the token.
#[derive(Debug, Clone)]
struct TokenKey {
    token: Arc<Token>,
    sort: Sort,
}

pub(super) fn certified_key(identity: &TokenIdentity) -> Result<CertifiedKey, WebError> {
    let chain = tls::certificates(&identity.certificate)?;
    let module = load(&identity.module).map_err(|error| identity.refused(error.to_string()))?;
    let token = Arc::new(Token {
        module,
        key: identity.key.clone(),
        pin: identity.pin.clone().map(AuthPin::from),
        locked_out: AtomicBool::new(false),
    });
    let sort = token.sort().map_err(|reason| identity.refused(reason))?;
    let key = TokenKey { token, sort };
    key.fits(&chain[0])
        .map_err(|reason| identity.refused(reason))?;
    Ok(CertifiedKey::new(chain, Arc::new(key)))
}

fn load(path: &PathBuf) -> Result<Pkcs11, Error> {
    let mut loaded = LOADED.lock().unwrap_or_else(|poison| poison.into_inner());
    if let Some(module) = loaded.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(error),
    }
    loaded.insert(path.clone(), module.clone());
    Ok(module)
}

impl Token {
    /// The only token that fits.
    fn slot(&self) -> Result<Slot, String> {
        let words = |error: Error| format!("its tokens cannot be listed: {error}");
        let mut found = Vec::new();
        for slot in self.module.get_slots_with_token().map_err(words)? {
            // One that was pulled meanwhile is not ours.
            let Ok(info) = self.module.get_token_info(slot) else {
                continue;
            };
            let fits = |wanted: &Option<String>, is: &str| {
                wanted
                    .as_deref()
                    .is_none_or(|wanted| wanted == is.trim_end())
            };
            if info.token_initialized()
                && fits(&self.key.token, info.label())
                && fits(&self.key.serial, info.serial_number())
            {
                if self.pin.is_some() && info.user_pin_locked() {
                    return Err("the token's PIN is locked: unlock it with its own tool".to_owned());
                }
                if self.pin.is_some() && info.user_pin_final_try() {
                    return Err(
                        "one try of the token's PIN is left, and it is not used up here: log in with its own tool"
                            .to_owned(),
                    );
                }
                found.push(slot);
            }
        }
        match found.as_slice() {
            [slot] => Ok(*slot),
            [] => Err("it has no token that pkcs11-key fits".to_owned()),
            _ => Err(format!(
                "{} tokens fit pkcs11-key: name one by token= or serial=",
                found.len()
            )),
        }
    }

    fn open(&self) -> Result<Session, String> {
        if self.locked_out.load(Ordering::Relaxed) {
            return Err(
                "the token has refused the PIN, which is not tried again: correct pkcs11-pin and start the client anew"
                    .to_owned(),
            );
        }
        let session = self.module.open_ro_session(self.slot()?);
        let session = session.map_err(|error| format!("the token does not open: {error}"))?;
        let Some(pin) = &self.pin else {
            return Ok(session);
        };
        match session.login(UserType::User, Some(pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(error) => {
                if let Error::Pkcs11(
                    RvError::PinIncorrect
                    | RvError::PinInvalid
                    | RvError::PinLenRange
                    | RvError::PinLocked,
                    _,
                ) = error
                {
                    self.locked_out.store(true, Ordering::Relaxed);
                }
                Err(format!("the token does not take the PIN: {error}"))
            }
        }
    }

    fn find(&self, session: &Session) -> Result<ObjectHandle, String> {
        let mut wanted = vec![
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Sign(true),
        ];
        let label = self.key.object.clone();
        wanted.extend(label.map(|label| Attribute::Label(label.into_bytes())));
        wanted.extend(self.key.id.clone().map(Attribute::Id));
        let found = session.find_objects(&wanted);
        match found
            .map_err(|error| format!("the key cannot be looked for: {error}"))?
            .as_slice()
        {
            [key] => Ok(*key),
            [] => Err(
                "the token has no private key that pkcs11-key fits (is the PIN set?)".to_owned(),
            ),
            many => Err(format!(
                "{} private keys fit pkcs11-key: name one by object= or id=",
                many.len()
            )),
        }
    }

    fn sort(&self) -> Result<Sort, String> {
        let session = self.open()?;
        let key = self.find(&session)?;
        let asked = [AttributeType::KeyType, AttributeType::EcParams];
        let said = session.get_attributes(key, &asked);
        let said = said.map_err(|error| format!("the key does not tell its kind: {error}"))?;
        let rsa = said.contains(&Attribute::KeyType(KeyType::RSA));
        let curve = CURVES.iter().find_map(|(sort, name)| {
            said.contains(&Attribute::EcParams(name.to_vec()))
                .then_some(*sort)
        });
        match curve {
            Some(sort) => Ok(sort),
            None if rsa => Ok(Sort::Rsa),
            None => Err("the key is neither RSA nor on the curves P-256 and P-384".to_owned()),
        }
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, String> {
        let session = self.open()?;
        let key = self.find(&session)?;
        let sign = |mechanism: &Mechanism<'_>, data: &[u8]| {
            let signed = session.sign(mechanism, key, data);
            signed.map_err(|error| format!("the token does not sign: {error}"))
        };
        let pss = |hash_alg, mgf, length| PkcsPssParams {
            hash_alg,
            mgf,
            s_len: Ulong::new(length),
        };
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "another crate's enum, and open"
        )]
        match scheme {
            SignatureScheme::ECDSA_NISTP256_SHA256 => {
                sign(&Mechanism::Ecdsa, &sha2::Sha256::digest(message)).map(|both| der(&both))
            }
            SignatureScheme::ECDSA_NISTP384_SHA384 => {
                sign(&Mechanism::Ecdsa, &sha2::Sha384::digest(message)).map(|both| der(&both))
            }
            SignatureScheme::RSA_PKCS1_SHA256 => sign(&Mechanism::Sha256RsaPkcs, message),
            SignatureScheme::RSA_PKCS1_SHA384 => sign(&Mechanism::Sha384RsaPkcs, message),
            SignatureScheme::RSA_PKCS1_SHA512 => sign(&Mechanism::Sha512RsaPkcs, message),
            SignatureScheme::RSA_PSS_SHA256 => {
                let how = pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32);
                sign(&Mechanism::Sha256RsaPkcsPss(how), message)
            }
            SignatureScheme::RSA_PSS_SHA384 => {
                let how = pss(MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48);
                sign(&Mechanism::Sha384RsaPkcsPss(how), message)
            }
            SignatureScheme::RSA_PSS_SHA512 => {
                let how = pss(MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64);
                sign(&Mechanism::Sha512RsaPkcsPss(how), message)
            }
            other => Err(format!("{other:?} was not offered")),
        }
    }
}

impl TokenKey {
    /// The key signs, and what it signs the certificate confirms: at the start, where a person is looking.
    fn fits(&self, certificate: &rustls::pki_types::CertificateDer<'_>) -> Result<(), String> {
        let message = b"coxswain: does this key belong to this certificate?";
        let scheme = self.sort.schemes()[0];
        let signature = self.token.sign(scheme, message)?;
        let certificate = webpki::EndEntityCert::try_from(certificate)
            .map_err(|error| format!("tls-certificate cannot be understood: {error}"))?;
        let provider = rustls::crypto::ring::default_provider();
        let known = provider.signature_verification_algorithms.mapping;
        let confirmed = known
            .iter()
            .filter(|(known, _)| *known == scheme)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| {
                let verified = certificate.verify_signature(*algorithm, message, &signature);
                verified.is_ok()
            });
        if confirmed {
            Ok(())
        } else {
            Err("its key is not the key of the certificate in tls-certificate".to_owned())
        }
    }
}

impl SigningKey for TokenKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let schemes = self.sort.schemes().iter();
        let scheme = schemes.copied().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(TokenSigner {
            token: Arc::clone(&self.token),
            scheme,
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.sort {
            Sort::P256 | Sort::P384 => SignatureAlgorithm::ECDSA,
            Sort::Rsa => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct TokenSigner {
    token: Arc<Token>,
    scheme: SignatureScheme,
}

impl Signer for TokenSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signed = self.token.sign(self.scheme, message);
        signed.map_err(|reason| rustls::Error::General(format!("client certificate: {reason}")))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// Two numbers of the same length, as tokens give them, in the form that TLS wants: a DER sequence of two integers.
fn der(both: &[u8]) -> Vec<u8> {
    let (first, second) = both.split_at(both.len() / 2);
    let mut body = Vec::new();
    for number in [first, second] {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = &number[zeros.min(number.len().saturating_sub(1))..];
        let sign = number.first().is_some_and(|byte| byte & 0x80 != 0);
        body.push(2);
        body.push(u8::try_from(number.len() + usize::from(sign)).unwrap_or(u8::MAX));
        body.extend(sign.then_some(0));
        body.extend_from_slice(number);
    }
    let mut whole = vec![0x30, u8::try_from(body.len()).unwrap_or(u8::MAX)];
    whole.extend(body);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_of_curves_as_sequences() {
        for (both, sequence) in [
            (&[1, 2][..], &[0x30, 6, 2, 1, 1, 2, 1, 2][..]),
            (&[0x80, 0x7f], &[0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]),
            (&[0, 0, 0, 0x81], &[0x30, 7, 2, 1, 0, 2, 2, 0, 0x81]),
        ] {
            assert_eq!(der(both), sequence, "{both:?}");
        }
        // The longest: two numbers of 48 bytes with their signs.
        assert_eq!(der(&[0xff; 96]).len(), 2 + 2 * (2 + 49));
    }
}
