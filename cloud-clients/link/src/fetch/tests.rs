//! Downloads against a server on loopback that does what servers, proxies and mirrors do: breaks, lies, crawls, redirects, forgets.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::fake::Fake;
use crate::offer::{Credentials, Link};
use crate::web::{Address, Call, Proxies, WebSettings, tls};

mod mended;

/// How the server behaves for a path; what is not said is as it should be.
#[derive(Debug, Clone)]
struct Manner {
    bytes: Arc<Vec<u8>>,
    /// Connections break after so many bytes of a body.
    breaks: Option<usize>,
    /// Ranges are not known: 200 with everything.
    no_ranges: bool,
    /// This status for the first so many requests.
    status: (u16, usize),
    /// One byte a second.
    crawls: bool,
    /// Another length is announced and sent.
    longer: bool,
}

impl Manner {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(bytes),
            breaks: None,
            no_ranges: false,
            status: (200, 0),
            crawls: false,
            longer: false,
        }
    }
}

/// A server of files by their paths.
#[derive(Debug, Clone)]
struct Server {
    at: String,
    manners: Arc<Mutex<BTreeMap<String, Manner>>>,
    requests: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            at: format!("http://{}", listener.local_addr().unwrap()),
            manners: Arc::default(),
            requests: Arc::default(),
            sent: Arc::default(),
        };
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = shared.clone();
                tokio::spawn(async move { server.connection(stream).await });
            }
        });
        server
    }

    fn has(&self, path: &str, manner: Manner) -> Link {
        self.manners.lock().unwrap().insert(path.to_owned(), manner);
        Link::open(format!("{}{path}", self.at))
    }

    fn asked(&self, text: &str) -> usize {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|head| head.contains(text)).count()
    }

    async fn connection(&self, mut stream: tokio::net::TcpStream) -> Option<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.ok()?);
            }
            let head = String::from_utf8(head).unwrap();
            self.requests.lock().unwrap().push(head.clone());
            let path = head.split(' ').nth(1)?.to_owned();
            let manner = {
                let mut manners = self.manners.lock().unwrap();
                match manners.get_mut(&path) {
                    None => Manner {
                        status: (404, usize::MAX),
                        ..Manner::of(Vec::new())
                    },
                    Some(manner) => {
                        let now = manner.clone();
                        manner.status.1 = manner.status.1.saturating_sub(1);
                        now
                    }
                }
            };
            if manner.status.1 > 0 {
                let answer = format!(
                    "HTTP/1.1 {} X\r\nContent-Length: 0\r\n\r\n",
                    manner.status.0
                );
                stream.write_all(answer.as_bytes()).await.ok()?;
                continue;
            }
            self.answer(&mut stream, &head, &manner).await?;
        }
    }

    async fn answer(
        &self,
        stream: &mut tokio::net::TcpStream,
        head: &str,
        manner: &Manner,
    ) -> Option<()> {
        let mut bytes = manner.bytes.to_vec();
        if manner.longer {
            bytes.extend_from_slice(b"more");
        }
        let total = bytes.len();
        let range = head
            .lines()
            .find_map(|line| line.strip_prefix("range: bytes="))
            .filter(|_| !manner.no_ranges);
        let (from, to) = match range.and_then(|range| range.split_once('-')) {
            None => (0, total),
            Some((from, to)) => (
                from.parse().unwrap(),
                to.parse().map_or(total, |last: usize| last + 1).min(total),
            ),
        };
        if from >= total && range.is_some() {
            let answer = format!(
                "HTTP/1.1 416 X\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\n\r\n"
            );
            return stream.write_all(answer.as_bytes()).await.ok();
        }
        let status = if range.is_some() {
            format!("206 Part\r\nContent-Range: bytes {from}-{}/{total}", to - 1)
        } else {
            "200 OK".to_owned()
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"x\"\r\n\r\n",
            to - from
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
        let body = &bytes[from..to];
        if manner.crawls {
            for byte in body {
                stream.write_all(&[*byte]).await.ok()?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let cut = manner.breaks.unwrap_or(usize::MAX).min(body.len());
        for piece in body[..cut].chunks(16 << 10) {
            stream.write_all(piece).await.ok()?;
            self.sent.fetch_add(piece.len(), Ordering::SeqCst);
        }
        (cut == body.len()).then_some(())
    }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut number = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        bytes.extend_from_slice(&(number >> 8).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn artifact(name: &str, bytes: &[u8], links: Vec<Link>) -> Artifact {
    Artifact {
        module: "os".to_owned(),
        name: name.to_owned(),
        bytes: Some(bytes.len() as u64),
        hashes: Hashes {
            sha256: Some(ObjectId::of(bytes)),
            ..Hashes::default()
        },
        links,
    }
}

fn manifest(objects: &[&[u8]]) -> Vec<u8> {
    let mut text = String::from(r##"{"#spec":"pantavisor-service-system@1""##);
    for (number, bytes) in objects.iter().enumerate() {
        text.push_str(&format!(r#","x/{number}":"{}""#, ObjectId::of(bytes)));
    }
    text.push('}');
    text.into_bytes()
}

struct Run {
    device: Fake,
    policy: Policy,
    offers: watch::Sender<Arc<Offer>>,
    meter: Meter,
    taken: Arc<AtomicU64>,
}

impl Run {
    fn of(artifacts: Vec<Artifact>) -> Self {
        let offer = Offer::new("8".parse().unwrap(), artifacts);
        Self {
            device: Fake::new(),
            policy: Policy {
                parallel: 1,
                attempts: 8,
                min_rate: 100,
                stall_timeout: Duration::from_secs(1),
                back_off_max: Duration::from_millis(50),
                client: "test",
                rules: Vec::new(),
            },
            offers: watch::Sender::new(Arc::new(offer)),
            meter: Meter::new(Budget::new(0, 0, Duration::from_secs(1), clock::now())),
            taken: Arc::default(),
        }
    }

    /// Carries the offer out; `fresh` gives an offer with other links whenever they are asked for.
    async fn go(&self, fresh: impl Fn() -> Option<Offer>) -> Vec<Event> {
        let settings = WebSettings {
            tls: tls::TlsSettings::default(),
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(2),
            user_agent: "test".to_owned(),
        };
        let (events, mut happened) = mpsc::channel(64);
        let (stale, mut dead) = mpsc::channel(1);
        let fetching = Fetching {
            web: Web::new(settings, tls::Time::default()).unwrap(),
            policy: Arc::new(self.policy.clone()),
            meter: self.meter.clone(),
            offers: self.offers.subscribe(),
            stale,
            taken: Arc::clone(&self.taken),
        };
        let task = tokio::spawn(carry_out(self.device.clone(), fetching, None, events));
        let mut all = Vec::new();
        loop {
            tokio::select! {
                event = happened.recv() => match event {
                    Some(Event::Progressed(_)) => {}
                    Some(event) => all.push(event),
                    None => break,
                },
                Some(()) = dead.recv() => {
                    let current = Offer::clone(&self.offers.borrow());
                    self.offers.send_replace(Arc::new(fresh().unwrap_or(current)));
                }
            }
        }
        task.await.unwrap();
        all
    }

    fn has(&self, bytes: &[u8]) -> bool {
        let inside = self.device.inside();
        let found = inside.objects.get(&ObjectId::of(bytes));
        found.is_some_and(|found| found == bytes)
    }
}

fn is_fetched(events: &[Event]) -> bool {
    matches!(events.last(), Some(Event::Fetched(_)))
}

fn rejected(events: &[Event]) -> &Trouble {
    match events.last() {
        Some(Event::Rejected(trouble)) => trouble,
        other => panic!("not rejected: {other:?}"),
    }
}

#[tokio::test]
async fn only_what_is_missing_is_fetched() {
    let server = Server::start().await;
    let (one, two) = (noise(300_000, 1), noise(500_000, 2));
    let json = manifest(&[&one, &two]);
    let run = Run::of(vec![
        artifact(
            "manifest.json",
            &json,
            vec![server.has("/m", Manner::of(json.clone()))],
        ),
        artifact("a", &one, vec![server.has("/a", Manner::of(one.clone()))]),
        artifact("b", &two, vec![server.has("/b", Manner::of(two.clone()))]),
    ]);
    run.device
        .inside()
        .objects
        .insert(ObjectId::of(&one), one.clone().into());
    run.device
        .inside()
        .parts
        .insert(ObjectId::of(&two), two[..200_000].to_vec());
    let events = run.go(|| None).await;
    assert!(is_fetched(&events), "{events:?}");
    assert!(run.has(&two));
    assert_eq!(server.asked("GET /a"), 0);
    assert_eq!(
        run.taken.load(Ordering::Relaxed),
        json.len() as u64 + 300_000
    );
    assert!(
        matches!(&events[0], Event::Prepared { manifest, .. } if *manifest == ObjectId::of(&json))
    );
    // The same again finds everything there.
    let events = run.go(|| None).await;
    assert!(is_fetched(&events), "{events:?}");
    assert_eq!(server.asked("GET /b"), 1);
}

#[tokio::test]
async fn a_link_that_breaks_again_and_again_costs_next_to_nothing() {
    let big = noise(6 << 20, 3);
    let json = manifest(&[&big]);
    for parallel in [1, 3] {
        let server = Server::start().await;
        let broken = Manner {
            breaks: Some(300_000),
            ..Manner::of(big.clone())
        };
        let mut run = Run::of(vec![
            artifact(
                "json",
                &json,
                vec![server.has("/m", Manner::of(json.clone()))],
            ),
            artifact("a", &big, vec![server.has("/a", broken)]),
        ]);
        run.policy.parallel = parallel;
        // The upload breaks too, once.
        run.device.inside().break_after = Some(1_000_000);
        let events = run.go(|| None).await;
        assert!(is_fetched(&events), "{events:?}");
        assert!(run.has(&big));
        let taken = run.taken.load(Ordering::Relaxed);
        // What was on its way to the upload that broke comes twice.
        let most = big.len() as u64 + json.len() as u64 + (1_500_000);
        assert!(taken <= most, "{taken} for {} ({parallel})", big.len());
        assert!(server.asked("GET /a") >= 12);
    }
}

#[tokio::test]
async fn a_byte_budget_holds_over_windows_and_over_lives_of_the_client() {
    const LIMIT: u64 = 200_000;
    let server = Server::start().await;
    let big = noise(700_000, 6);
    let json = manifest(&[&big]);
    let mut run = Run::of(vec![
        artifact(
            "manifest.json",
            &json,
            vec![server.has("/m", Manner::of(json.clone()))],
        ),
        artifact("a", &big, vec![server.has("/a", Manner::of(big.clone()))]),
    ]);
    let home = tempfile::tempdir().unwrap();
    let keep = crate::keep::Keep::open(home.path()).unwrap();
    // As a new life of the client finds it.
    let meter = |window| {
        let budget = Budget::new(0, LIMIT, window, clock::now());
        Meter::kept(budget, keep.clone(), tls::Time::default())
    };
    let hour = Duration::from_secs(3600);
    let taken = Arc::clone(&run.taken);
    let spent_by = async |run: &Run, time| {
        let before = taken.load(Ordering::Relaxed);
        let ended = tokio::time::timeout(time, run.go(|| None)).await;
        assert!(ended.is_err(), "it waits for the next window");
        taken.load(Ordering::Relaxed) - before
    };
    run.meter = meter(hour);
    let most = LIMIT + (64 << 10);
    let first = spent_by(&run, Duration::from_secs(2)).await;
    assert!((LIMIT..most).contains(&first), "{first}");
    // Killed and started again and again: not a byte more.
    for _ in 0..3 {
        run.meter = meter(hour);
        let again = spent_by(&run, Duration::from_millis(300)).await;
        assert_eq!(again, 0);
    }
    // Windows that pass: what is left needs two of them.
    run.meter = meter(Duration::from_secs(1));
    let start = Instant::now();
    let events = run.go(|| None).await;
    assert!(is_fetched(&events), "{events:?}");
    assert!(run.has(&big));
    assert!(start.elapsed() >= Duration::from_millis(900));
    // A folder that cannot be written: a piece comes, and nothing more.
    run.meter = meter(hour);
    drop(home);
    run.device.inside().objects.clear();
    run.device.inside().parts.clear();
    let unkept = spent_by(&run, Duration::from_millis(600)).await;
    assert!(unkept <= 64 << 10, "{unkept}");
}

#[tokio::test]
async fn mirrors_stand_in_for_each_other() {
    let server = Server::start().await;
    let big = noise(2 << 20, 4);
    let json = manifest(&[&big]);
    let wrong = Manner::of(noise(2 << 20, 5));
    let lies = Manner {
        longer: true,
        ..Manner::of(big.clone())
    };
    let plain = Manner {
        no_ranges: true,
        breaks: Some(700_000),
        ..Manner::of(big.clone())
    };
    let busy = Manner {
        status: (503, 2),
        ..Manner::of(big.clone())
    };
    for (name, manner) in [
        ("longer", lies),
        ("no ranges", plain),
        ("busy", busy),
        ("other bytes", wrong),
    ] {
        for parallel in [1, 2] {
            let links = vec![
                server.has("/nowhere-else", manner.clone()),
                Link::open(format!("{}/none", server.at)),
                server.has("/good", Manner::of(big.clone())),
                Link::open("gopher://x/"),
            ];
            let mut run = Run::of(vec![
                artifact(
                    "json",
                    &json,
                    vec![server.has("/m", Manner::of(json.clone()))],
                ),
                artifact("a", &big, links),
            ]);
            run.policy.parallel = parallel;
            let events = run.go(|| None).await;
            assert!(is_fetched(&events), "{name} {parallel}: {events:?}");
            assert!(run.has(&big), "{name} {parallel}");
        }
    }
}

#[tokio::test]
async fn links_that_have_expired_are_asked_for_anew() {
    let server = Server::start().await;
    let big = noise(1 << 20, 6);
    let json = manifest(&[&big]);
    let offer = |path: &str| {
        vec![
            artifact(
                "json",
                &json,
                vec![server.has("/m", Manner::of(json.clone()))],
            ),
            artifact("a", &big, vec![Link::open(format!("{}{path}", server.at))]),
        ]
    };
    let run = Run::of(offer("/expired"));
    server.has("/fresh", Manner::of(big.clone()));
    let events = run
        .go(|| Some(Offer::new("8".parse().unwrap(), offer("/fresh"))))
        .await;
    assert!(is_fetched(&events), "{events:?}");
    assert_eq!(server.asked("GET /expired"), 1);

    // A cloud that gives the same dead link again and again.
    let run = Run::of(offer("/expired"));
    let events = run.go(|| None).await;
    let trouble = rejected(&events);
    assert_eq!(trouble.code, Code::Unreachable);
    assert!(trouble.details[0].contains("404"), "{trouble:?}");
}

#[tokio::test]
async fn what_is_not_what_it_should_be_is_refused() {
    let server = Server::start().await;
    let big = noise(100_000, 7);
    let json = manifest(&[&big]);
    let link = |path: &str, bytes: &[u8]| vec![server.has(path, Manner::of(bytes.to_vec()))];
    let good = artifact("json", &json, link("/m", &json));
    let cases: Vec<(&str, Vec<Artifact>, Code)> = vec![
        (
            "another manifest",
            vec![artifact("json", &json, link("/1", &noise(json.len(), 1)))],
            Code::BadHash,
        ),
        (
            "another object",
            vec![
                good.clone(),
                artifact("a", &big, link("/2", &noise(100_000, 8))),
            ],
            Code::BadHash,
        ),
        (
            "no manifest",
            vec![artifact("json", b"{}", link("/3", b"{}"))],
            Code::BadManifest,
        ),
        ("an object nowhere", vec![good.clone()], Code::MissingObject),
        (
            "nothing known",
            vec![artifact("a.txt", b"x", link("/4", b"x"))],
            Code::BadOffer,
        ),
        (
            "no archive",
            vec![artifact("a.tar", &big, link("/5", &big))],
            Code::BadOffer,
        ),
        (
            "a manifest without end",
            vec![artifact(
                "json",
                &noise(5 << 20, 1),
                link("/6", &noise(5 << 20, 1)),
            )],
            Code::BadManifest,
        ),
    ];
    for (name, artifacts, code) in cases {
        let run = Run::of(artifacts);
        let events = run.go(|| None).await;
        assert_eq!(rejected(&events).code, code, "{name}: {events:?}");
    }
    let run = Run::of(vec![good, artifact("a", &big, link("/7", &big))]);
    run.device.inside().free_bytes = 1000;
    let events = run.go(|| None).await;
    assert_eq!(rejected(&events).code, Code::NoSpace);
    assert_eq!(server.asked("GET /7"), 0, "space is asked for first");
}

#[tokio::test]
async fn a_server_that_crawls_is_left() {
    let server = Server::start().await;
    let big = noise(100_000, 9);
    let json = manifest(&[&big]);
    let slow = Manner {
        crawls: true,
        ..Manner::of(big.clone())
    };
    let links = vec![
        server.has("/slow", slow),
        server.has("/good", Manner::of(big.clone())),
    ];
    let run = Run::of(vec![
        artifact(
            "json",
            &json,
            vec![server.has("/m", Manner::of(json.clone()))],
        ),
        artifact("a", &big, links),
    ]);
    let events = run.go(|| None).await;
    assert!(is_fetched(&events), "{events:?}");
    assert!(server.asked("GET /slow") >= 1 && run.has(&big));
}

fn bundle(json: &[u8], objects: &[&[u8]], json_last: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    };
    if !json_last {
        add("./json", json);
    }
    for bytes in objects {
        add(&format!("objects/{}", ObjectId::of(bytes)), bytes);
    }
    if json_last {
        add("json", json);
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bundles_plain_and_packed_over_a_link_that_breaks() {
    let server = Server::start().await;
    let (one, two) = (noise(1 << 20, 10), noise(900_000, 11));
    let json = manifest(&[&one, &two]);
    for (name, bytes) in [
        ("a.tar", bundle(&json, &[&one, &two], false)),
        ("a.tgz", gzip(&bundle(&json, &[&one, &two], false))),
        ("last.tar", bundle(&json, &[&one, &two], true)),
    ] {
        let breaks = Manner {
            breaks: Some(250_000),
            ..Manner::of(bytes.clone())
        };
        let mut whole = artifact(name, &bytes, vec![server.has("/b", breaks)]);
        // A server that tells only SHA-1.
        whole.hashes.sha1 = Some(sha1::Sha1::digest(&bytes).into());
        whole.hashes.sha256 = whole.hashes.sha256.filter(|_| name == "a.tar");
        let run = Run::of(vec![whole]);
        let events = run.go(|| None).await;
        assert!(is_fetched(&events), "{name}: {events:?}");
        assert!(run.has(&one) && run.has(&two), "{name}");
        assert!(
            run.taken.load(Ordering::Relaxed) < bytes.len() as u64 + 10_000,
            "{name}"
        );
    }
}

#[tokio::test]
async fn of_a_plain_bundle_only_what_is_missing_is_fetched_and_all_of_it_is_verified() {
    let server = Server::start().await;
    let (one, two) = (noise(3 << 20, 12), noise(400_000, 13));
    let json = manifest(&[&one, &two]);
    let bytes = bundle(&json, &[&one, &two], false);
    let link = || vec![server.has("/b", Manner::of(bytes.clone()))];
    let run = Run::of(vec![artifact("a.tar", &bytes, link())]);
    run.device
        .inside()
        .objects
        .insert(ObjectId::of(&one), one.clone().into());
    let events = run.go(|| None).await;
    assert!(is_fetched(&events), "{events:?}");
    let taken = run.taken.load(Ordering::Relaxed);
    assert!(taken < 1_500_000, "{taken} of {}", bytes.len());

    let mut wrong = artifact("a.tar", &bytes, link());
    wrong.hashes.sha256 = Some(ObjectId::of(b"something else"));
    let run = Run::of(vec![wrong]);
    run.device
        .inside()
        .objects
        .insert(ObjectId::of(&one), one.into());
    let events = run.go(|| None).await;
    assert_eq!(rejected(&events).code, Code::BadHash);
    assert!(!is_fetched(&events));
}

#[tokio::test]
async fn a_bundle_that_lies_is_refused() {
    let server = Server::start().await;
    let one = noise(1000, 14);
    let json = manifest(&[&one]);
    let mut lying = bundle(&json, &[&one], false);
    let place = lying.len() - 1024 - 500;
    lying[place] ^= 1;
    let cut = bundle(&json, &[&one], false)[..2000].to_vec();
    let empty = bundle(b"{}", &[], false);
    let without = bundle(&json, &[], false);
    let mut nothing = tar::Builder::new(Vec::new());
    nothing
        .append_data(&mut tar::Header::new_gnu(), "x", &b""[..])
        .unwrap();
    for (name, bytes, code) in [
        ("another object", lying, Code::BadHash),
        ("cut short", cut, Code::BadOffer),
        ("a bad manifest", empty, Code::BadManifest),
        ("an object left out", without, Code::MissingObject),
    ] {
        let link = vec![server.has("/b", Manner::of(bytes.clone()))];
        let run = Run::of(vec![artifact("a.tar", &bytes, link)]);
        let events = run.go(|| None).await;
        assert_eq!(rejected(&events).code, code, "{name}: {events:?}");
    }
}

#[tokio::test]
async fn a_patch_and_plain_files_change_what_runs() {
    let server = Server::start().await;
    let (old, new) = (noise(1000, 15), noise(2000, 16));
    let running = format!(
        r##"{{"#spec":"pantavisor-service-system@1","x/1":"{}","y/2":{{"a": 1}}}}"##,
        ObjectId::of(&old)
    );
    let patch = format!(
        r##"{{"#spec":"coxswain-patch@1","#remove":["y"],"x/1":"{}"}}"##,
        ObjectId::of(&new)
    );
    let run = Run::of(vec![
        artifact(
            "patch.json",
            patch.as_bytes(),
            vec![server.has("/p", Manner::of(patch.clone().into_bytes()))],
        ),
        artifact(
            "new.bin",
            &new,
            vec![server.has("/n", Manner::of(new.clone()))],
        ),
    ]);
    run.device.runs(running.as_bytes(), &[&old]);
    let events = run.go(|| None).await;
    assert!(is_fetched(&events), "{events:?}");
    let Event::Prepared { revision, base, .. } = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(*base, Some(ObjectId::of(running.as_bytes())));
    let text = run.device.inside().revisions[revision].0.clone();
    let expected = format!(
        r##"{{"#spec":"pantavisor-service-system@1","x/1":"{}"}}"##,
        ObjectId::of(&new)
    );
    assert_eq!(text, expected);

    // Once it runs, the same patch has nothing to do.
    run.device.runs(expected.as_bytes(), &[&new]);
    let events = run.go(|| None).await;
    assert!(
        matches!(events[..], [Event::RunsAlready { .. }]),
        "{events:?}"
    );

    let mut unknown = artifact(
        "root.img",
        &new,
        vec![server.has("/n", Manner::of(new.clone()))],
    );
    unknown.hashes = Hashes::default();
    let mut run = Run::of(vec![unknown]);
    run.policy.rules = vec!["root.img=web/root.img".to_owned()];
    run.device.runs(running.as_bytes(), &[&old]);
    let events = run.go(|| None).await;
    assert!(rejected(&events).summary.contains("SHA-256"), "{events:?}");
}

#[tokio::test]
async fn credentials_go_where_they_belong() {
    let server = Server::start().await;
    let json = manifest(&[]);
    let mut link = server.has("/m", Manner::of(json.clone()));
    link.credentials = Some(Credentials::authorization("TargetToken s3cret"));
    let run = Run::of(vec![artifact("json", &json, vec![link])]);
    assert!(is_fetched(&run.go(|| None).await));
    assert_eq!(server.asked("authorization: TargetToken s3cret"), 1);
    // The server itself, so that a case that fails shows where.
    let web = Web::new(
        WebSettings {
            tls: tls::TlsSettings::default(),
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(2),
            user_agent: "test".to_owned(),
        },
        tls::Time::default(),
    );
    let none = Call::new(
        Method::GET,
        Address::parse(&format!("{}/none", server.at)).unwrap(),
    );
    let answer = web.unwrap().call(&none, 100).await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}
