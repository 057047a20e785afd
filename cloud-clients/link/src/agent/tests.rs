//! The whole loop against a cloud and a device in memory, with time that passes as fast as nothing happens.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use model::ObjectId;
use model::progress::State;
use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::cloud::{Polled, Reported};
use crate::config::Source;
use crate::deployment::{News as Said, Report};
use crate::fake::Fake;
use crate::offer::{Artifact, Hashes, Link};

/// What the cloud does at each poll.
type Answer = Box<dyn FnMut(&Situation, &[Report]) -> Result<News, CloudError> + Send>;

#[derive(Clone)]
struct Memory {
    answer: Arc<Mutex<Answer>>,
    heard: Arc<Mutex<Vec<Report>>>,
    polls: Arc<Mutex<Vec<(Why, Instant)>>>,
    deaf: Arc<Mutex<u32>>,
    /// An answer takes as long as that is so.
    slow: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

impl Memory {
    fn new(
        answer: impl FnMut(&Situation, &[Report]) -> Result<News, CloudError> + Send + 'static,
    ) -> Self {
        Self {
            answer: Arc::new(Mutex::new(Box::new(answer))),
            heard: Arc::default(),
            polls: Arc::default(),
            deaf: Arc::default(),
            slow: Arc::default(),
            changed: Arc::default(),
        }
    }

    fn said(&self) -> Vec<Said> {
        let heard = self.heard.lock().unwrap();
        heard.iter().map(|report| report.news.clone()).collect()
    }

    async fn until(&self, what: impl Fn(&[Report]) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if what(&self.heard.lock().unwrap()) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), waiting)
            .await
            .unwrap_or_else(|_| panic!("not said: {:?}", self.said()));
    }
}

impl Cloud for Memory {
    async fn poll(&mut self, situation: &Situation) -> Result<Polled, CloudError> {
        self.polls
            .lock()
            .unwrap()
            .push((situation.why, Instant::now()));
        self.changed.notify_one();
        let heard = self.heard.lock().unwrap().clone();
        let news = (self.answer.lock().unwrap())(situation, &heard)?;
        while self.slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Polled {
            news,
            interval: Some(Duration::from_secs(60)),
        })
    }

    async fn report(&mut self, report: &Report) -> Result<Reported, CloudError> {
        {
            let mut deaf = self.deaf.lock().unwrap();
            if *deaf > 0 {
                *deaf -= 1;
                return Err(CloudError::Unreachable {
                    reason: "offline".to_owned(),
                    retry_after: None,
                });
            }
        }
        self.heard.lock().unwrap().push(report.clone());
        self.changed.notify_one();
        Ok(Reported::Taken)
    }
}

fn manifest(text: &str) -> Vec<u8> {
    format!(r##"{{"#spec":"pantavisor-service-system@1","x/1":{{"n":{text}}}}}"##).into_bytes()
}

/// A server of one file, on loopback.
async fn serve(bytes: Vec<u8>) -> String {
    serve_once(bytes, Arc::new(AtomicBool::new(true))).await
}

/// The same, which says nothing before it may.
async fn serve_once(bytes: Vec<u8>, may: Arc<AtomicBool>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}/m", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else {
                    break;
                };
                head.push(byte);
            }
            while !may.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            stream.write_all(answer.as_bytes()).await.ok();
            stream.write_all(&bytes).await.ok();
        }
    });
    at
}

fn offer(name: &str, bytes: &[u8], at: &str) -> Offer {
    let artifact = Artifact {
        module: String::new(),
        name: "manifest.json".to_owned(),
        bytes: Some(bytes.len() as u64),
        hashes: Hashes {
            sha256: Some(ObjectId::of(bytes)),
            ..Hashes::default()
        },
        links: vec![Link::open(at)],
    };
    let mut offer = Offer::new(name.parse().unwrap(), vec![artifact]);
    offer.title = Some("spring".to_owned());
    offer
}

struct Place {
    home: tempfile::TempDir,
    device: Fake,
}

impl Place {
    fn new() -> Self {
        let device = Fake::new();
        device.runs(&manifest("1"), &[]);
        Self {
            home: tempfile::tempdir().unwrap(),
            device,
        }
    }

