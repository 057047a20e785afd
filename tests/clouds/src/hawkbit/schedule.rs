//! Maintenance windows: a schedule in Quartz' cron form, a duration, an offset from UTC. Also the calendar that this needs.
//! Times are milliseconds since 1970.

/// A maintenance window.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) schedule: String,
    pub(crate) duration: String,
    pub(crate) timezone: String,
    cron: Cron,
    length_ms: i64,
    offset_ms: i64,
}

impl Window {
    /// Reads one; the error is hawkBit's message.
    pub(crate) fn parse(schedule: &str, duration: &str, timezone: &str) -> Result<Self, String> {
        Ok(Self {
            cron: Cron::parse(schedule)?,
            length_ms: clock(duration).ok_or("Provided duration is not valid")? * 1000,
            offset_ms: offset(timezone).ok_or("Provided timezone is not valid")?,
            schedule: schedule.to_owned(),
            duration: duration.to_owned(),
            timezone: timezone.to_owned(),
        })
    }

    /// When the window starts that is open now or comes next.
    pub(crate) fn start(&self, now: i64) -> Option<i64> {
        self.cron
            .next(now - self.length_ms + self.offset_ms)
            .map(|at| at - self.offset_ms)
    }

    pub(crate) fn is_open(&self, now: i64) -> bool {
        self.start(now).is_some_and(|start| start <= now)
    }

    pub(crate) fn is_lapsed(&self, now: i64) -> bool {
        self.start(now).is_none()
    }
}

/// Seconds of `HH:mm:ss`.
pub(crate) fn clock(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split(':').collect();
    let [hours, minutes, seconds] = parts[..] else {
        return None;
    };
    let number = |text: &str, max: i64| {
        let value: i64 = text.parse().ok()?;
        (text.len() == 2 && value <= max).then_some(value)
    };
    Some(number(hours, 23)? * 3600 + number(minutes, 59)? * 60 + number(seconds, 59)?)
}

fn offset(text: &str) -> Option<i64> {
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
    Some(sign * minutes * 60_000)
}

/// A cron expression of six or seven fields.
#[derive(Debug, Clone)]
struct Cron {
    seconds: Vec<i64>,
    minutes: Vec<i64>,
    hours: Vec<i64>,
    days: Vec<i64>,
    months: Vec<i64>,
    weekdays: Vec<i64>,
    years: Option<Vec<i64>>,
}

impl Cron {
    fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != 6 && fields.len() != 7 {
            return Err(format!(
                "Cron expression contains {} parts but we expect one of [6, 7]",
                fields.len()
            ));
        }
        let read = |at: usize, from: i64, to: i64| {
            field(fields[at], from, to).ok_or_else(|| format!("Invalid field {:?}", fields[at]))
        };
        Ok(Self {
            seconds: read(0, 0, 59)?,
            minutes: read(1, 0, 59)?,
            hours: read(2, 0, 23)?,
            days: read(3, 1, 31)?,
            months: read(4, 1, 12)?,
            weekdays: read(5, 1, 7)?,
            years: match fields.get(6) {
                None | Some(&"*") => None,
                Some(_) => Some(read(6, 1970, 2099)?),
            },
        })
    }

    /// The first match at or after `from` (local milliseconds), within six years.
    fn next(&self, from: i64) -> Option<i64> {
        let from_s = from.div_euclid(1000) + i64::from(from.rem_euclid(1000) > 0);
        let today = from_s.div_euclid(86400);
        for day in today..today + 6 * 366 {
            let (year, month, in_month) = civil(day);
            // 1970-01-01 was a Thursday; Quartz counts from Sunday, 1.
            let weekday = (day + 4).rem_euclid(7) + 1;
            let fits = self.days.contains(&in_month)
                && self.months.contains(&month)
                && self.weekdays.contains(&weekday)
                && self
                    .years
                    .as_ref()
                    .is_none_or(|years| years.contains(&year));
            if !fits {
                continue;
            }
            let earliest = from_s - day * 86400;
            for hour in &self.hours {
                for minute in &self.minutes {
                    for second in &self.seconds {
                        let at = hour * 3600 + minute * 60 + second;
                        if at >= earliest {
                            return Some((day * 86400 + at) * 1000);
                        }
                    }
                }
            }
        }
        None
    }
}

fn field(text: &str, from: i64, to: i64) -> Option<Vec<i64>> {
    let mut values = Vec::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<i64>().ok()?),
            None => (part, 1),
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*" | "?", _) => (from, to),
            (_, Some((first, last))) => (first.parse().ok()?, last.parse().ok()?),
            (one, None) => {
                let one: i64 = one.parse().ok()?;
                (one, if part.contains('/') { to } else { one })
            }
        };
        if step < 1 || first < from || last > to || first > last {
            return None;
        }
        let mut value = first;
        while value <= last {
            values.push(value);
            value += step;
        }
    }
    values.sort_unstable();
    Some(values)
}

/// Year, month and day of a day since 1970.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let in_month = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (
        year_of_era + era * 400 + i64::from(month <= 2),
        month,
        in_month,
    )
}

/// A time as the framework writes it in its error bodies.
pub(crate) fn iso(ms: i64) -> String {
    let (year, month, day) = civil(ms.div_euclid(86_400_000));
    let of_day = ms.rem_euclid(86_400_000);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}+00:00",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1000 % 60,
        of_day % 1000
    )
}

/// A time as HTTP writes it.
pub(crate) fn http_date(ms: i64) -> String {
    let days = ms.div_euclid(86_400_000);
    let (year, month, day) = civil(days);
    let of_day = ms.rem_euclid(86_400_000);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
        [usize::try_from(days.rem_euclid(7)).unwrap_or_default()];
    let month = MONTHS[usize::try_from(month - 1).unwrap_or_default()];
    format!(
        "{weekday}, {day:02} {month} {year:04} {:02}:{:02}:{:02} GMT",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1000 % 60
    )
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Reads an HTTP date.
pub(crate) fn from_http_date(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else {
        return None;
    };
    let month = i64::try_from(MONTHS.iter().position(|m| *m == month)?).ok()? + 1;
    let (year, day): (i64, i64) = (year.parse().ok()?, day.parse().ok()?);
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let of_era = shifted_year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((days * 86400 + clock(time)?) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_come_and_go() {
        let window = Window::parse("0 36 9 21 11 ? 2026", "00:01:00", "+00:00").expect("good");
        let start = 1_795_253_760_000;
        assert_eq!(window.start(start - 60_000), Some(start));
        assert!(!window.is_open(start - 1));
        assert!(window.is_open(start) && window.is_open(start + 60_000));
        assert!(window.is_lapsed(start + 60_001));
        let daily = Window::parse("0 0 15 ? * *", "01:30:00", "+02:00").expect("good");
        assert_eq!(daily.start(1_795_253_823_000), Some(1_795_266_000_000));
    }

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(iso(1_795_253_826_722), "2026-11-21T09:37:06.722+00:00");
        let text = "Sat, 21 Nov 2026 09:37:25 GMT";
        assert_eq!(http_date(from_http_date(text).expect("a date")), text);
    }
}
