//! The only source of choice in a simulation: all values of a small tree of choices in turn, or one path through it by a seed.
//!
//! Code under simulation calls [`Choices::choose`] wherever the world could go one way or another. A run is replayed from its
//! list of choices, or from its seed.

use std::fmt;

/// Chooses. Made once for a whole enumeration, or once for each seed.
#[derive(Debug, Clone)]
pub struct Choices {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    /// An odometer: what was chosen, and out of how many.
    Every {
        wheels: Vec<(usize, usize)>,
        at: usize,
    },
    Seeded(u64),
}

impl Choices {
    /// Goes through every combination: run, then [`Choices::advance`], until that says there is no other.
    pub fn every() -> Self {
        Self {
            source: Source::Every {
                wheels: Vec::new(),
                at: 0,
            },
        }
    }

    /// One combination, the same for the same seed.
    pub fn seeded(seed: u64) -> Self {
        // Seeds that are near each other must not give paths that are.
        let mut state = seed;
        Self {
            source: Source::Seeded(scramble(&mut state)),
        }
    }

    /// A given combination; 0 wherever the list ends.
    pub fn replay(list: &[usize]) -> Self {
        let wheels = list.iter().map(|choice| (*choice, choice + 1)).collect();
        Self {
            source: Source::Every { wheels, at: 0 },
        }
    }

    /// One of `0..options`.
    ///
    /// # Panics
    /// When there is nothing to choose from, or when the code under simulation does not do the same thing twice.
    pub fn choose(&mut self, options: usize) -> usize {
        assert!(options > 0, "there must be something to choose from");
        match &mut self.source {
            Source::Every { wheels, at } => {
                if *at == wheels.len() {
                    wheels.push((0, options));
                }
                let (choice, of) = &mut wheels[*at];
                *at += 1;
                // A replayed list knows only what was chosen, not out of how many.
                *of = (*of).max(options);
                assert!(
                    *choice < options,
                    "a run is not the same as the one before it: choice {choice} of {options}"
                );
                *choice
            }
            Source::Seeded(state) => {
                let bits = scramble(state);
                usize::try_from(bits % options as u64).expect("less than `options`")
            }
        }
    }

    /// Whether one in so many, by choice.
    pub fn one_in(&mut self, options: usize) -> bool {
        self.choose(options) == options - 1
    }

    /// The next combination; `false` when every one was had. Seeds have only one.
    pub fn advance(&mut self) -> bool {
        match &mut self.source {
            Source::Every { wheels, at } => {
                wheels.truncate(*at);
                *at = 0;
                while let Some((choice, of)) = wheels.last_mut() {
                    *choice += 1;
                    if choice < of {
                        return true;
                    }
                    wheels.pop();
                }
                false
            }
            Source::Seeded(_) => false,
        }
    }

    /// What was chosen in this run, for [`Choices::replay`]; empty for a seed.
    pub fn list(&self) -> Vec<usize> {
        match &self.source {
            Source::Every { wheels, at } => {
                wheels[..*at].iter().map(|(choice, _)| *choice).collect()
            }
            Source::Seeded(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.list().iter().map(usize::to_string).collect();
        f.write_str(&list.join(","))
    }
}

/// SplitMix64: small, fast, and every seed is a good one.
fn scramble(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_once() {
        let mut choices = Choices::every();
        let mut seen = Vec::new();
        loop {
            let first = choices.choose(3);
            let second = if first == 1 { choices.choose(2) } else { 0 };
            seen.push((first, second));
            if !choices.advance() {
                break;
            }
        }
        assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (2, 0)]);
    }

    #[test]
    fn a_list_and_a_seed_replay() {
        let mut choices = Choices::replay(&[2, 0, 1]);
        let made: Vec<_> = (0..4).map(|_| choices.choose(3)).collect();
        assert_eq!(made, [2, 0, 1, 0]);
        assert_eq!(choices.to_string(), "2,0,1,0");
        let path = |seed| {
            let mut choices = Choices::seeded(seed);
            (0..8).map(|_| choices.choose(1000)).collect::<Vec<_>>()
        };
        assert_eq!(path(7), path(7));
        assert_ne!(path(7), path(8));
    }
}
