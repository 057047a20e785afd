//! Bad input, slow and silent clients, and many of them: each gets its right answer, nobody else waits, nothing is lost.

use std::time::{Duration, Instant};

use device::handle::{TrialView, View};
use server::{Caller, Timeouts};

use crate::device::{Bench, FACTORY, happen};
use crate::wire::{Line, ask, get, send};

fn code(got: &crate::wire::Got) -> (u16, &str) {
    (
        got.status(),
        got.header("Coxswain-Problem").unwrap_or_default(),
    )
}

#[test]
fn a_thousand_silent_clients_keep_nobody_out() {
    let bench = Bench::start();
    let mut silent: Vec<Line> = Vec::new();
    for number in 0..1100 {
        let mut line = Line::open(&bench.socket);
        if number % 2 == 0 {
            line.send("GET /con");
        }
        silent.push(line);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let started = Instant::now();
        assert_eq!(get(&bench.socket, "/containers").status(), 200);
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // One that had begun its request may end it.
    let last = silent.iter_mut().rev().nth(1).unwrap();
    last.send("tainers HTTP/1.1\r\n\r\n");
    assert_eq!(last.answer(false).unwrap().status(), 200);
}

#[test]
fn one_container_cannot_take_all_connections() {
    let bench = Bench::start();
    bench.call_as(Caller::Container("web".parse().unwrap()));
    let mut greedy: Vec<Line> = (0..140).map(|_| Line::open(&bench.socket)).collect();
    // Its newest connections work, its oldest were closed for them.
    let newest = greedy.last_mut().unwrap();
    newest.send("GET /version HTTP/1.1\r\n\r\n");
    assert_eq!(newest.answer(false).unwrap().status(), 200);
    assert!(greedy[0].is_closed());
}

#[test]
fn slow_heads_and_bodies_end() {
    let timeouts = Timeouts {
        idle: Duration::from_secs(1),
        head: Duration::from_secs(1),
        body: Duration::from_secs(1),
        ..Timeouts::default()
    };
    let bench = Bench::start_with(timeouts);
    let mut idle = Line::open(&bench.socket);
    let mut slow = Line::open(&bench.socket);
    slow.send("GET /containers HTTP/1.1\r\nX: ");
    let mut stuck = Line::open(&bench.socket);
    stuck.send("PUT /user-meta/k HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(slow.answer(false).unwrap().status(), 408);
    assert_eq!(code(&stuck.answer(false).unwrap()), (408, "body-timeout"));
    assert!(idle.is_closed());
    assert_eq!(get(&bench.socket, "/user-meta").text(), "{}");
}

#[test]
fn drops_of_a_request_do_not_hold_others_up() {
    let bench = Bench::start();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut line = Line::open(&bench.socket);
                for byte in b"GET /groups HTTP/1.1\r\n" {
                    line.send([*byte]);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        for _ in 0..50 {
            let started = Instant::now();
            assert_eq!(get(&bench.socket, "/groups").status(), 200);
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    });
}

#[test]
fn large_manifests() {
    let bench = Bench::start();
    let got = send(
        &bench.socket,
        "PUT",
        "/steps/locals/big",
        &vec![b' '; 10 << 20],
    );
    assert_eq!(code(&got), (507, "body-too-large"));
    assert_eq!(got.text(), r#"{"Error":"Not enough disk space available"}"#);
    assert_eq!(get(&bench.socket, "/steps/locals/big").status(), 404);

    let mut many = FACTORY.strip_suffix('}').unwrap().to_owned();
    for number in 0..5000 {
        many.push_str(&format!(
            ",\"_config/web/etc/file{number}\":{{\"n\":{number}}}"
        ));
    }
    many.push('}');
    let got = send(&bench.socket, "PUT", "/steps/locals/many", many.as_bytes());
    assert_eq!((got.status(), got.text()), (200, ""));
    assert_eq!(get(&bench.socket, "/steps/locals/many").text(), many);
}

#[test]
fn every_problem_of_a_manifest_is_told_to_who_asks_for_it() {
    let bench = Bench::start();
    let bad = br##"{"#spec":"pantavisor-service-system@1","a/../b":{},"web/run.json":{"#spec":"service-manifest-run@1","name":"web","type":"lxc","group":"nowhere"}}"##;
    let plain = send(&bench.socket, "PUT", "/steps/locals/bad", bad);
    assert_eq!(code(&plain), (422, "bad-manifest"));
    assert_eq!(
        plain.text(),
        r#"{"Error":"Parser: State JSON has bad format"}"#
    );
    let request = format!(
        "PUT /steps/locals/bad HTTP/1.1\r\nAccept: application/problem+json\r\nContent-Length: {}\r\n\r\n",
        bad.len()
    );
    let got = ask(&bench.socket, [request.as_bytes(), bad].concat());
    assert_eq!(got.header("Content-Type"), Some("application/problem+json"));
    let problem: api::problem::ProblemBody = serde_json::from_slice(&got.body).unwrap();
    assert!(problem.problems.len() >= 2, "{problem:?}");
    assert!(
        problem
            .problems
            .iter()
            .all(|one| one.pointer.starts_with('/') && !one.remedy.is_empty())
    );
}

#[test]
fn names_cannot_leave_their_folder() {
    let bench = Bench::start();
    let manifest = FACTORY.as_bytes();
    for name in [".", "..", ".pv", "a%00b", "a%2f..%2fb"] {
        let got = send(
            &bench.socket,
            "PUT",
            &format!("/steps/locals/{name}"),
            manifest,
        );
        let kept_as_typed = name.contains('%');
        assert_eq!(got.status() == 200, kept_as_typed, "{name}: {}", got.text());
    }
    for target in [
        "/steps/../../etc/passwd",
        "/objects/../boot/marker",
        "/steps/..",
        "/why/..",
        "/logs/..",
    ] {
        assert!(
            (400..500).contains(&get(&bench.socket, target).status()),
            "{target}"
        );
    }
    let listed = get(&bench.socket, "/steps");
    assert!(
        listed.text().contains(r#""name":"locals/a%2f..%2fb""#),
        "{}",
        listed.text()
    );
    assert!(!bench.folder.join("storage/b").exists());
}

#[test]
fn chunked_bodies_have_strict_bounds() {
    let bench = Bench::start();
    let chunked = |body: &str| {
        ask(
            &bench.socket,
            format!("PUT /steps/locals/c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        )
    };
    let half = FACTORY.len() / 2;
    let good = format!(
        "{half:x}\r\n{}\r\n{:X} \r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
        &FACTORY[..half],
        FACTORY.len() - half,
        &FACTORY[half..]
    );
    assert_eq!(chunked(&good).status(), 200);
    for bad in [
        "x\r\n",
        "-1\r\n",
        "0x2\r\n{}\r\n",
        "2;a=b\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n",
        "\r\n\r\n\r\n",
    ] {
        let got = chunked(bad);
        assert_eq!(
            (got.status(), got.header("Connection")),
            (413, Some("close")),
            "{bad:?}"
        );
    }
    let endless = "1".repeat(100_000);
    assert_eq!(chunked(&endless).status(), 413);
}

#[test]
fn nothing_that_is_sent_makes_the_server_stop() {
    let bench = Bench::start();
    let mut seed = 12345_u64;
    for round in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..round {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let word = [
                &b"GET "[..],
                b"/steps/",
                b" HTTP/1.1",
                b"\r\n",
                b"Content-Length: ",
                b"7",
                b"\0",
                b"\xff",
                b":",
                b"Transfer-Encoding: chunked",
                b"PUT ",
                b"/objects/",
                b"%2f",
                b"\n",
            ][usize::try_from(seed >> 33).unwrap() % 14];
            bytes.extend_from_slice(word);
        }
        let mut line = Line::open(&bench.socket);
        line.try_send(&bytes);
        line.half_close();
        while line.answer(false).is_some() {}
    }
    assert_eq!(get(&bench.socket, "/containers").status(), 200);
}

#[test]
fn a_large_head_is_taken_when_it_is_rare() {
    let bench = Bench::start();
    let large = |bytes: usize| format!("GET /version HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(bytes));
    assert_eq!(ask(&bench.socket, large(1 << 20)).status(), 200);
    let mut line = Line::open(&bench.socket);
    line.try_send(large(3 << 20).as_bytes());
    assert_eq!(line.answer(false).unwrap().status(), 413);
}

#[test]
fn rights() {
    let bench = Bench::start();
    bench.call_as(Caller::Host { uid: 1000 });
    assert_eq!(
        code(&get(&bench.socket, "/containers")),
        (403, "not-allowed")
    );
    assert_eq!(get(&bench.socket, "/healthz").status(), 200);
    assert_eq!(code(&get(&bench.socket, "/status")), (403, "not-allowed"));
    bench.call_as(Caller::Container("web".parse().unwrap()));
    assert_eq!(
        code(&get(&bench.socket, "/logs/pvr-sdk")),
        (403, "not-allowed")
    );
    assert_eq!(code(&get(&bench.socket, "/logs/web")), (404, "no-such-log"));
    bench.call_as(Caller::Container("gone".parse().unwrap()));
    assert_eq!(
        code(&get(&bench.socket, "/healthz")),
        (403, "unknown-caller")
    );
}

#[test]
fn what_an_update_forbids() {
    let bench = Bench::start();
    let view = View {
        trial: Some(TrialView {
            revision: "locals/x".parse().unwrap(),
            tries_left: 2,
            phase: "observing",
            commit_at: None,
        }),
        ..View::clone(&bench.handle.view())
    };
    bench.handle.publish(view);
    let command = |body: &str| send(&bench.socket, "POST", "/commands", body.as_bytes());
    for op in ["LOCAL_RUN", "UNCLAIM"] {
        let got = command(&format!(r#"{{"op":"{op}","payload":"0"}}"#));
        assert_eq!(code(&got), (503, "update-in-progress"));
        assert_eq!(got.headers[0], ("Retry-After".to_owned(), "600".to_owned()));
        assert_eq!(
            got.text(),
            r#"{"Error":"Cannot do this operation while update is ongoing"}"#
        );
    }
}

#[test]
fn a_revision_that_failed_runs_again_only_when_asked() {
    let bench = Bench::start();
    assert_eq!(
        send(
            &bench.socket,
            "PUT",
            "/steps/locals/sick",
            FACTORY.as_bytes()
        )
        .status(),
        200
    );
    let run = |again: &str| {
        let body = format!(r#"{{"op":"LOCAL_RUN","payload":"locals/sick"{again}}}"#);
        send(&bench.socket, "POST", "/commands", body.as_bytes())
    };
    assert_eq!(code(&run("")), (409, "failed-before"));
    assert_eq!(run(r#","again":true"#).status(), 200);
}

#[test]
fn events_resume_and_heartbeat() {
    let timeouts = Timeouts {
        heartbeat: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let bench = Bench::start_with(timeouts);
    let happen = |message: &str| happen(&bench.handle, message);
    happen("one");
    let follow = |header: &str, query: &str| {
        let mut line = Line::open(&bench.socket);
        line.send(format!("GET /events{query} HTTP/1.1\r\n{header}\r\n"));
        line
    };
    let mut line = follow("", "?since=0");
    // The body has no end: chunks are read one by one, after the head.
    let first = line.stream_start();
    assert!(first.contains("text/event-stream"), "{first}");
    let text = line.until("\n\n", 2);
    assert!(
        text.contains("event: notice") && text.contains(r#""message":"one""#),
        "{text}"
    );
    let id = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("id: "))
        .unwrap()
        .to_owned();
    happen("two");
    assert!(line.until("two", 1).contains("event: notice"));
    assert!(line.until("still here", 1).contains(": still here"));

    let mut again = follow(&format!("Last-Event-ID: {id}\r\n"), "");
    again.stream_start();
    let text = again.until("two", 1);
    assert!(
        !text.contains(r#""one""#) && !text.contains("event: lost"),
        "{text}"
    );
    let mut other = follow("Last-Event-ID: 1234.5\r\n", "");
    other.stream_start();
    assert!(other.until("two", 1).contains("event: lost"));
    assert_eq!(
        code(&get(&bench.socket, "/events?sinse=0")),
        (400, "bad-query")
    );
}

/// Ids of the events in a stream, without their epoch.
fn ids(text: &str) -> Vec<u64> {
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.map(|id| id.split_once('.').unwrap().1.parse().unwrap())
        .collect()
}

#[test]
fn a_slow_reader_learns_what_it_missed_and_others_miss_nothing() {
    let bench = Bench::start();
    let mut slow = Line::open(&bench.socket);
    slow.send("GET /events HTTP/1.0\r\n\r\n");
    let mut quick = Line::open(&bench.socket);
    quick.send("GET /events HTTP/1.0\r\n\r\n");
    let connected = slow.until(": connected\nid: ", 1) + &slow.until("\n\n", 1);
    assert!(connected.contains("text/event-stream"), "{connected}");
    quick.until(": connected\nid: ", 1);
    // More than is kept, and more than the kernel holds for who does not read.
    let long = "x".repeat(2000);
    let mut seen = Vec::new();
    for hundred in 0..30 {
        for number in 0..100 {
            happen(&bench.handle, &format!("{long}{hundred}.{number}."));
        }
        let text = quick.until(&format!("x{hundred}.99."), 1);
        assert!(!text.contains("event: lost"));
        seen.extend(ids(&text));
    }
    let whole: Vec<u64> = (seen[seen.len() - 3000]..).take(3000).collect();
    assert_eq!(
        seen[seen.len() - 3000..],
        whole,
        "nothing missing, in order"
    );
    // The slow one: what it has been sent, then that some are lost, then all that are kept, up to the newest.
    let text = slow.until("x29.99.", 1);
    let lost = text.find("event: lost").expect("it is told");
    let (before, after) = (ids(&text[..lost]), ids(&text[lost..]));
    assert!(
        before.len() < 2000 && after.len() > 1000,
        "{} {}",
        before.len(),
        after.len()
    );
    let newest = whole.last().unwrap();
    assert_eq!(after.last(), Some(newest));
    assert!(after.windows(2).all(|pair| pair[1] == pair[0] + 1));
    // And goes on from any of them by another connection.
    let epoch = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("id: "));
    let (epoch, _) = epoch.unwrap().split_once('.').unwrap();
    let mut again = Line::open(&bench.socket);
    again.send(format!(
        "GET /events HTTP/1.0\r\nLast-Event-ID: {epoch}.{}\r\n\r\n",
        newest - 10
    ));
    let text = again.until("x29.99.", 1);
    assert!(!text.contains("event: lost"));
    let first = ids(&text)[1];
    assert_eq!(
        first,
        newest - 9,
        "after the id that is repeated at the connection"
    );
}

#[test]
fn a_reader_that_takes_nothing_is_closed_and_holds_nobody_up() {
    let timeouts = Timeouts {
        write: Duration::from_secs(2),
        ..Timeouts::default()
    };
    let bench = Bench::start_with(timeouts);
    let mut stuck = Line::open(&bench.socket);
    stuck.send("GET /events?since=0 HTTP/1.1\r\n\r\n");
    let mut reader = Line::open(&bench.socket);
    reader.send("GET /events?since=0 HTTP/1.1\r\n\r\n");
    reader.stream_start();
    let long = "x".repeat(4000);
    for number in 0..1000 {
        happen(&bench.handle, &format!("{long}{number}."));
    }
    assert!(reader.until("x999.", 1).contains("x999."));
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        !stuck.until_end().contains("x999."),
        "it was cut off in the middle"
    );
}

#[test]
fn stopping_lets_a_request_end_and_removes_the_socket() {
    let mut bench = Bench::start();
    let mut idle = Line::open(&bench.socket);
    let mut follower = Line::open(&bench.socket);
    follower.send("GET /events HTTP/1.1\r\n\r\n");
    follower.stream_start();
    let started = Instant::now();
    bench.stop();
    assert!(
        started.elapsed() < Duration::from_millis(4500),
        "nothing was waited for"
    );
    assert!(
        follower.until_end().ends_with("0\r\n\r\n"),
        "its stream has an end"
    );
    assert!(!bench.socket.exists());
    assert!(idle.is_closed());
}

#[test]
fn our_own_pages() {
    let bench = Bench::start();
    let status = get(&bench.socket, "/status");
    let status: api::messages::ours::DeviceStatus = serde_json::from_slice(&status.body).unwrap();
    assert_eq!(
        status.running.map(|revision| revision.to_string()),
        Some("0".to_owned())
    );
    assert_eq!(status.condition, api::messages::ours::Condition::Good);
    assert_eq!(
        get(&bench.socket, "/healthz").text(),
        r#"{"ok":true,"problems":[]}"#
    );
    assert_eq!(
        get(&bench.socket, "/openapi.json").text(),
        api::openapi::TEXT
    );
    assert_eq!(get(&bench.socket, "/failures").text(), "[]");
    assert_eq!(
        code(&get(&bench.socket, "/failures/7")),
        (404, "no-such-failure")
    );
    assert_eq!(
        code(&get(&bench.socket, "/why/nobody")),
        (404, "no-such-subject")
    );
    for subject in ["", "/web", "/0"] {
        let why = get(&bench.socket, &format!("/why{subject}"));
        let why: api::messages::ours::Why = serde_json::from_slice(&why.body).unwrap();
        assert!(!why.summary.is_empty());
    }
    assert_eq!(
        send(&bench.socket, "POST", "/storage/gc", b"").text(),
        r#"{"reclaimed": 0}"#
    );
    assert_eq!(
        get(&bench.socket, "/config").text(),
        r#"{"updater.commit.delay":5}"#
    );
}

#[test]
fn logs_are_shown_and_followed() {
    let bench = Bench::start();
    let folder = bench.folder.join("storage/logs/0/web");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("console.log"), "one\ntwo\nthree\n").unwrap();
    assert_eq!(
        get(&bench.socket, "/logs/web?tail=2").text(),
        "two\nthree\n"
    );
    assert_eq!(
        get(&bench.socket, "/logs/web?revision=0").text(),
        "one\ntwo\nthree\n"
    );
    assert_eq!(get(&bench.socket, "/logs/web?revision=5").status(), 404);
    assert_eq!(
        code(&get(&bench.socket, "/logs/web?tail=x")),
        (400, "bad-query")
    );
    for bad in [
        "since=yesterday",
        "level=loud",
        "format=xml",
        "follow=maybe",
    ] {
        let got = get(&bench.socket, &format!("/logs/web?{bad}"));
        assert_eq!(code(&got), (400, "bad-query"), "{bad}");
    }
    let json = get(&bench.socket, "/logs/web?tail=1&format=json&since=1h");
    assert_eq!(
        json.text(),
        "{\"container\":\"web\",\"level\":\"info\",\"source\":\"\",\"text\":\"three\"}\n"
    );
    assert_eq!(get(&bench.socket, "/logs/web?level=warn").text(), "");
    let mut line = Line::open(&bench.socket);
    line.send("GET /logs/web?tail=1&follow=1 HTTP/1.0\r\n\r\n");
    assert!(line.until("three\n", 1).starts_with("HTTP/1.0 200 OK\r\n"));
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(folder.join("console.log"))
        .unwrap();
    std::io::Write::write_all(&mut file, b"four\n").unwrap();
    assert!(line.until("four\n", 1).contains("four\n"));
}

/// A request for each row of the table, with names that exist where that can be.
fn sample(route: &api::Route) -> String {
    let mut target = route.path.to_owned();
    for (name, value) in [
        (
            "{sha256}",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        ("{rev}", "0"),
        ("{id}", "1"),
        ("{key}", "k"),
    ] {
        target = target.replace(name, value);
    }
    for name in ["{name}", "{subject}", "{container}"] {
        target = target.replace(name, "web");
    }
    target
}

#[test]
fn every_route_answers_only_what_the_reference_says() {
    let bench = Bench::start();
    let reference: serde_json::Value = serde_json::from_str(api::openapi::TEXT).unwrap();
    let callers = [
        Caller::Host { uid: 0 },
        Caller::Host { uid: 1000 },
        Caller::Container("web".parse().unwrap()),
        Caller::Unknown,
    ];
    for route in api::ROUTES {
        let method = route.method.as_str();
        let documented = &reference["paths"][route.path][method.to_lowercase()]["responses"];
        let target = sample(route);
        for caller in &callers {
            bench.call_as(caller.clone());
            for body in ["", "{}", "{\"action\":\"stop\"}", "not JSON"] {
                let mut line = Line::open(&bench.socket);
                let length = body.len();
                line.send(format!(
                    "{method} {target} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"
                ));
                let head = line.stream_start();
                let status = head.split(' ').nth(1).unwrap();
                assert!(
                    documented[status].is_object(),
                    "{method} {target} from {caller:?} with {body:?}: {head}"
                );
                let problem = head.contains("Coxswain-Problem: ");
                assert_eq!(problem, status >= "400", "{method} {target}: {head}");
            }
        }
    }
}
