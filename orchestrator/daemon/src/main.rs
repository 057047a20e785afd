//! The orchestrator: configuration, adapters, loop.

fn main() {}
