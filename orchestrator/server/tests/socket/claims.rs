//! Claims over the socket: who the client is, what is taken and refused, and how a refusal reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use device::handle::{Answer, ClaimView, Refusal, Request};
use lifecycle::claims::{Claims, Members, Refused};
use lifecycle::touch::{self, Touch};
use model::Instant;
use model::claim::Client;
use serde_json::{Value, json};
use server::Caller;

use crate::device::Bench;
use crate::wire::{Got, ask, get, send};

/// The claims of the loop that stands for the device: real ones; of the changes only control of `web` is looked at.
#[derive(Default)]
pub(crate) struct Register(Mutex<Claims>);

const NOW: Instant = Instant(0);

impl Register {
    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "only what the test sends is looked at"
    )]
    pub(crate) fn refuses(&self, client: &Client, request: &Request) -> Result<(), Refusal> {
        let touched = if let Request::Control { container, .. } = request {
            touch::by_control(container, &"app".parse().unwrap())
        } else if let Request::Command(_) = request {
            BTreeSet::from([Touch::Rest])
        } else {
            BTreeSet::new()
        };
        match self.claims().refuses(NOW, client, &touched) {
            Some(conflict) => Err(Refusal::Claimed(Box::new(conflict))),
            None => Ok(()),
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "anything else is a mistake in the test, and told"
    )]
    pub(crate) fn carry_out(&self, request: Request) -> Result<Answer, Refusal> {
        let mut claims = self.claims();
        let members = Members::new();
        let granted = match &request {
            Request::Claim { client, wanted } => {
                claims.claim(NOW, client, wanted.clone(), &members)
            }
            Request::RenewClaim {
                client,
                id,
                lease_s,
            } => claims.renew(NOW, client, *id, *lease_s),
            Request::ReleaseClaim { client, id } => {
                return match claims.release(client, *id) {
                    Ok(_) => Ok(Answer::Done),
                    Err(refused) => Err(refusal(refused)),
                };
            }
            Request::As { .. }
            | Request::PutRevision { .. }
            | Request::DeleteRevision(_)
            | Request::PutCommitMessage { .. }
            | Request::Command(_)
            | Request::Control { .. }
            | Request::Ready(_)
            | Request::PutMeta { .. }
            | Request::DeleteMeta { .. }
            | Request::Collect
            | Request::Plan(_)
            | Request::Stop { .. } => panic!("{request:?} is about no claim"),
        };
        let id = granted.map_err(refusal)?.id;
        drop(claims);
        let shown = self.shown().into_iter().find(|shown| shown.claim.id == id);
        Ok(Answer::Claimed(Box::new(shown.unwrap())))
    }

    pub(crate) fn shown(&self) -> Vec<ClaimView> {
        let claims = self.claims();
        let overruled: BTreeMap<u64, u64> = claims.overruled(&Members::new());
        let held = claims.held().map(|held| ClaimView {
            claim: held.claim.clone(),
            expires: held.expires,
            overruled_by: overruled.get(&held.claim.id).copied(),
        });
        held.collect()
    }
}

fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::Taken(conflict) => Refusal::Claimed(conflict),
        Refused::Limit(text) => Refusal::Limit(text),
        Refused::NoSuch(id) => Refusal::NoSuchClaim(id),
        Refused::NotYours { id, client } => Refusal::NotYourClaim { id, client },
    }
}

fn body(got: &Got) -> Value {
    serde_json::from_slice(&got.body).unwrap_or_else(|_| panic!("no JSON: {}", got.text()))
}

fn claim(bench: &Bench, wanted: Value) -> Got {
    send(
        &bench.socket,
        "POST",
        "/claims",
        wanted.to_string().as_bytes(),
    )
}

fn container(name: &str) -> Caller {
    Caller::Container(name.parse().unwrap())
}

/// A request of a program of the host.
fn by(bench: &Bench, name: &str, method: &str, target: &str, body: &str) -> Got {
    let length = body.len();
    ask(
        &bench.socket,
        format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nCoxswain-Client: {name}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ),
    )
}

#[test]
fn a_claim_is_made_shown_renewed_and_released() {
    let bench = Bench::start();
    assert_eq!(get(&bench.socket, "/claims").text(), "[]");
    bench.call_as(container("pvr-sdk"));
    let made = claim(&bench, json!({"parts": ["container:web", "bsp"]}));
    assert_eq!(made.status(), 200, "{}", made.text());
    let made = body(&made);
    assert_eq!(made["client"], "container:pvr-sdk");
    assert_eq!(made["parts"], json!(["bsp", "container:web"]));
    assert_eq!(
        (&made["priority"], &made["lease_s"]),
        (&json!(100), &json!(300))
    );
    assert!(made["left_s"].as_u64().unwrap() <= 300);
    assert!(made["until"].as_str().unwrap().ends_with('Z'));
    let listed = body(&get(&bench.socket, "/claims"));
    assert_eq!(listed[0]["id"], made["id"]);
    let path = format!("/claims/{}", made["id"]);
    let renewed = send(&bench.socket, "PUT", &path, b"{\"lease_s\":600}");
    assert_eq!(body(&renewed)["lease_s"], 600);
    let renewed = send(&bench.socket, "PUT", &path, b"");
    assert_eq!(body(&renewed)["lease_s"], 600);
    assert_eq!(send(&bench.socket, "DELETE", &path, b"").status(), 200);
    let gone = send(&bench.socket, "PUT", &path, b"");
    assert_eq!(
        (gone.status(), &body(&gone)["code"]),
        (404, &json!("no-such-claim"))
    );
    assert_eq!(get(&bench.socket, "/claims").text(), "[]");
}

