//! What a revision is: ids, manifest, progress, metadata. Pure.
