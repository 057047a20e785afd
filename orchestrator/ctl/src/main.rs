//! coxctl: operate a device, author revisions.

fn main() {}