#[test]
fn a_refusal_says_who_what_and_until_when() {
    let bench = Bench::start();
    bench.call_as(container("pvr-sdk"));
    assert_eq!(
        claim(&bench, json!({"parts": ["*"], "lease_s": 60})).status(),
        200
    );
    bench.call_as(Caller::Host { uid: 0 });
    let stop = send(
        &bench.socket,
        "PUT",
        "/containers/web",
        b"{\"action\":\"stop\"}",
    );
    assert_eq!(stop.status(), 409);
    assert_eq!(stop.header("Coxswain-Problem"), Some("claimed"));
    assert_eq!(stop.text(), r#"{"Error":"Claimed by another client"}"#);
    let left: u32 = stop.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=60).contains(&left), "{left}");
    let told = ask(
        &bench.socket,
        "PUT /containers/web HTTP/1.1\r\nAccept: application/problem+json\r\nContent-Length: 17\r\n\
         Connection: close\r\n\r\n{\"action\":\"stop\"}",
    );
    let told = body(&told);
    let detail = told["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("container web is claimed by container:pvr-sdk (claim 1, priority 100)"),
        "{detail}"
    );
    assert_eq!(told["claim"]["client"], "container:pvr-sdk");
    assert_eq!(told["claim"]["parts"], json!(["*"]));
    assert!(told["claim"]["until"].as_str().unwrap().ends_with('Z'));
    // And a claim on it alike; a higher one is granted, and shown on both.
    let same = claim(&bench, json!({"parts": ["container:web"]}));
    assert_eq!(
        (same.status(), &body(&same)["claim"]["id"]),
        (409, &json!(1))
    );
    let higher = claim(&bench, json!({"parts": ["container:web"], "priority": 101}));
    assert_eq!(higher.status(), 200);
    let listed = body(&get(&bench.socket, "/claims"));
    assert_eq!(listed[0]["overruled_by"], body(&higher)["id"]);
    assert_eq!(listed[1].get("overruled_by"), None);
    let stop = send(
        &bench.socket,
        "PUT",
        "/containers/web",
        b"{\"action\":\"stop\"}",
    );
    assert_eq!(stop.status(), 200, "{}", stop.text());
}

#[test]
fn programs_of_the_host_say_their_names_and_containers_cannot() {
    let bench = Bench::start();
    let parts = r#"{"parts":["bsp"]}"#;
    let made = by(&bench, "hawkbit", "POST", "/claims", parts);
    assert_eq!(body(&made)["client"], "host:hawkbit");
    let path = format!("/claims/{}", body(&made)["id"]);
    assert_eq!(by(&bench, "azure", "POST", "/claims", parts).status(), 409);
    assert_eq!(by(&bench, "azure", "PUT", &path, "").status(), 403);
    let other = by(&bench, "azure", "DELETE", &path, "");
    assert_eq!(
        (other.status(), &body(&other)["code"]),
        (403, &json!("not-your-claim"))
    );
    // In the name of another one.
    bench.call_as(container("pvr-sdk"));
    assert_eq!(by(&bench, "hawkbit", "PUT", &path, "").status(), 403);
    let own = by(
        &bench,
        "hawkbit",
        "POST",
        "/claims",
        r#"{"parts":["group:app"]}"#,
    );
    assert_eq!(body(&own)["client"], "container:pvr-sdk");
    // A person ends any.
    bench.call_as(Caller::Host { uid: 0 });
    assert_eq!(send(&bench.socket, "DELETE", &path, b"").status(), 200);
    // A name that is none is not taken for nobody's.
    for name in ["a b", "\u{fc}", "", "host:x", &"a".repeat(65)] {
        let refused = by(&bench, name, "POST", "/claims", parts);
        assert_eq!(refused.status(), 400, "{name:?}: {}", refused.text());
        assert_eq!(refused.header("Coxswain-Problem"), Some("bad-header"));
    }
}

#[test]
fn bad_claims_are_refused() {
    let bench = Bench::start();
    let many: Vec<String> = (0..65).map(|n| format!("container:c{n}")).collect();
    for wanted in [
        json!(null),
        json!([]),
        json!({}),
        json!({"parts": []}),
        json!({"parts": "bsp"}),
        json!({"parts": ["web"]}),
        json!({"parts": ["bsp", 1]}),
        json!({"parts": many}),
        json!({"parts": ["bsp"], "priority": -1}),
        json!({"parts": ["bsp"], "priority": 1001}),
        json!({"parts": ["bsp"], "priority": "high"}),
        json!({"parts": ["bsp"], "lease_s": 4}),
        json!({"parts": ["bsp"], "lease_s": 86401}),
        json!({"parts": ["bsp"], "lease_s": 1e300}),
    ] {
        let refused = claim(&bench, wanted.clone());
        assert_eq!(refused.status(), 400, "{wanted}: {}", refused.text());
        assert_eq!(
            refused.header("Coxswain-Problem"),
            Some("bad-claim"),
            "{wanted}"
        );
    }
    let large = format!("{{\"parts\":[\"bsp\"],\"x\":\"{}\"}}", "x".repeat(40_000));
    let refused = send(&bench.socket, "POST", "/claims", large.as_bytes());
    assert!(
        (400..=507).contains(&refused.status()),
        "{}",
        refused.text()
    );
    for path in [
        "/claims/x",
        "/claims/-1",
        "/claims/99999999999999999999",
        "/claims/7",
    ] {
        assert_eq!(
            send(&bench.socket, "DELETE", path, b"").status(),
            404,
            "{path}"
        );
    }
    assert_eq!(get(&bench.socket, "/claims").text(), "[]");
}
