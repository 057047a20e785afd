//! Where revisions and objects are kept, crash-safe.

#![forbid(unsafe_code)]

pub mod disk;
