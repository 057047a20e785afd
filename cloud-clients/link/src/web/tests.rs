//! The web against servers on loopback: what goes out, and everything odd that may come back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

fn settings() -> WebSettings {
    WebSettings {
        tls: tls::TlsSettings {
            // No test may depend on the machine's store.
            authorities: None,
            ..tls::TlsSettings::default()
        },
        proxies: Proxies::default(),
        connect_timeout: Duration::from_secs(5),
        answer_timeout: Duration::from_millis(300),
        user_agent: "test".to_owned(),
    }
}

fn web(settings: WebSettings) -> Web {
    Web::new(settings, tls::Time::default()).unwrap()
}

fn get(address: &str) -> Call {
    Call::new(Method::GET, Address::parse(address).unwrap())
        .credentials(Some(Credentials::authorization("TargetToken s3cret")))
}

async fn head_of<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A server that answers each request with the bytes that `answer` makes of its head; closes when they are `None`.
async fn serve(
    answer: impl Fn(String) -> Option<Vec<u8>> + Send + Sync + Clone + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                while let Some(head) = head_of(&mut stream).await {
                    let Some(bytes) = answer(head) else { return };
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (at, connections)
}

fn ok(body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
}

fn redirect(to: &str) -> Option<Vec<u8>> {
    Some(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes())
}

#[tokio::test]
async fn answers_whole_over_one_connection() {
    let (at, connections) = serve(|head| ok(&head)).await;
    let web = web(settings());
    for _ in 0..3 {
        let answer = web
            .call(&get(&format!("http://{at}/a b?c")), 10_000)
            .await
            .unwrap();
        let sent = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(sent.starts_with("GET /a%20b?c HTTP/1.1\r\n"), "{sent}");
        for line in [
            format!("host: {at}\r\n"),
            "authorization: TargetToken s3cret\r\n".to_owned(),
            "accept-encoding: identity\r\n".to_owned(),
            "user-agent: test\r\n".to_owned(),
        ] {
            assert!(sent.contains(&line), "{sent}");
        }
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let error = web.call(&get(&format!("http://{at}/")), 10).await;
    assert!(matches!(error, Err(WebError::TooLong { max: 10, .. })));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_made_anew() {
    let (at, connections) = serve(|head| head.contains("/once").then(|| ok("x")).flatten()).await;
    let web = web(settings());
    let once = get(&format!("http://{at}/once"));
    web.call(&once, 10).await.unwrap();
    assert!(
        web.call(&get(&format!("http://{at}/no")), 10)
            .await
            .is_err()
    );
    web.call(&once, 10).await.unwrap();
    assert!(connections.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let back: Arc<Mutex<String>> = Arc::default();
    let leads_to = Arc::clone(&back);
    let (other, _) = serve(move |head| {
        if head.starts_with("GET /there/and/back") {
            return redirect(&leads_to.lock().unwrap());
        }
        ok(&head)
    })
    .await;
    let to = format!("http://{other}/there");
    let (at, _) = serve(move |head| {
        if head.starts_with("GET /away") {
            return redirect(&format!("{to}/and/back"));
        }
        if head.starts_with("GET /same") {
            redirect("/here")
        } else if head.starts_with("GET /other") {
            redirect(&to)
        } else if head.starts_with("GET /round") {
            redirect("/round")
        } else if head.starts_with("GET /nowhere") {
            Some(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_vec())
        } else {
            ok(&head)
        }
    })
    .await;
    let web = web(settings());
    let sent = |answer: Answer| String::from_utf8(answer.body.to_vec()).unwrap();
    let same = web
        .call(&get(&format!("http://{at}/same")), 10_000)
        .await
        .unwrap();
    assert!(sent(same).contains("s3cret"));
    let moved = web
        .call(&get(&format!("http://{at}/other")), 10_000)
        .await
        .unwrap();
    let moved = sent(moved);
    assert!(
        moved.contains("GET /there") && !moved.contains("s3cret"),
        "{moved}"
    );
    // Who is sent away and back comes to a path that somebody else has chosen.
    *back.lock().unwrap() = format!("http://{at}/chosen");
    let sent_back = web.call(&get(&format!("http://{at}/away")), 10_000).await;
    let sent_back = sent(sent_back.unwrap());
    assert!(
        sent_back.contains("GET /chosen") && !sent_back.contains("s3cret"),
        "{sent_back}"
    );
    for bad in ["round", "nowhere"] {
        let error = web.call(&get(&format!("http://{at}/{bad}")), 10_000).await;
        assert!(matches!(error, Err(WebError::Redirect { .. })), "{bad}");
    }
    // What changes something is not sent twice.
    let mut post = get(&format!("http://{at}/same"));
    post.method = Method::POST;
    assert_eq!(web.call(&post, 10_000).await.unwrap().status, 200);
}

#[tokio::test]
async fn whatever_comes_is_an_error_in_words() {
    for (bytes, words) in [
        (&b"\x16\x03\x01 I am a proxy"[..], "no HTTP"),
        (b"<html>login</html>\r\n\r\n", "no HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
            "no bytes within|broke",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "broke",
        ),
        (b"HTTP/1.1 200", "no answer within"),
        (b"", "no answer within"),
    ] {
        let (at, _) = serve(move |_| Some(bytes.to_vec())).await;
        let error = web(settings())
            .call(&get(&format!("http://{at}/")), 1000)
            .await
            .unwrap_err();
        let text = error.whole();
        assert!(words.split('|').any(|word| text.contains(word)), "{text}");
        assert!(error.may_pass(), "{text}");
    }
    let (at, _) = serve(|_| None).await;
    let error = web(settings())
        .call(&get(&format!("http://{at}/")), 10)
        .await;
    assert!(matches!(error, Err(WebError::Broken { .. })));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = closed.local_addr().unwrap();
    drop(closed);
    let error = web(settings())
        .call(&get(&format!("http://{at}/")), 10)
        .await;
    assert!(matches!(error, Err(WebError::Connect { .. })));
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let (at, _) = serve(move |_| Some(long.clone().into_bytes())).await;
    assert!(
        web(settings())
            .call(&get(&format!("http://{at}/")), 10)
            .await
            .is_err()
    );
}

/// Two authorities' worth of certificates in a folder.
struct Pki {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate for this name, and its key; also as files.
    fn leaf(&self, name: &str, years: (i32, i32)) -> (CertificateParams, KeyPair, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file("leaf.pem"), certificate.pem()).unwrap();
        std::fs::write(self.file("leaf.key"), key.serialize_pem()).unwrap();
        (params, key, certificate.der().to_vec())
    }

    /// The authority's own certificate.
    fn authority(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    async fn serve(&self, name: &str, years: (i32, i32), ask: bool) -> (u16, [u8; 32]) {
        self.serve_with(name, years, ask, Vec::new()).await
    }

    /// A server that sends these certificates beside its own.
    async fn serve_with(
        &self,
        name: &str,
        years: (i32, i32),
        ask: bool,
        beside: Vec<CertificateDer<'static>>,
    ) -> (u16, [u8; 32]) {
        let (_, key, certificate) = self.leaf(name, years);
        let certificate = CertificateDer::from(certificate);
        let pin = pin_of(&certificate);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if ask {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            );
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder
            .with_single_cert(
                std::iter::once(certificate).chain(beside).collect(),
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    while let Some(head) = head_of(&mut stream).await {
                        let answer = dated(&head);
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (port, pin)
    }

    fn settings(&self) -> WebSettings {
        let mut settings = settings();
        settings.tls.authorities = Some(self.file("ca.pem"));
        settings.answer_timeout = Duration::from_secs(5);
        settings
    }
}

/// What a pin is made of.
fn pin_of(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let certificate = ParsedCertificate::try_from(certificate).unwrap();
    sha2::Sha256::digest(certificate.subject_public_key_info()).into()
}

/// The head of a request as the body of its answer, with the date that it asks for.
fn dated(head: &str) -> Vec<u8> {
    let date = head.lines().find_map(|line| line.strip_prefix("x-date: "));
    let date = date.map_or(String::new(), |date| format!("Date: {date}\r\n"));
    let length = head.len();
    format!("HTTP/1.1 200 OK\r\n{date}Content-Length: {length}\r\n\r\n{head}").into_bytes()
}

async fn try_tls(settings: WebSettings, port: u16) -> Result<Answer, WebError> {
    web(settings)
        .call(&get(&format!("https://localhost:{port}/")), 10_000)
        .await
}

#[tokio::test]
async fn whom_tls_believes() {
    let pki = Pki::new();
    let (port, pin) = pki.serve("localhost", (2020, 2060), false).await;
    let answer = try_tls(pki.settings(), port).await.unwrap();
    assert_eq!(answer.status, 200);

    let mut pinned = pki.settings();
    pinned.tls.pins = vec![[0; 32], pin];
    try_tls(pinned.clone(), port).await.unwrap();
    pinned.tls.pins = vec![[0; 32]];
    let error = try_tls(pinned, port).await.unwrap_err();
    assert!(error.to_string().contains("tls-pin"), "{error}");

    let stranger = Pki::new();
    let error = try_tls(stranger.settings(), port).await.unwrap_err();
    assert!(error.to_string().contains("tls-ca"), "{error}");

    let (port, _) = pki.serve("elsewhere", (2020, 2060), false).await;
    let error = try_tls(pki.settings(), port).await.unwrap_err();
    assert!(error.to_string().contains("another host"), "{error}");

    let (port, _) = pki.serve("localhost", (2000, 2001), false).await;
    let error = try_tls(pki.settings(), port).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

/// A certificate proves nothing by lying beside another one: everybody has seen the one that is pinned.
#[tokio::test]
async fn a_pinned_certificate_that_vouches_for_nothing_does_not_count() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (_, _, genuine) = other.leaf("localhost", (2020, 2060));
    let genuine = CertificateDer::from(genuine);
    let beside = vec![genuine.clone(), other.authority()];
    let (port, _) = pki
        .serve_with("localhost", (2020, 2060), false, beside)
        .await;
    let mut settings = pki.settings();
    for stranger in [&genuine, &other.authority()] {
        settings.tls.pins = vec![pin_of(stranger)];
        let error = try_tls(settings.clone(), port).await.unwrap_err();
        assert!(error.to_string().contains("tls-pin"), "{error}");
    }
    // The key of the authority that did vouch for it, which no server has to send.
    settings.tls.pins = vec![pin_of(&pki.authority())];
    try_tls(settings, port).await.unwrap();
}

/// What is known of the time outlives restarts: a wrong date must not be the last one that is ever believed.
#[tokio::test]
async fn a_server_is_believed_a_time_at_which_its_certificate_is_good() {
    let pki = Pki::new();
    let (port, _) = pki.serve("localhost", (2020, 2060), false).await;
    let time = tls::Time::default();
    let web = Web::new(pki.settings(), time.clone()).unwrap();
    let said = async |date: &'static str| {
        let call = get(&format!("https://localhost:{port}/"));
        let call = call.header(
            HeaderName::from_static("x-date"),
            HeaderValue::from_static(date),
        );
        web.call(&call, 10_000).await.unwrap();
        time.known()
    };
    assert_eq!(said("Thu, 01 Jan 2099 00:00:00 GMT").await, 0);
    assert_eq!(said("Fri, 01 Jan 2010 00:00:00 GMT").await, 0);
    assert_eq!(said("Tue, 01 Jan 2030 00:00:00 GMT").await, 1_893_456_000);
    // Over the same connection, and never back.
    assert_eq!(said("Sat, 01 Jan 2028 00:00:00 GMT").await, 1_893_456_000);
    assert_eq!(said("Wed, 01 Jan 2031 00:00:00 GMT").await, 1_924_992_000);
}

#[tokio::test]
async fn a_clock_that_is_behind_follows_what_a_verified_server_has_said() {
    let pki = Pki::new();
    let (port, _) = pki.serve("localhost", (2090, 2099), false).await;
    let call = get(&format!("https://localhost:{port}/"));
    let time = tls::Time::default();
    let web = Web::new(pki.settings(), time.clone()).unwrap();
    assert!(matches!(
        web.call(&call, 100).await,
        Err(WebError::Tls { .. })
    ));
    time.is_at_least(3_800_000_000); // in 2090
    web.call(&call, 10_000).await.unwrap();

    let never_set = std::io::Error::other(rustls::Error::InvalidCertificate(
        rustls::CertificateError::NotValidYet,
    ));
    // The clock of the machine that runs this test is set.
    assert_eq!(tls::advice(&never_set, &tls::Time::default()), None);
}

#[tokio::test]
async fn client_certificates() {
    let pki = Pki::new();
    let (port, _) = pki.serve("localhost", (2020, 2060), true).await;
    assert!(try_tls(pki.settings(), port).await.is_err());
    pki.leaf("device-1", (2020, 2060));
    let mut settings = pki.settings();
    settings.tls.identity = Some(Arc::new(tls::FileIdentity {
        certificate: pki.file("leaf.pem"),
        key: pki.file("leaf.key"),
    }));
    assert_eq!(try_tls(settings.clone(), port).await.unwrap().status, 200);

    // A key that is not the certificate's, files that hold something else: told at the start, with the file.
    let other = KeyPair::generate().unwrap();
    std::fs::write(pki.file("leaf.key"), other.serialize_pem()).unwrap();
    let error = Web::new(settings.clone(), tls::Time::default()).unwrap_err();
    assert!(error.to_string().contains("leaf.key"), "{error}");
    std::fs::write(pki.file("leaf.key"), "nothing").unwrap();
    assert!(Web::new(settings, tls::Time::default()).is_err());
}

/// A proxy: tells what it was asked for, then connects wherever it was told to.
async fn proxy() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (asked, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let head = head_of(&mut stream).await.unwrap();
                asked.send(head.clone()).ok();
                if !head.starts_with("CONNECT") {
                    stream.write_all(&ok("from the proxy").unwrap()).await.ok();
                    return;
                }
                if !head.contains("Basic dTpw") {
                    let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                    stream.write_all(refusal).await.ok();
                    return;
                }
                let to = head.split(' ').nth(1).unwrap();
                let mut there = TcpStream::connect(to).await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")
                    .await
                    .unwrap();
                tokio::io::copy_bidirectional(&mut stream, &mut there)
                    .await
                    .ok();
            });
        }
    });
    (at, told)
}

