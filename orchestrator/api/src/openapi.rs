//! The OpenAPI 3.1 document. `openapi.json` beside this crate's `Cargo.toml` is rendered from [`crate::ROUTES`] and the types of the
//! messages, committed, and kept fresh by a test: a device carries the text and nothing of what renders it.

#[cfg(test)]
mod render;

/// The committed text, as `GET /openapi.json` answers it.
pub const TEXT: &str = include_str!("../openapi.json");