    fn agent(&self, settings: &[(&str, &str)]) -> Agent<Fake> {
        let mut config = Config::defaults("memory", &[]);
        let folder = self.home.path().display().to_string();
        let all = [
            ("folder", folder.as_str()),
            ("device-id", "device-1"),
            ("poll-min", "1s"),
            ("back-off-max", "5s"),
            ("proxy", "none"),
        ];
        for (name, value) in all.iter().chain(settings) {
            config.set(name, value, Source::CommandLine).unwrap();
        }
        Agent::open(config, self.device.clone()).unwrap()
    }
}

fn closed(heard: &[Report]) -> bool {
    heard.iter().any(Report::is_final)
}

/// Time passes by itself only where no real socket is waited for.
#[tokio::test]
async fn a_deployment_from_the_offer_to_the_last_word() {
    let place = Place::new();
    let bytes = manifest("2");
    let at = serve(bytes.clone()).await;
    let cloud = Memory::new(move |_, heard| {
        Ok(if closed(heard) {
            News::Nothing
        } else {
            News::Offer(Box::new(offer("8", &bytes, &at)))
        })
    });
    let settings = [
        ("poll-interval", "1s"),
        ("poll-max", "1s"),
        ("metadata-interval", "1s"),
    ];
    let stop = cloud.clone();
    place
        .agent(&settings)
        .run(cloud.clone(), async move {
            stop.until(closed).await;
            // The record is written after the cloud has it.
            tokio::time::sleep(Duration::from_millis(500)).await;
        })
        .await;
    let revision = place.device.inside().runs[0].0.clone();
    assert!(
        revision.as_str().starts_with("locals/memory-"),
        "{revision}"
    );
    assert_eq!(
        cloud.said(),
        [
            Said::Accepted,
            Said::Downloaded,
            Said::Installing {
                revision: revision.clone()
            },
            Said::Observing {
                revision: revision.clone()
            },
            Said::Done {
                revision: revision.clone(),
                ran_already: false
            },
        ]
    );
    let inside = place.device.inside();
    assert_eq!(inside.runs.len(), 1);
    assert_eq!(inside.revisions[&revision].2, "spring");
    assert!(inside.claims > 0);
    let status = &inside.device_meta["memory.status"];
    assert!(status.is_object(), "{status}");
    drop(inside);
    let record = place.agent(&[]).machine.record().clone();
    assert_eq!(record.current, None);
    assert_eq!(record.past.back().unwrap().phase, Phase::Done);
}

/// The record of a failure is told however long the device is busy going back, and nothing is told without it.
#[tokio::test]
async fn a_device_that_goes_back_is_asked_until_it_tells_the_cause() {
    let place = Place::new();
    {
        let mut inside = place.device.inside();
        inside.fate = vec![State::InProgress, State::Error];
        inside.mute = 3;
    }
    let bytes = manifest("5");
    let at = serve(bytes.clone()).await;
    let cloud = Memory::new(move |_, heard| {
        Ok(if closed(heard) {
            News::Nothing
        } else {
            News::Offer(Box::new(offer("8", &bytes, &at)))
        })
    });
    let stop = cloud.clone();
    place
        .agent(&[("poll-interval", "1s"), ("poll-max", "1s")])
        .run(cloud.clone(), async move { stop.until(closed).await })
        .await;
    let Some(Said::Failed { trouble }) = cloud.said().pop() else {
        panic!("{:?}", cloud.said());
    };
    assert_eq!((trouble.code, trouble.failure), (Code::Exited, Some(1)));
    assert_eq!(
        trouble.details,
        [
            "revision locals/memory-REV: Container not started (1 tries)",
            "revision 0 runs instead",
            "cannot bind",
            "it was started 3 times",
            "ERROR:",
        ]
        .map(|line| line.replace(
            "locals/memory-REV",
            place.device.inside().runs[0].0.as_str()
        ))
    );
    assert_eq!(place.device.inside().mute, 0);
}

