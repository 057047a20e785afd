//! The machine: every system call is here.
