//! TLS: whom to believe (the system's authorities, one file, a pinned key beside them), and how to prove who we are.
//!
//! The key of a client certificate stands behind [`Identity`]: [`FileIdentity`] has it in a file, [`super::token::TokenIdentity`] asks a
//! token (PKCS#11). One provider: ring.
//!
//! A device without a clock thinks that it is 1970, when no certificate is valid yet. [`Time`] is therefore never earlier than what a
//! verified server has said before; the first contact needs a clock, and the error says so. What a server says is believed only while
//! its own certificates are valid: one wrong date must not make all certificates expire for good.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::Digest as _;

use super::WebError;

/// Whom to believe and who we are.
#[derive(Clone, Default)]
pub struct TlsSettings {
    /// Only these authorities; the system's when `None`.
    pub authorities: Option<PathBuf>,
    /// One of these keys (SHA-256 of the SPKI) must be the server's or an authority's in its chain.
    pub pins: Vec<[u8; 32]>,
    /// Our certificate.
    pub identity: Option<Arc<dyn Identity>>,
}

impl std::fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSettings")
            .field("authorities", &self.authorities)
            .field("pins", &self.pins.len())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

/// Where a client's certificate and key come from: a file, a token, a TPM.
pub trait Identity: Send + Sync {
    /// The certificate chain, and a key that can sign. Asked when the settings are read.
    ///
    /// # Errors
    /// [`WebError::Settings`], with the place.
    fn certified_key(&self) -> Result<CertifiedKey, WebError>;
}

/// Certificate and key in PEM files.
#[derive(Debug, Clone)]
pub struct FileIdentity {
    /// The certificate and what leads to its authority.
    pub certificate: PathBuf,
    /// The key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

impl Identity for FileIdentity {
    fn certified_key(&self) -> Result<CertifiedKey, WebError> {
        let chain = certificates(&self.certificate)?;
        let text = read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| settings(&self.key, "it holds no private key in PEM"))?;
        let signing = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|error| settings(&self.key, &error.to_string()))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(certified)
            }
            Err(_) => Err(settings(
                &self.key,
                "it is not the key of the certificate in tls-certificate",
            )),
        }
    }
}

/// The time that certificates are judged by.
#[derive(Debug, Clone, Default)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    /// A verified server has said (or had said before the restart) that it is at least so late, in seconds since 1970.
    pub fn is_at_least(&self, seconds: u64) {
        self.0.fetch_max(seconds, Ordering::Relaxed);
    }

    /// The latest time that a verified server has said.
    pub fn known(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Seconds since 1970: the clock's, or what is known if that is later.
    pub fn now(&self) -> u64 {
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        clock.as_secs().max(self.known())
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now())))
    }
}

/// What is spoken with servers, and who judges them.
#[derive(Debug)]
pub struct Client {
    /// For connections.
    pub config: Arc<ClientConfig>,
    verifier: Arc<Pinned>,
}

/// What a server has shown of itself.
#[derive(Debug)]
pub struct Peer {
    /// The name that it was called by.
    pub name: ServerName<'static>,
    /// Its certificate and what it sent with that.
    pub chain: Vec<CertificateDer<'static>>,
}

impl Client {
    /// Whether a server would be believed at a time, in seconds since 1970.
    pub fn believes(&self, peer: &Peer, seconds: u64) -> bool {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let judged = peer.chain.split_first().map(|(end_entity, others)| {
            let verifier = &self.verifier;
            verifier.verify_server_cert(end_entity, others, &peer.name, &[], at)
        });
        matches!(judged, Some(Ok(_)))
    }
}

