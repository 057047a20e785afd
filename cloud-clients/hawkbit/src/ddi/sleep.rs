//! `config.polling.sleep`, in every form that servers use.

use std::time::Duration;

/// Reads `HH:mm:ss` with any number of hours, `mm:ss`, `ss`, or an ISO-8601 duration with days, hours, minutes and seconds (with a
/// fraction). `None` for anything else, and for no time at all: a client that takes garbage for 0 asks without a pause.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let time = match text.strip_prefix(['P', 'p']) {
        Some(rest) => iso(rest),
        None => clock(text),
    }?;
    (time > Duration::ZERO && time <= TIME_MAX).then_some(time)
}

/// Longer than anybody means.
const TIME_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

fn clock(text: &str) -> Option<Duration> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 {
        return None;
    }
    let mut seconds = 0_u64;
    for (place, part) in parts.iter().enumerate() {
        let value = digits(part)?;
        if place > 0 && value > 59 {
            return None;
        }
        seconds = seconds.checked_mul(60)?.checked_add(value)?;
    }
    Some(Duration::from_secs(seconds))
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn iso(text: &str) -> Option<Duration> {
    let mut time = Duration::ZERO;
    let mut rest = text;
    // Units may come in this order only, each once.
    let mut left: &[(char, u64)] = &[('W', 7 * 86400), ('D', 86400)];
    let mut in_time = false;
    let mut any = false;
    while !rest.is_empty() {
        if !in_time && let Some(after) = rest.strip_prefix(['T', 't']) {
            in_time = true;
            left = &[('H', 3600), ('M', 60), ('S', 1)];
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')?;
        let (number, after) = rest.split_at(end);
        let unit = after.chars().next()?.to_ascii_uppercase();
        let place = left.iter().position(|(name, _)| *name == unit)?;
        let factor = left[place].1;
        let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, ""));
        let whole = digits(whole)?;
        let part = match fraction {
            "" if number.len() > digits_len(whole, number) => return None,
            "" => 0,
            text if unit == 'S' => millis(text)?,
            _ => return None,
        };
        time = time
            .checked_add(Duration::from_secs(whole.checked_mul(factor)?))?
            .checked_add(Duration::from_millis(part))?;
        left = &left[place + 1..];
        rest = &after[1..];
        any = true;
    }
    any.then_some(time)
}

/// Length of what was read: a point without digits behind it is longer.
fn digits_len(_: u64, number: &str) -> usize {
    number.bytes().filter(u8::is_ascii_digit).count()
}

fn millis(fraction: &str) -> Option<u64> {
    let plain = fraction.len() <= 12 && fraction.bytes().all(|b| b.is_ascii_digit());
    let padded: String = fraction.chars().chain("000".chars()).take(3).collect();
    plain.then(|| padded.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let ms = |text| parse(text).map(|time| time.as_millis());
        for (text, expected) in [
            ("00:05:00", Some(300_000)),
            ("00:00:30", Some(30_000)),
            ("23:59:59", Some(86_399_000)),
            ("100:00:00", Some(360_000_000)),
            ("05:00", Some(300_000)),
            ("30", Some(30_000)),
            ("PT24H", Some(86_400_000)),
            ("PT720H", Some(2_592_000_000)),
            ("PT25H3M4S", Some(90_184_000)),
            ("PT24H40M58.491S", Some(88_858_491)),
            ("P1DT12H", Some(129_600_000)),
            ("PT0.5S", Some(500)),
            ("", None),
            ("00:00:00", None),
            ("PT0S", None),
            ("aa:bb:cc", None),
            ("-1", None),
            ("1:2:3:4", None),
            ("00:99:00", None),
            ("PT", None),
            ("P", None),
            ("PT5", None),
            ("PT5M5M", None),
            ("PT1.5H", None),
            ("PT5.S", None),
            ("99999999999999999999", None),
            ("PT999999999999H", None),
            ("00:05:00~10%", None),
        ] {
            assert_eq!(ms(text), expected, "{text:?}");
        }
    }
}
