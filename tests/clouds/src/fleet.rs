//! A fleet of simulated devices in one process: each polls a DDI server with the production code of `coxswain-hawkbit` and the pace of
//! `link`, over connections of its own. Counted is when requests are sent: a stampede shows as a second with many of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hawkbit::Hawkbit;
use hawkbit::settings::{CLIENT, SETTINGS};
use link::backoff::Backoff;
use link::clock;
use link::cloud::{Cloud as _, Situation, Why};
use link::config::{Config, Source};
use link::schedule::{Bounds, Schedule};
use link::web::{Web, WebSettings, tls};

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// Polls in each whole second.
    pub seconds: Vec<u32>,
    /// Polls that failed.
    pub failed: u32,
}

impl Figures {
    /// Polls per second on the whole.
    pub fn mean(&self) -> f64 {
        let all: u32 = self.seconds.iter().sum();
        f64::from(all) / f64::from(u32::try_from(self.seconds.len().max(1)).unwrap_or(u32::MAX))
    }

    /// The busiest second.
    pub fn peak(&self) -> u32 {
        self.seconds.iter().copied().max().unwrap_or_default()
    }

    /// Standard deviation of polls per second.
    pub fn deviation(&self) -> f64 {
        let mean = self.mean();
        let squares = self.seconds.iter().map(|n| (f64::from(*n) - mean).powi(2));
        let count = u32::try_from(self.seconds.len().max(1)).unwrap_or(u32::MAX);
        (squares.sum::<f64>() / f64::from(count)).sqrt()
    }
}

/// Runs `devices` for `time`, all switched on at once, with an interval of `interval`. Their names are `prefix` and a number; the
/// gateway token lets them in.
///
/// # Errors
/// In words, when the settings cannot be used.
pub async fn run(
    url: &str,
    gateway_token: &str,
    prefix: &str,
    devices: u32,
    interval: Duration,
    time: Duration,
) -> Result<Figures, String> {
    let began = Instant::now();
    let polls = Arc::new(Mutex::new((
        vec![0_u32; usize::try_from(time.as_secs()).unwrap_or_default()],
        0_u32,
    )));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..devices {
        let name = format!("{prefix}{number:05}");
        let mut config = Config::defaults(CLIENT, SETTINGS);
        for (setting, value) in [
            ("server", url),
            ("controller-id", &name),
            ("gateway-token", gateway_token),
            ("proxy", "none"),
        ] {
            config
                .set(setting, value, Source::CommandLine)
                .map_err(|error| error.to_string())?;
        }
        let settings =
            WebSettings::from_config(&config, |_| None).map_err(|error| error.to_string())?;
        let web = Web::new(settings, tls::Time::default()).map_err(|error| error.to_string())?;
        let polls = Arc::clone(&polls);
        tasks.spawn(async move { device(&name, config, web, interval, time, began, polls).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    let (seconds, failed) = polls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Figures { seconds, failed })
}

async fn device(
    name: &str,
    config: Config,
    web: Web,
    interval: Duration,
    time: Duration,
    began: Instant,
    polls: Arc<Mutex<(Vec<u32>, u32)>>,
) -> Result<(), String> {
    let bounds = Bounds {
        usual: interval,
        min: interval,
        max: interval,
        busy: interval,
    };
    let mut schedule = Schedule::new(name, bounds);
    let mut backoff = Backoff::new(Duration::from_secs(600));
    let mut cloud = Hawkbit::new();
    cloud.configure(&config, &web)?;
    let mut pause = schedule.first();
    let mut count = 0_u32;
    loop {
        if began.elapsed() + pause >= time {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        let situation = Situation {
            why: if count == 0 {
                Why::Start
            } else {
                Why::Interval
            },
            held: None,
            consents: Vec::new(),
            attributes: std::collections::BTreeMap::new(),
        };
        {
            let mut polls = polls.lock().unwrap_or_else(PoisonError::into_inner);
            let second = usize::try_from(began.elapsed().as_secs()).unwrap_or(usize::MAX);
            if let Some(counted) = polls.0.get_mut(second) {
                *counted += 1;
            }
        }
        pause = match cloud.poll(&situation).await {
            Ok(polled) => {
                backoff.reset();
                schedule.said(polled.interval);
                schedule.next(clock::random(), false, count == 0)
            }
            Err(_) => {
                polls.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
                backoff.failed(clock::random(), None)
            }
        };
        count += 1;
    }
}
