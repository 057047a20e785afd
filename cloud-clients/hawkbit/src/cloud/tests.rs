//! The conversation with a server that is scripted: answers that a faithful one (`tests/clouds`) can hardly be brought to give.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use link::config::Source;
use link::deployment::{Code, Trouble};
use link::web::{WebSettings, tls};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::settings::{CLIENT, SETTINGS};

/// Answers by method and path below the device's own, in their order; the last one stays.
type Script = BTreeMap<String, VecDeque<(u16, &'static str)>>;

/// A server on loopback, and what it was sent: method, path and body.
#[derive(Clone)]
struct Server {
    at: String,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(script: &[(&str, &[(u16, &'static str)])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script = script
            .iter()
            .map(|(call, answers)| ((*call).to_owned(), answers.iter().copied().collect()));
        let server = Self {
            at: format!("http://{}", listener.local_addr().unwrap()),
            script: Arc::new(Mutex::new(script.collect())),
            asked: Arc::default(),
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

    async fn connection(&self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await.ok()? == 0 {
                    return None;
                }
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            let mut words = head.split(' ');
            let (method, path) = (words.next()?, words.next()?);
            let path = path.split('?').next()?.split("/device-1").nth(1)?;
            let call = format!("{method} {path}");
            let body = String::from_utf8(body).unwrap();
            self.asked.lock().unwrap().push(format!("{call} {body}"));
            let (status, body) = self.answer(&call);
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }

    fn answer(&self, call: &str) -> (u16, &'static str) {
        let mut script = self.script.lock().unwrap();
        match script.get_mut(call) {
            None => (404, ""),
            Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some(answers) => answers[0],
        }
    }

    /// What was sent in a call.
    fn sent(&self, call: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let bodies = asked.iter().filter_map(|asked| asked.strip_prefix(call));
        bodies.map(|body| body.trim().to_owned()).collect()
    }

    fn client(&self) -> Hawkbit {
        let mut config = Config::defaults(CLIENT, SETTINGS);
        let given = [
            ("server", self.at.as_str()),
            ("controller-id", "device-1"),
            ("target-token", "s3cret"),
        ];
        for (name, text) in given {
            config.set(name, text, Source::CommandLine).unwrap();
        }
        let settings = WebSettings::from_config(&config, |_| None).unwrap();
        let web = Web::new(settings, tls::Time::default()).unwrap();
        let mut client = Hawkbit::new();
        client.configure(&config, &web).unwrap();
        client
    }
}

fn report(news: Told) -> Report {
    Report {
        number: 1,
        deployment: "8".parse().unwrap(),
        news,
    }
}

fn situation() -> Situation {
    Situation {
        why: Why::Interval,
        held: None,
        consents: Vec::new(),
        attributes: BTreeMap::new(),
    }
}

/// What the refusal advises must help: once the operator cancels the action it is over at the device too.
#[tokio::test]
async fn a_download_only_action_without_rows_ends_when_it_is_cancelled() {
    const FULL: &str = r#"{"errorCode":"hawkbit.server.error.quota.tooManyEntries"}"#;
    let server = Server::start(&[
        ("POST /deploymentBase/8/feedback", &[(429, FULL)]),
        ("POST /cancelAction/8/feedback", &[(405, ""), (200, "")]),
    ])
    .await;
    let mut client = server.client();
    let last = report(Told::DownloadedOnly);
    let error = client.report(&last).await.unwrap_err();
    assert!(error.to_string().contains("has to cancel"), "{error}");
    assert_eq!(client.report(&last).await.unwrap(), Reported::Taken);
    let said = server.sent("POST /deploymentBase/8/feedback").join(" ");
    assert!(!said.contains("closed"), "{said}");
    // What can be closed is closed, and nothing is cancelled.
    assert_eq!(server.sent("POST /cancelAction/8/feedback").len(), 2);
}

/// gooseBit says 422 where hawkBit says 400.
#[tokio::test]
async fn a_last_word_that_cannot_be_read_is_said_with_fewer_words_and_then_dropped() {
    for status in [400, 422] {
        let server = Server::start(&[(
            "POST /deploymentBase/8/feedback",
            &[(status, r#"{"detail":"no"}"#), (200, ""), (status, "")],
        )])
        .await;
        let mut client = server.client();
        let trouble = Trouble::new(Code::Exited, "it ended").with_details(["a line"]);
        let last = report(Told::Failed { trouble });
        assert_eq!(client.report(&last).await.unwrap(), Reported::Taken);
        let bodies = server.sent("POST /deploymentBase/8/feedback");
        assert!(bodies[0].contains("a line"), "{bodies:?}");
        assert!(!bodies[1].contains("a line") && bodies[1].contains("201"));
        assert_eq!(client.report(&last).await.unwrap(), Reported::Gone);
    }
}

#[tokio::test]
async fn consent_that_was_not_taken_is_given_again() {
    let server = Server::start(&[
        (
            "GET ",
            &[(
                200,
                r#"{"_links":{"confirmationBase":{"href":"/DEFAULT/controller/v1/device-1/confirmationBase/8?c=1"}}}"#,
            )],
        ),
        (
            "GET /confirmationBase/8",
            &[(
                200,
                r#"{"id":"8","confirmation":{"download":"forced","update":"forced","chunks":[]}}"#,
            )],
        ),
        (
            "POST /confirmationBase/8/feedback",
            &[(400, ""), (200, "")],
        ),
    ])
    .await;
    let mut client = server.client();
    for given in [1, 2, 2] {
        let polled = client.poll(&situation()).await.unwrap();
        assert!(matches!(polled.news, News::Offer(_)), "{polled:?}");
        let sent = server.sent("POST /confirmationBase/8/feedback");
        assert_eq!(sent.len(), given, "{sent:?}");
        assert!(sent.iter().all(|body| body.contains("confirmed")));
    }
}
