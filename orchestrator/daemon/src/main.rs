//! `coxswain`: the orchestrator.

fn main() {}
