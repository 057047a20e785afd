//! Typed client of the control socket, for coxctl and every cloud client.
//!
//! One [`Client`] speaks to one UNIX socket and may be cloned and used from many tasks. Every answer is bounded in size and
//! time, objects are streamed in both directions and never held in memory, and no answer of a server, however odd, makes this
//! crate panic. Deliberately absent: retries of changes (the caller knows whether asking twice is right), TCP, TLS.

#![forbid(unsafe_code)]

pub mod bundle;
mod calls;
mod error;
mod events;
pub mod limits;
mod logs;
mod objects;
mod outgoing;
mod sse;
mod transport;

pub use bundle::{Bundle, BundleError};
pub use calls::{LogQuery, Subject};
pub use error::{Error, Refusal};
pub use events::Events;
pub use logs::Logs;
pub use objects::{Download, Found, Uploaded};
pub use outgoing::{ChunkSender, Closed, Gone, Outgoing, chunks};
pub use transport::{Client, Timeouts};
