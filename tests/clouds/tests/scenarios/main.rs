//! One suite of scenarios, written once against the management side of a server, with the real client, the real orchestrator and
//! real containers. Servers: ours in both releases; gooseBit, where `tests/python-tools goosebit` has installed it; a real hawkBit where `HAWKBIT_JAR=file.jar` (started here, needs Java 17) or
//! `HAWKBIT_URL=http://host:port` with `HAWKBIT_USER` and `HAWKBIT_PASSWORD` say where one is. What a server cannot do says SKIPPED.

mod scenarios;

use std::collections::BTreeMap;
use std::sync::Mutex;

use acceptance::needs_containers;
use clouds::goosebit::{self, Goosebit};
use clouds::hawkbit::{Hawkbit as Ours, Release, Setup, serve};
use clouds::jar;
use clouds::management::{Ability, Hawkbit, Management};
use scenarios::Scenario;

/// Scenarios that run beside each other on a server: they mostly wait.
const AT_ONCE: usize = 2;

fn run(server: &dyn Management) {
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let all = scenarios::ALL.iter().enumerate();
    // Whether a server asks for consent holds for all of its devices.
    let (alone, together): (Vec<_>, Vec<_>) = all
        .filter(|(_, (name, _, _))| name.contains(&only))
        .partition(|(_, (_, needs, _))| needs.contains(&Ability::Confirmation));
    let table = Mutex::new(BTreeMap::new());
    for (todo, at_once) in [(together, AT_ONCE), (alone, 1)] {
        let left = Mutex::new(todo.into_iter());
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    loop {
                        let next = left.lock().expect("nobody panics with it").next();
                        let Some((place, (name, needs, scenario))) = next else {
                            break;
                        };
                        let line = one(server, name, needs, *scenario);
                        let mut table = table.lock().expect("nobody panics with it");
                        table.insert(place, line);
                    }
                });
            }
        });
    }
    for line in table.into_inner().expect("nobody panics with it").values() {
        eprintln!("{line}");
    }
}

fn one(server: &dyn Management, name: &str, needs: &[Ability], scenario: Scenario) -> String {
    if let Some(why) = needs.iter().find_map(|ability| server.lacks(*ability)) {
        return format!("SKIPPED {name} on {}: {why}", server.name());
    }
    let began = std::time::Instant::now();
    eprintln!("==> {}: {name}", server.name());
    scenario(server);
    let seconds = began.elapsed().as_secs();
    format!("passed  {name} on {} ({seconds} s)", server.name())
}

fn ours(release: Release) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a run time");
    let mut setup = Setup::stock(release);
    setup.polling_min_s = 1;
    setup.forwarded = true;
    let began = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock");
    let began = i64::try_from(began.as_millis()).expect("a date");
    let served = runtime
        .block_on(serve(Ours::new(setup, began)))
        .expect("a port");
    let label = format!("ours as {}", release.number());
    run(&Hawkbit::new(&served.url(), "admin", "admin", &label));
}

#[test]
fn on_our_server_as_0_9_0() {
    needs_containers!();
    ours(Release::V0_9_0);
}

#[test]
fn on_our_server_as_1_0_4() {
    needs_containers!();
    ours(Release::V1_0_4);
}

#[test]
fn on_goosebit() {
    needs_containers!();
    let Some(python) = goosebit::python() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must run this test: run tests/python-tools goosebit first"
        );
        eprintln!("SKIPPED on_goosebit: it is not installed; run tests/python-tools goosebit");
        return;
    };
    run(&Goosebit::start(&python));
}

#[test]
fn on_a_real_hawkbit() {
    if acceptance::device::missing().is_some() {
        eprintln!("SKIPPED on_a_real_hawkbit: no containers here");
        return;
    }
    let variable = |name: &str| std::env::var(name).ok();
    if let Some(jar) = variable("HAWKBIT_JAR") {
        let server = jar::start(std::path::Path::new(&jar));
        run(&Hawkbit::new(
            &server.url,
            "admin",
            "admin",
            &format!("hawkBit {jar}"),
        ));
    } else if let Some(url) = variable("HAWKBIT_URL") {
        let user = variable("HAWKBIT_USER").unwrap_or_else(|| "admin".to_owned());
        let password = variable("HAWKBIT_PASSWORD").unwrap_or_else(|| "admin".to_owned());
        run(&Hawkbit::of_somebody(
            &url,
            &user,
            &password,
            &format!("hawkBit at {url}"),
        ));
    } else {
        eprintln!(
            "SKIPPED on_a_real_hawkbit: set HAWKBIT_JAR=file.jar, or HAWKBIT_URL with HAWKBIT_USER and HAWKBIT_PASSWORD"
        );
    }
}
