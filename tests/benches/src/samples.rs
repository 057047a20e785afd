//! Repeated measurements of one thing. Medians are told: one slow or lucky run must not move a figure.

use std::time::{Duration, Instant};

/// Measurements, in seconds or any other unit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a time, in seconds.
    pub(crate) fn push_time(&mut self, time: Duration) {
        self.push(time.as_secs_f64());
    }

    /// Adds those of another.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The middle one.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn median(&self) -> f64 {
        self.at(50, 100)
    }

    /// The one that 99 of 100 do not exceed.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn p99(&self) -> f64 {
        self.at(99, 100)
    }

    /// The largest.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn max(&self) -> f64 {
        self.at(1, 1)
    }

    fn at(&self, part: usize, whole: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(!sorted.is_empty(), "nothing was measured");
        sorted[((sorted.len() - 1) * part).div_ceil(whole)]
    }
}

/// How long `work` takes.
pub(crate) fn time<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle_and_p99_near_the_end() {
        let mut samples = Samples::default();
        for n in (1..=101).rev() {
            samples.push(f64::from(n));
        }
        assert_eq!(
            (samples.median(), samples.p99(), samples.max()),
            (51.0, 100.0, 101.0)
        );
        let mut one = Samples::default();
        one.push(7.0);
        assert_eq!((one.median(), one.p99(), one.max()), (7.0, 7.0, 7.0));
    }
}
