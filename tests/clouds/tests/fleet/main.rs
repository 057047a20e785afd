//! A fleet that is switched on at once does not come at once. In CI 1,000 devices for half a minute with an interval of 15 s;
//! `FLEET_SECONDS=600 FLEET_INTERVAL=60 cargo test -p clouds --test fleet -- --nocapture` is the long run; `HAWKBIT_JAR=file.jar` starts a
//! real server for it, `FLEET_URL` and `FLEET_TOKEN` (a gateway token) lead to one that runs.

use std::time::Duration;

use clouds::fleet::run;
use clouds::hawkbit::{Hawkbit, Release, Setup, serve};
use clouds::jar;

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().and_then(|text| text.parse().ok());
    given.unwrap_or(default)
}

#[test]
fn a_fleet_is_spread() {
    let seconds = number("FLEET_SECONDS", 45);
    let interval = number("FLEET_INTERVAL", 15);
    let devices = u32::try_from(number("FLEET_DEVICES", 1000)).expect("a number of devices");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a run time");
    let mut setup = Setup::stock(Release::V1_0_4);
    setup.polling_min_s = 1;
    setup.polling = format!("00:{:02}:{:02}", interval / 60, interval % 60);
    let served = runtime
        .block_on(serve(Hawkbit::new(setup, 0)))
        .expect("a port");
    let jar = std::env::var_os("HAWKBIT_JAR").map(|jar| jar::start(std::path::Path::new(&jar)));
    let own = jar.as_ref().map_or(served.url(), |jar| jar.url.clone());
    let url = std::env::var("FLEET_URL").unwrap_or(own);
    let token = std::env::var("FLEET_TOKEN").unwrap_or_else(|_| "gwsecret".to_owned());
    let (interval_s, time) = (Duration::from_secs(interval), Duration::from_secs(seconds));
    let figures = runtime
        .block_on(run(&url, &token, "fleet-", devices, interval_s, time))
        .expect("the fleet runs");
    let even = f64::from(devices) / Duration::from_secs(interval).as_secs_f64();
    eprintln!(
        "{devices} devices, interval {interval} s, {seconds} s: {:.1} polls/s (even: {even:.1}), peak {}, deviation {:.1}, failed {}",
        figures.mean(),
        figures.peak(),
        figures.deviation(),
        figures.failed
    );
    assert!(figures.mean() > even / 2.0, "the devices poll at all");
    // A stampede is everybody within a second or two. Three times the even share is chance and a busy machine.
    assert!(
        f64::from(figures.peak()) < even * 3.0 + 30.0,
        "a stampede: {:?}",
        figures.seconds
    );
}
