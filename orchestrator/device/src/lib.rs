//! The loop that carries decisions out, and the ports it needs.
