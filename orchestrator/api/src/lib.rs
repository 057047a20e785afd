//! The contract of the control socket: routes, calls, messages, problems. Pure.
