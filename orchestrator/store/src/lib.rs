//! Where revisions and objects are kept, crash-safe.
