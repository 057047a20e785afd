//! The operator's setting `pollingTime`: its grammar in each release, and what a device then gets.

use super::Release;
use super::wire::Fault;

/// The bounds that the server's own properties set.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) min_s: i64,
    pub(crate) max_s: i64,
}

/// A value of the setting.
#[derive(Debug, Clone)]
pub(crate) struct Polling {
    base: Interval,
    overrides: Vec<(String, Interval)>,
}

#[derive(Debug, Clone)]
struct Interval {
    seconds: f64,
    deviation: u32,
}

fn invalid(message: String) -> Fault {
    Fault::of(
        400,
        "TenantConfigurationValidatorException",
        "configValueInvalid",
        message,
    )
}

impl Polling {
    /// Reads the setting as this release does.
    pub(crate) fn parse(text: &str, release: Release, bounds: &Bounds) -> Result<Self, Fault> {
        if release == Release::V0_9_0 {
            // Midnight at the end of the day is a time to this release, if one beyond its range.
            let last = (text == "24:00:00").then_some(86400);
            let seconds = super::schedule::clock(text).or(last).ok_or_else(|| {
                invalid(
                    "The given configuration value is expected as a string in the format HH:mm:ss."
                        .to_owned(),
                )
            })?;
            if seconds < bounds.min_s || seconds > bounds.max_s {
                return Err(invalid(format!(
                    "The given configuration value is not in the allowed range from {} to {}.",
                    write(seconds_of(bounds.min_s)),
                    write(seconds_of(bounds.max_s))
                )));
            }
            return Ok(Self {
                base: Interval {
                    seconds: seconds_of(seconds),
                    deviation: 0,
                },
                overrides: Vec::new(),
            });
        }
        let mut parts = text.split(',').map(str::trim);
        let base = Interval::parse(parts.next().unwrap_or_default(), bounds)?;
        let mut overrides = Vec::new();
        for part in parts {
            let (filter, interval) = part.split_once("->").ok_or_else(|| bad(part))?;
            overrides.push((
                filter.trim().to_owned(),
                Interval::parse(interval.trim(), bounds)?,
            ));
        }
        Ok(Self { base, overrides })
    }

    /// What a target gets. `chance` is between 0 and 1.
    pub(crate) fn sleep(&self, target: &str, chance: f64, bounds: &Bounds) -> f64 {
        let interval = self
            .overrides
            .iter()
            .find(|(filter, _)| matches_target(filter, target))
            .map_or(&self.base, |(_, interval)| interval);
        let spread = interval.seconds * f64::from(interval.deviation) / 100.0;
        let seconds = interval.seconds + spread * (2.0 * chance - 1.0);
        let seconds = if interval.deviation == 0 || interval.seconds < 86400.0 {
            seconds.floor()
        } else {
            seconds
        };
        seconds.clamp(seconds_of(bounds.min_s), seconds_of(bounds.max_s))
    }

    /// Whether chance has a part in it.
    pub(crate) fn deviates(&self) -> bool {
        self.base.deviation > 0 || self.overrides.iter().any(|(_, one)| one.deviation > 0)
    }
}

impl Interval {
    fn parse(text: &str, bounds: &Bounds) -> Result<Self, Fault> {
        let (interval, deviation) = match text.split_once('~') {
            Some((interval, deviation)) => {
                let percent = deviation
                    .strip_suffix('%')
                    .filter(|digits| (1..=2).contains(&digits.len()))
                    .and_then(|digits| digits.parse().ok())
                    .ok_or_else(|| bad(text))?;
                (interval, percent)
            }
            None => (text, 0),
        };
        let seconds = duration(interval).ok_or_else(|| bad(text))?;
        let range = || {
            format!(
                "The allowed range is [{}, {}].",
                write(seconds_of(bounds.min_s)),
                write(seconds_of(bounds.max_s))
            )
        };
        if seconds < seconds_of(bounds.min_s) {
            return Err(invalid(format!(
                "The polling interval is smaller then minimum polling interval. {}",
                range()
            )));
        }
        if seconds > seconds_of(bounds.max_s) {
            return Err(invalid(format!(
                "The polling interval is bigger then maximum polling interval. {}",
                range()
            )));
        }
        Ok(Self { seconds, deviation })
    }
}

#[expect(clippy::cast_precision_loss, reason = "intervals are below 2^53 s")]
fn seconds_of(whole: i64) -> f64 {
    whole as f64
}

fn bad(text: &str) -> Fault {
    invalid(format!(
        "Invalid pollingInterval: '{text}', expecting: (HH:mm:ss|ISO-8601)(~\\d{{1,2}}%)?"
    ))
}

/// Reads `HH:mm:ss`, `mm:ss`, `ss` or ISO-8601.
fn duration(text: &str) -> Option<f64> {
    if text.starts_with('P') {
        return iso(text);
    }
    if text.is_empty() || text.split(':').count() > 3 {
        return None;
    }
    text.split(':').try_fold(0.0, |sum, part| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let value: f64 = digits.then(|| part.parse().ok()).flatten()?;
        Some(sum * 60.0 + value)
    })
}

fn iso(text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    let mut in_time = false;
    let mut number = String::new();
    for letter in text.strip_prefix('P')?.chars() {
        let unit = match (letter, in_time) {
            ('0'..='9' | '.', _) => {
                number.push(letter);
                continue;
            }
            ('T', false) => {
                in_time = true;
                continue;
            }
            ('D', false) => 86400.0,
            ('H', true) => 3600.0,
            ('M', true) => 60.0,
            ('S', true) => 1.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        number.clear();
    }
    number.is_empty().then_some(seconds)
}

/// Writes an interval as a device gets it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "intervals are positive and small"
)]
pub(crate) fn write(seconds: f64) -> String {
    let whole = seconds as i64;
    if whole < 86400 {
        return format!(
            "{:02}:{:02}:{:02}",
            whole / 3600,
            whole / 60 % 60,
            whole % 60
        );
    }
    let mut text = format!("PT{}H", whole / 3600);
    if whole / 60 % 60 > 0 {
        text.push_str(&format!("{}M", whole / 60 % 60));
    }
    let rest = seconds - seconds_of(whole / 60 * 60);
    if rest > 0.0 {
        let digits = format!("{rest:.3}");
        text.push_str(digits.trim_end_matches('0').trim_end_matches('.'));
        text.push('S');
    }
    text
}

/// The part of the query language that the scenarios use: `controllerId==x*`, also with `name` and `id`.
pub(crate) fn matches_target(filter: &str, target: &str) -> bool {
    let Some((field, pattern)) = filter.split_once("==") else {
        return false;
    };
    let known = ["controllerid", "id", "name"];
    known.contains(&field.trim().to_ascii_lowercase().as_str())
        && glob(&pattern.trim().to_lowercase(), &target.to_lowercase())
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(after, &rest[at..]))
        }),
    }
}
