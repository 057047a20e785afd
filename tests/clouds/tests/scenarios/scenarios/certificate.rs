//! A device that is known by its certificate: a proxy before the server ends TLS, checks the certificate, and turns it into the headers
//! that hawkBit believes. Headers of that kind that a client sends itself go no further.

use std::path::PathBuf;
use std::sync::Arc;

use clouds::call;
use clouds::client::Client;
use clouds::management::{Access, How, Management, Outcome};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Payload, Rig, ended};

/// What the proxy says of everybody it has checked.
const AUTHORITY: &str = "the-fleet";

/// An authority of the test's own.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "tests of Coxswain");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A certificate for this name, also as files `NAME.pem` and `NAME.key`.
    fn leaf(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        let write = |ending: &str, text: String| {
            std::fs::write(PathBuf::from(self.file(&format!("{name}.{ending}"))), text)
                .expect("a file");
        };
        write("pem", leaf.pem());
        write("key", key.serialize_pem());
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (leaf.der().clone(), key.into())
    }
}

/// The last common name in a certificate: that of its subject, which comes after its issuer's.
fn common_name(certificate: &[u8]) -> Option<String> {
    const TAG: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    let at = certificate
        .windows(TAG.len())
        .rposition(|part| part == TAG)?
        + TAG.len();
    let length = usize::from(*certificate.get(at + 1)?);
    let text = certificate.get(at + 2..at + 2 + length)?;
    String::from_utf8(text.to_vec()).ok()
}

async fn forward(
    server: String,
    own: String,
    name: String,
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<hyper::Response<Full<bytes::Bytes>>, String> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let body = body.to_bytes();
    let mut headers: Vec<(String, String)> = Vec::new();
    for (header, value) in &head.headers {
        let header = header.as_str();
        let dropped = [
            "x-",
            "host",
            "content-length",
            "connection",
            "transfer-encoding",
        ];
        if !dropped.iter().any(|start| header.starts_with(start)) {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            headers.push((header.to_owned(), value));
        }
    }
    let port = own.rsplit(':').next().unwrap_or_default();
    // Both generations: each release knows its own.
    for (header, value) in [
        ("X-Controller-Id", name.as_str()),
        ("X-Authority", AUTHORITY),
        ("X-Ssl-Client-Cn", name.as_str()),
        ("X-Ssl-Issuer-Hash-1", AUTHORITY),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", own.as_str()),
        ("X-Forwarded-Port", port),
    ] {
        headers.push((header.to_owned(), value.to_owned()));
    }
    let target = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let (method, target) = (head.method.as_str().to_owned(), target.to_owned());
    let answer = tokio::task::spawn_blocking(move || {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        call::call(&server, &method, &target, &headers, &body)
    });
    let answer = answer.await.map_err(|error| error.to_string())??;
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        let own = ["content-length", "connection", "transfer-encoding"];
        if !own.contains(&name.to_ascii_lowercase().as_str()) {
            response = response.header(name, value);
        }
    }
    let response = response.body(Full::new(bytes::Bytes::from(answer.body)));
    response.map_err(|error| error.to_string())
}

async fn proxy(listener: TcpListener, acceptor: TlsAcceptor, server: String) {
    let own = listener.local_addr().expect("it listens");
    let own = format!("localhost:{}", own.port());
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, server, own) = (acceptor.clone(), server.clone(), own.clone());
        tokio::spawn(async move {
            // Who has no certificate of ours gets no further.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let Some(name) = chain.first().and_then(|leaf| common_name(leaf)) else {
                return;
            };
            let service = hyper::service::service_fn(move |request| {
                forward(server.clone(), own.clone(), name.clone(), request)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is the client's business.
            drop(connection.await);
        });
    }
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let (certificate, key) = authority.leaf("localhost");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(authority.issuer.der().clone())
        .expect("an authority");
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    TlsAcceptor::from(Arc::new(config))
}

pub(super) fn by_certificate(server: &dyn Management) {
    server.trust_proxy(AUTHORITY);
    let authority = Authority::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a run time");
    let rig = Rig::new(server, "certified", &[]);
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    let port = listener.local_addr().expect("a port").port();
    runtime.spawn(proxy(
        listener,
        acceptor(&authority),
        rig.access.url.clone(),
    ));
    authority.leaf(&rig.name);
    authority.leaf("somebody-else");
    let access = Access {
        url: format!("https://localhost:{port}"),
        token: String::new(),
        ..rig.access.clone()
    };
    let socket = rig.device.run_dir().join("control.sock");
    let client = |name: &str| {
        let settings = [
            ("tls-ca", authority.file("ca.pem")),
            ("tls-certificate", authority.file(&format!("{name}.pem"))),
            ("tls-key", authority.file(&format!("{name}.key"))),
        ];
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Client::start(&socket, &access, &settings)
    };
    let set = Payload::good(&rig.name).publish(server, &rig.name);
    let action = server.assign(&rig.name, set, &How::Forced);
    // A good certificate of another device.
    let stranger = client("somebody-else");
    clouds::wait("the client is told that it is not let in", 60, || {
        stranger.log_end().contains("401").then_some(())
    });
    drop(stranger);
    rig.unchanged();
    assert_eq!(server.see(&rig.name, action).outcome, Outcome::Open);
    let _client = client(&rig.name);
    ended(server, &rig, action, Outcome::Finished);
    rig.changed();
}
