//! A whole device in memory: disk, run time, clock, power, and the checkers.
