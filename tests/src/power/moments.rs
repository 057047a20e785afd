//! Moments and choices that a seed can replay (the guest's own timing cannot be): xorshift64*.

/// A row of numbers.
#[derive(Debug)]
pub struct Moments(u64);

impl Moments {
    /// From the environment variable SEED, else from the process id; says which.
    pub fn from_environment() -> Self {
        let named = std::env::var("SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = named.unwrap_or_else(|| u64::from(std::process::id()));
        println!("SEED={seed}");
        Self::from_seed(seed)
    }

    /// From this seed.
    pub fn from_seed(seed: u64) -> Self {
        // Zero would stay zero, and small seeds would start alike.
        Self((seed | 1 << 63).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}