#[tokio::test]
async fn killed_again_and_again_it_ends_right_and_once() {
    let place = Place::new();
    place.device.inside().fate = vec![State::InProgress, State::Testing, State::Error];
    let bytes = manifest("3");
    let at = serve(bytes.clone()).await;
    let heard: Arc<Mutex<Vec<Report>>> = Arc::default();
    let settings = [
        ("poll-interval", "1s"),
        ("poll-max", "1s"),
        ("metadata-interval", "1s"),
    ];
    let mut lives = 0;
    while !closed(&heard.lock().unwrap()) {
        lives += 1;
        assert!(lives < 200, "{heard:?}");
        let (bytes, at) = (bytes.clone(), at.clone());
        let mut cloud = Memory::new(move |_, heard| {
            Ok(if closed(heard) {
                News::Nothing
            } else {
                News::Offer(Box::new(offer("8", &bytes, &at)))
            })
        });
        cloud.heard = Arc::clone(&heard);
        // Lives of growing length, ended anywhere.
        let life = Duration::from_millis(37 * lives);
        place
            .agent(&settings)
            .run(cloud, tokio::time::sleep(life))
            .await;
    }
    let heard = heard.lock().unwrap();
    let finals: Vec<&Report> = heard.iter().filter(|report| report.is_final()).collect();
    assert!(!finals.is_empty());
    for last in &finals {
        assert_eq!(last.number, finals[0].number);
        let Said::Failed { trouble } = &last.news else {
            panic!("{last:?}");
        };
        assert!(trouble.summary.contains("exit code 7"), "{trouble:?}");
        assert!(
            trouble
                .details
                .iter()
                .any(|line| line.contains("cannot bind")),
            "{trouble:?}"
        );
    }
    let runs = &place.device.inside().runs;
    assert!(
        runs.iter().all(|(revision, _)| *revision == runs[0].0),
        "{runs:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_is_away_is_asked_with_growing_pauses_and_nothing_is_lost() {
    let place = Place::new();
    let mut polls = 0;
    let cloud = Memory::new(move |_, heard| {
        polls += 1;
        if polls <= 6 {
            return Err(CloudError::Unreachable {
                reason: "offline".to_owned(),
                retry_after: None,
            });
        }
        Ok(if closed(heard) {
            News::NoChange
        } else {
            News::Cancel("9".parse().unwrap())
        })
    });
    *cloud.deaf.lock().unwrap() = 5;
    let stop = cloud.clone();
    let settings = [("back-off-max", "60s")];
    place
        .agent(&settings)
        .run(cloud.clone(), async move { stop.until(closed).await })
        .await;
    assert_eq!(cloud.said(), [Said::Cancelled]);
    let polls = cloud.polls.lock().unwrap();
    assert!(polls.len() >= 7);
    assert!(polls.iter().take(7).all(|(why, _)| *why == Why::Start));
}

/// Some servers give the same name to something else. What the first download has said while the cloud was asked, and nobody listened,
/// is not taken for the second one's.
#[tokio::test]
async fn what_a_download_has_said_is_not_taken_for_the_next() {
    let place = Place::new();
    let (old, new) = (manifest("6"), manifest("7"));
    let may = Arc::new(AtomicBool::new(false));
    let old_at = serve_once(old.clone(), Arc::clone(&may)).await;
    let new_at = serve(new.clone()).await;
    let (device, wanted) = (place.device.clone(), new.clone());
    let slow: Arc<AtomicBool> = Arc::default();
    let is_slow = Arc::clone(&slow);
    let mut polls = 0;
    let mut cloud = Memory::new(move |_, heard| {
        polls += 1;
        if polls == 1 {
            return Ok(News::Offer(Box::new(offer("5", &old, &old_at))));
        }
        if polls == 2 {
            // The download ends while the cloud is asked.
            may.store(true, Ordering::SeqCst);
            is_slow.store(true, Ordering::SeqCst);
        }
        Ok(if closed(heard) {
            News::Nothing
        } else {
            News::Offer(Box::new(offer("5", &new, &new_at)))
        })
    });
    cloud.slow = Arc::clone(&slow);
    tokio::spawn(async move {
        while device.inside().revisions.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The rest of the download is a few questions in memory.
        tokio::time::sleep(Duration::from_millis(300)).await;
        slow.store(false, Ordering::SeqCst);
    });
    let stop = cloud.clone();
    place
        .agent(&[("poll-interval", "1s"), ("poll-max", "1s")])
        .run(cloud.clone(), async move { stop.until(closed).await })
        .await;
    let inside = place.device.inside();
    assert_eq!(inside.runs.len(), 1, "{:?}", inside.runs);
    let (bytes, ..) = &inside.revisions[&inside.runs[0].0];
    assert_eq!(*bytes, wanted);
}

/// A server that knows nothing of the last word, or shows old news for a while: it is told each time, and asked as often as it wants.
#[tokio::test(start_paused = true)]
async fn a_cloud_that_never_closes_what_has_ended_is_asked_no_more_often() {
    let place = Place::new();
    let cloud = Memory::new(|_, _| {
        Ok(News::Unreadable {
            id: "8".parse().unwrap(),
            reason: "nobody can read that".to_owned(),
        })
    });
    place
        .agent(&[])
        .run(cloud.clone(), tokio::time::sleep(Duration::from_secs(3600)))
        .await;
    let polls = cloud.polls.lock().unwrap().len();
    assert!((50..120).contains(&polls), "{polls} polls in an hour");
    let told = cloud.said();
    let told = told
        .iter()
        .filter(|news| matches!(news, Said::Refused { .. }));
    assert!(told.count() >= 50);
}

#[tokio::test(start_paused = true)]
async fn what_people_say_in_metadata_is_heard() {
    let place = Place::new();
    let bytes = manifest("4");
    let answer = bytes.clone();
    let cloud = Memory::new(move |situation, _| {
        if situation.why == Why::Asked {
            return Ok(News::Nothing);
        }
        let mut soft = offer("8", &answer, "http://127.0.0.1:1/m");
        soft.download = Gate::Ask;
        soft.install = Gate::Ask;
        Ok(News::Offer(Box::new(soft)))
    });
    let settings = [
        ("consent", "ask"),
        ("fetch-attempts", "3"),
        ("poll-interval", "600s"),
    ];
    let (device, stop) = (place.device.clone(), cloud.clone());
    device
        .inside()
        .device_meta
        .insert("pantavisor.arch".to_owned(), json!("aarch64"));
    place
        .agent(&settings)
        .run(cloud.clone(), async move {
            stop.until(|heard| {
                heard
                    .iter()
                    .any(|report| matches!(report.news, Said::Waiting { .. }))
            })
            .await;
            let set = |key: &str, value: &str| {
                let value = json!(value);
                device.inside().user_meta.insert(key.to_owned(), value);
            };
            set("memory.consent", "7,8");
            // Nobody listens at the link: it is tried three times.
            stop.until(closed).await;
            let before = stop.polls.lock().unwrap().len();
            set("memory.poll", "now");
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert!(
                stop.polls.lock().unwrap()[before..]
                    .iter()
                    .any(|(why, _)| *why == Why::Asked)
            );
        })
        .await;
    let last = cloud
        .said()
        .into_iter()
        .find(|news| matches!(news, Said::Failed { .. }));
    let Some(Said::Failed { trouble }) = last else {
        panic!("{:?}", cloud.said());
    };
    assert_eq!(trouble.code, Code::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn settings_from_metadata_hold_at_once_and_bad_ones_do_no_harm() {
    let place = Place::new();
    let cloud = Memory::new(|_, _| Ok(News::NoChange));
    let meta = [
        ("memory.poll-max", "2s"),
        ("memory.proxy", "https://no/such"),
        ("memory.rate-limit", "lots"),
    ];
    for (key, value) in meta {
        let value = json!(value);
        place
            .device
            .inside()
            .user_meta
            .insert(key.to_owned(), value);
    }
    place
        .agent(&[])
        .run(cloud.clone(), tokio::time::sleep(Duration::from_secs(100)))
        .await;
    let polls = cloud.polls.lock().unwrap().len();
    assert!((40..60).contains(&polls), "{polls}");
}

#[test]
fn what_cannot_be_used_is_told_at_the_start() {
    let place = Place::new();
    for (name, value, words) in [
        ("folder", "", "folder"),
        ("folder", "/proc/nothing", "folder"),
        ("tls-ca", "/no/such/file", "/no/such/file"),
        ("proxy", "ftp://x", "proxy|cannot be called"),
        ("tls-pin", "x", "tls-pin"),
    ] {
        let mut config = Config::defaults("memory", &[]);
        let folder = place.home.path().display().to_string();
        config.set("folder", &folder, Source::CommandLine).unwrap();
        config.set(name, value, Source::CommandLine).unwrap();
        let error = Agent::open(config, place.device.clone()).unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        assert!(words.split('|').any(|word| text.contains(word)), "{text}");
    }
}
