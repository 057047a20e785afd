//! From a tree to a squashfs image, reproducibly: the same tree gives the same bytes, whoever builds it and when.
//!
//! Entries are in the order of their names, times are 0 (or SOURCE_DATE_EPOCH), the compressor is part of this program.
//! Hard links become files of their own that share their bytes. Extended attributes are not kept.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use backhand::compression::Compressor;
use backhand::{FilesystemCompressor, FilesystemWriter, NodeHeader};
use client::bundle::copy_hashed;
use model::ObjectId;

use super::AuthorError;
use super::tree::{Content, Entry, Kind, Tree};

/// Writes the image of `tree` as an object into `objects`.
pub(super) fn build(tree: &Tree, objects: &Path, time: u32) -> Result<ObjectId, AuthorError> {
    let unwritable = |source| AuthorError::Write {
        path: objects.to_owned(),
        source,
    };
    let failed = |source| AuthorError::Image { source };
    let mut writer = FilesystemWriter::default();
    writer.set_compressor(FilesystemCompressor::new(Compressor::Gzip, None).map_err(failed)?);
    writer.set_time(time);
    for (path, entry) in &tree.entries {
        push(&mut writer, path, entry, time).map_err(failed)?;
    }
    let file = tempfile::NamedTempFile::new_in(objects).map_err(unwritable)?;
    let mut buffered = BufWriter::with_capacity(1 << 20, file.as_file());
    writer.write(&mut buffered).map_err(failed)?;
    buffered
        .into_inner()
        .map_err(|error| unwritable(error.into_error()))?;
    keep(file, objects)
}

/// Copies a file as an object into `objects`.
pub(super) fn add_file(source: &Path, objects: &Path) -> Result<ObjectId, AuthorError> {
    let unreadable = |error| AuthorError::Read {
        path: source.to_owned(),
        source: error,
    };
    let unwritable = |source| AuthorError::Write {
        path: objects.to_owned(),
        source,
    };
    let mut from = File::open(source).map_err(unreadable)?;
    let mut file = tempfile::NamedTempFile::new_in(objects).map_err(unwritable)?;
    std::io::copy(&mut from, file.as_file_mut()).map_err(unreadable)?;
    keep(file, objects)
}

/// Names a finished file by its hash.
fn keep(file: tempfile::NamedTempFile, objects: &Path) -> Result<ObjectId, AuthorError> {
    let unwritable = |source| AuthorError::Write {
        path: objects.to_owned(),
        source,
    };
    let mut written = file.reopen().map_err(unwritable)?;
    let object = copy_hashed(&mut written, &mut std::io::sink()).map_err(unwritable)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(unwritable)?;
    let target = objects.join(object.to_string());
    file.persist(&target)
        .map_err(|error| unwritable(error.error))?;
    Ok(object)
}

fn push<'c>(
    writer: &mut FilesystemWriter<'_, '_, 'c>,
    path: &Path,
    entry: &Entry,
    time: u32,
) -> Result<(), backhand::BackhandError> {
    let header = NodeHeader::new(entry.mode, entry.uid, entry.gid, time);
    if path.as_os_str().is_empty() {
        writer.set_root_mode(entry.mode);
        // Makes the owner known to the table of owners.
        writer.set_root_uid(entry.uid);
        writer.set_root_gid(entry.gid);
        return Ok(());
    }
    match &entry.kind {
        Kind::Directory => writer.push_dir(path, header),
        Kind::File(Content::Path(source)) => writer.push_file_from_path(source, path, header),
        Kind::File(Content::Slice(slice)) => writer.push_file(slice.clone(), path, header),
        Kind::Symlink(target) => writer.push_symlink(target, path, header),
        Kind::Character(number) => writer.push_char_device(*number, path, header),
        Kind::Block(number) => writer.push_block_device(*number, path, header),
        Kind::Fifo => writer.push_fifo(path, header),
    }
}
