//! An authority of the test's own, and servers' certificates of every kind from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// The authority.
pub(crate) struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate, for the setting `tls-ca`.
    pub(crate) file: PathBuf,
}

impl Pki {
    pub(crate) fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let file = folder.join("ca.pem");
        std::fs::write(&file, issuer.pem()).expect("the folder is the test's");
        Self { issuer, file }
    }

    /// A client's certificate for this key.
    pub(crate) fn client(&self, key: &KeyPair) -> String {
        let params = CertificateParams::new(vec!["device-1".to_owned()]).expect("a name");
        params
            .signed_by(key, &self.issuer)
            .expect("a certificate")
            .pem()
    }

    /// A server of this name, between the beginnings of these years.
    pub(crate) fn server(&self, name: &str, years: (i32, i32)) -> Arc<ServerConfig> {
        self.server_that(name, years, false)
    }

    /// A server that speaks with nobody who has no certificate of this authority.
    pub(crate) fn server_that_asks(&self) -> Arc<ServerConfig> {
        self.server_that("localhost", (2020, 2060), true)
    }

    fn server_that(&self, name: &str, years: (i32, i32), asks: bool) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has them");
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("it has an authority"))
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        );
        Arc::new(config.expect("key and certificate belong together"))
    }
}
