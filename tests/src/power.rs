//! Power that goes: a disk whose cache a cut really empties, recordings of what was written to it, and a judge of what is left.

pub mod disk;
pub mod medium;
pub mod moments;
pub mod record;
