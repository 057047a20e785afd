//! The contract of the control socket, without a socket: routes, calls, messages, problems, and the OpenAPI document.
//!
//! [`routes::ROUTES`] is the one table; server, client, documentation and contract tests are made from it. Pantavisor's
//! resources keep its paths, texts and key order exactly; ours stand beside them. Nothing here reads or writes: the server
//! carries calls out, the client makes them.

#![forbid(unsafe_code)]

pub mod call;
pub mod explain;
pub mod limits;
pub mod messages;
pub mod openapi;
pub mod openmetrics;
pub mod problem;
pub mod routes;

pub use call::Call;
pub use problem::{Code, Problem};
pub use routes::{Access, Method, ROUTES, Route};