/// What is spoken with servers.
///
/// # Errors
/// [`WebError::Settings`], with the file.
pub fn client(wanted: &TlsSettings, time: &Time) -> Result<Client, WebError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(wanted.authorities.as_deref())?);
    let none = |error: &dyn std::fmt::Display| WebError::Settings {
        what: "tls".to_owned(),
        reason: error.to_string(),
    };
    let inner =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| none(&error))?;
    let verifier = Arc::new(Pinned {
        inner,
        roots,
        algorithms: provider.signature_verification_algorithms,
        pins: wanted.pins.clone(),
    });
    let builder = ClientConfig::builder_with_details(provider, Arc::new(time.clone()))
        .with_safe_default_protocol_versions()
        .map_err(|error| none(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>);
    let mut config = match &wanted.identity {
        Some(identity) => builder
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key()?))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Client {
        config: Arc::new(config),
        verifier,
    })
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, WebError> {
    let mut store = RootCertStore::empty();
    let (found, place) = match file {
        Some(path) => (certificates(path)?, path.to_owned()),
        None => (
            rustls_native_certs::load_native_certs().certs,
            PathBuf::from("the system's store"),
        ),
    };
    // Old authorities that cannot be parsed are everywhere: they are left out.
    let (added, _) = store.add_parsable_certificates(found);
    if added == 0 && file.is_some() {
        return Err(settings(&place, "it holds no certificate of an authority"));
    }
    if added == 0 {
        // Plain http and servers of other settings go on; a handshake fails with a message that names the setting.
        tracing::warn!(
            "there are no certificate authorities on this system: https will fail; set tls-ca to a PEM file, or install ca-certificates"
        );
        let nobody = rustls::pki_types::TrustAnchor {
            subject: Vec::new().into(),
            subject_public_key_info: Vec::new().into(),
            name_constraints: None,
        };
        store.roots.push(nobody);
    }
    Ok(store)
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, WebError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(settings(path, "it holds no certificate in PEM")),
        Err(error) => Err(settings(path, &error.to_string())),
    }
}

fn read(path: &Path) -> Result<String, WebError> {
    crate::config::read_bounded(path, crate::limits::AUTHORITIES_BYTES_MAX)
        .map_err(|error| settings(path, &error.to_string()))
}

fn settings(path: &Path, reason: &str) -> WebError {
    WebError::Settings {
        what: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

/// The usual checks, and then the pins.
#[derive(Debug)]
struct Pinned {
    inner: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    pins: Vec<[u8; 32]>,
}

impl Pinned {
    /// Whether a pinned key is the server's own or one that vouches for it. Anybody can send a certificate of somebody else along: only
    /// what the path from the server to an authority goes through counts.
    fn is_pinned(
        &self,
        end_entity: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let fits = |key: &[u8]| {
            let digest: [u8; 32] = sha2::Sha256::digest(key).into();
            self.pins.contains(&digest)
        };
        let Ok(server) = webpki::EndEntityCert::try_from(end_entity) else {
            return false;
        };
        if fits(&server.subject_public_key_info()) {
            return true;
        }
        let goes_through = |path: &webpki::VerifiedPath<'_>| {
            let anchor = sequence(&path.anchor().subject_public_key_info);
            let mut others = path.intermediate_certificates();
            if others.any(|one| fits(&one.subject_public_key_info())) || fits(&anchor) {
                Ok(())
            } else {
                Err(webpki::Error::UnknownIssuer)
            }
        };
        let path = server.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            others,
            now,
            webpki::KeyUsage::server_auth(),
            None,
            Some(&goes_through),
        );
        path.is_ok()
    }
}

/// A DER sequence around its content: an authority's key is kept without it.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count();
    let length = &length[zeros..];
    let mut whole = vec![0x30];
    if content.len() >= 0x80 {
        whole.push(0x80 | u8::try_from(length.len()).expect("a length has at most 8 bytes"));
    }
    whole.extend_from_slice(length);
    whole.extend_from_slice(content);
    whole
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        // Said by the verifier already; once more, since all that follows rests on it.
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        if self.pins.is_empty() || self.is_pinned(end_entity, intermediates, now) {
            Ok(verified)
        } else {
            Err(rustls::Error::General(
                "neither the server's key nor one that vouches for it is in tls-pin".to_owned(),
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What a person can do about a failed handshake.
pub(super) fn advice(error: &std::io::Error, time: &Time) -> Option<&'static str> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(why) = tls else {
        return None;
    };
    use rustls::CertificateError as Why;
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "another crate's enum, and open"
    )]
    match why {
        Why::NotValidYet | Why::NotValidYetContext { .. }
            if time.now() < crate::clock::UNSET_BEFORE_S =>
        {
            Some(
                "the device's clock was never set, so that no certificate can be valid yet: set the clock (NTP, a battery)",
            )
        }
        Why::Expired | Why::ExpiredContext { .. } => {
            Some("the server's certificate has expired, or the device's clock is ahead")
        }
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            Some("the certificate is another host's: compare the server's name with the setting")
        }
        Why::UnknownIssuer | Why::BadSignature => Some(
            "nobody who is believed here has signed it: set tls-ca to the authority's PEM file",
        ),
        _ => None,
    }
}

/// The provider's name, for `--version` and logs.
pub fn provider() -> &'static str {
    let _: fn() -> CryptoProvider = rustls::crypto::ring::default_provider;
    "rustls with ring"
}