#[tokio::test]
async fn proxies_tunnel_tls_and_forward_the_rest() {
    let (at, mut told) = proxy().await;
    let pki = Pki::new();
    let (port, _) = pki.serve("localhost", (2020, 2060), false).await;
    let proxies = |credentials| {
        let proxy = Proxy::parse(&format!("http://{at}"), credentials).unwrap();
        Proxies {
            https: Some(proxy.clone()),
            http: Some(proxy),
            none_for: vec!["127.0.0.1".to_owned()],
        }
    };
    let mut settings = pki.settings();
    settings.proxies = proxies(Some("u:p"));
    let answer = try_tls(settings.clone(), port).await.unwrap();
    assert!(
        String::from_utf8(answer.body.to_vec())
            .unwrap()
            .contains("s3cret")
    );
    let asked = told.recv().await.unwrap();
    assert!(asked.starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\n")));
    assert!(
        !asked.contains("s3cret"),
        "the token is for the server only"
    );

    let answer = web(settings.clone())
        .call(&get("http://somewhere.example/a?b"), 100)
        .await
        .unwrap();
    assert_eq!(answer.body, "from the proxy");
    let asked = told.recv().await.unwrap();
    assert!(
        asked.starts_with("GET http://somewhere.example:80/a?b HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("proxy-authorization: Basic dTpw"), "{asked}");

    let (direct, _) = serve(|head| ok(&head)).await;
    web(settings.clone())
        .call(&get(&format!("http://{direct}/")), 10_000)
        .await
        .unwrap();
    assert!(told.try_recv().is_err(), "no-proxy goes past the proxy");

    settings.proxies = proxies(None);
    let error = try_tls(settings, port).await.unwrap_err();
    assert!(error.to_string().contains("proxy-credentials"), "{error}");
}

#[test]
fn settings_come_from_the_table_and_the_environment() {
    let mut config = Config::defaults("hawkbit", &[]);
    let environment = |name: &str| match name {
        "https_proxy" => Some("http://p:1".to_owned()),
        "NO_PROXY" => Some("a, b".to_owned()),
        "HTTP_PROXY" => Some("http://evil:1".to_owned()),
        _ => None,
    };
    let settings = WebSettings::from_config(&config, environment).unwrap();
    assert_eq!(
        format!("{:?}", settings.proxies),
        r#"Proxies { https: Some("http://p:1"), http: None, none_for: ["a", "b"] }"#
    );
    let cases: &[(&'static str, &str, bool)] = &[
        ("proxy", "none", true),
        ("tls-pin", "abc", false),
        ("tls-pin", &"ab".repeat(32), true),
        ("tls-key", "/x", false),
    ];
    for (name, value, good) in cases {
        let set = config.set(name, value, crate::config::Source::CommandLine);
        set.unwrap();
        let result = WebSettings::from_config(&config, environment);
        assert_eq!(result.is_ok(), *good, "{name} {value}");
    }
}
