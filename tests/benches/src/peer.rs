//! What we are compared with: each started by us, private to the run, and ended when it is dropped.

pub(crate) mod ctr;
pub(crate) mod hello;
