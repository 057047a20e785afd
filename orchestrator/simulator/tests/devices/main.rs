//! The simulator's tests: every scenario at every point, seeded lives by the thousand, and seeded bugs that must be found.
//!
//! `LIVES` says how many seeded lives are lived (default 300; CI lives 1,000,000 in profile `simulation`). `SEED` and `LENGTH`
//! (`short`, `long`) replay one life: `SEED=7 cargo test --profile simulation -p simulator --test devices -- replay --nocapture`.

mod bugs;
mod lives;
mod plans;
mod scenarios;

/// A sixth of a life's time is the allocator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
