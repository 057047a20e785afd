//! Text of the OpenMetrics 1.0 exposition format, as monitors read it.
//!
//! A family is written once and whole: its metadata, then its samples. What the format forbids (a counter without `_total`, a unit that is
//! not the end of the name, samples of two families mixed) cannot be written with this.

use std::fmt::Write as _;

/// Media type of the answer.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the samples of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Texts that hardly change, as labels of the value 1.
    Info,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
        }
    }
}

/// A text that is being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// A family that is being written. Nothing is written of one without samples.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
    unit: &'static str,
    kind: &'static str,
    suffix: &'static str,
    help: &'static str,
    begun: bool,
}

/// A histogram that is being written: observations counted in ranges.
#[derive(Debug)]
pub struct Histogram<'a>(Family<'a>);

/// Observations of one histogram: how many were at most each bound, not cumulative.
#[derive(Debug, Clone, PartialEq)]
pub struct Observations<'a> {
    /// Upper bounds in ascending order, without the infinite one.
    pub bounds: &'a [f64],
    /// Observations in each range; one more than bounds, the last one for what is above all of them.
    pub counts: &'a [u64],
    /// Sum of all observations.
    pub sum: f64,
}

/// Names and values of labels.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Exposition {
    /// Begins a family. `name` without unit and suffix, `unit` empty when there is none.
    pub fn family(
        &mut self,
        kind: Kind,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
    ) -> Family<'_> {
        let suffix = match kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        };
        Family {
            text: &mut self.text,
            name,
            unit,
            kind: kind.as_str(),
            suffix,
            help,
            begun: false,
        }
    }

    /// Begins a histogram.
    pub fn histogram(
        &mut self,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
    ) -> Histogram<'_> {
        let mut family = self.family(Kind::Gauge, name, unit, help);
        family.kind = "histogram";
        Histogram(family)
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }
}

impl Family<'_> {
    /// Adds a sample of a counter, a gauge or (with the value 1) an info.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Into<Value>) -> &mut Self {
        self.line(self.suffix, labels, None, value.into());
        self
    }

    /// Adds a sample when there is one.
    pub fn maybe(&mut self, labels: Labels<'_>, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.sample(labels, value);
        }
        self
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: Value) {
        if !self.begun {
            self.begin();
        }
        push_name(self.text, self.name, self.unit);
        self.text.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            self.text.push(before);
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(self.text, value);
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let written = match value {
            Value::Whole(number) => writeln!(self.text, " {number}"),
            Value::Real(number) => writeln!(self.text, " {}", canonical(number)),
        };
        written.expect("a String takes everything");
    }

    fn begin(&mut self) {
        self.begun = true;
        for (keyword, words) in [
            ("TYPE", self.kind),
            ("UNIT", self.unit),
            ("HELP", self.help),
        ] {
            if words.is_empty() {
                continue;
            }
            self.text.push_str("# ");
            self.text.push_str(keyword);
            self.text.push(' ');
            push_name(self.text, self.name, self.unit);
            self.text.push(' ');
            push_escaped(self.text, words);
            self.text.push('\n');
        }
    }
}

impl Histogram<'_> {
    /// Adds the samples of one histogram of the family.
    pub fn observations(&mut self, labels: Labels<'_>, observed: &Observations<'_>) -> &mut Self {
        let mut count = 0_u64;
        for (index, number) in observed.counts.iter().enumerate() {
            count = count.saturating_add(*number);
            let bound = match observed.bounds.get(index) {
                Some(bound) => canonical(*bound),
                None => "+Inf".to_owned(),
            };
            self.0
                .line("_bucket", labels, Some(&bound), Value::Whole(count));
        }
        self.0.line("_sum", labels, None, Value::Real(observed.sum));
        self.0.line("_count", labels, None, Value::Whole(count));
        self
    }
}

/// A value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any other; infinities and not-a-number are written as the format wants them.
    Real(f64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Whole(flag.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

fn push_name(text: &mut String, name: &str, unit: &str) {
    text.push_str(name);
    if !unit.is_empty() {
        text.push('_');
        text.push_str(unit);
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// Whole numbers get a fraction, so that a bound is written the same everywhere.
fn canonical(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{number:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_as_the_format_wants_it() {
        let mut exposition = Exposition::default();
        exposition
            .family(Kind::Counter, "x_cpu", "seconds", "Processor time.")
            .sample(&[("container", "a\"\\\nb")], 1.5)
            .maybe(&[("container", "none")], None::<u64>);
        exposition.family(Kind::Gauge, "x_empty", "bytes", "Never seen.");
        exposition
            .family(Kind::Info, "x_build", "", "Version.")
            .sample(&[("version", "1")], true);
        exposition
            .histogram("x_wait", "seconds", "Waiting.")
            .observations(
                &[("route", "/x")],
                &Observations {
                    bounds: &[0.5, 1.0],
                    counts: &[1, 0, 2],
                    sum: 7.25,
                },
            );
        expect_test::expect![[r##"
            # TYPE x_cpu_seconds counter
            # UNIT x_cpu_seconds seconds
            # HELP x_cpu_seconds Processor time.
            x_cpu_seconds_total{container="a\"\\\nb"} 1.5
            # TYPE x_build info
            # HELP x_build Version.
            x_build_info{version="1"} 1
            # TYPE x_wait_seconds histogram
            # UNIT x_wait_seconds seconds
            # HELP x_wait_seconds Waiting.
            x_wait_seconds_bucket{route="/x",le="0.5"} 1
            x_wait_seconds_bucket{route="/x",le="1.0"} 1
            x_wait_seconds_bucket{route="/x",le="+Inf"} 3
            x_wait_seconds_sum{route="/x"} 7.25
            x_wait_seconds_count{route="/x"} 3
            # EOF
        "##]]
        .assert_eq(&exposition.finish());
    }

    #[test]
    fn numbers() {
        for (number, expected) in [
            (0.0, "0.0"),
            (2.5e-3, "0.0025"),
            (1e21, "1e21"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(canonical(number), expected);
        }
    }
}
