//! Bytes to send, and the durable writes that they are compared with.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

/// Bytes that do not compress, different for each `number`.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .expect("/dev/urandom can be read");
    bytes
}

/// Makes the bytes differ from all before, so that they are another object.
pub(crate) fn renew(bytes: &mut [u8]) {
    let fresh = noise(32);
    bytes[..32].copy_from_slice(&fresh);
}

/// What `dd bs=1M conv=fsync` does.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) {
    let write = || {
        let mut file = File::create(path)?;
        for chunk in bytes.chunks(1 << 20) {
            file.write_all(chunk)?;
        }
        file.sync_all()
    };
    write().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Write, sync, rename, sync of the folder: the least that a durable new name costs.
pub(crate) fn replace_durably(folder: &Path, name: &str, bytes: &[u8]) {
    let temporary = folder.join(".temporary");
    write_durably(&temporary, bytes);
    fs::rename(&temporary, folder.join(name))
        .and_then(|()| File::open(folder)?.sync_all())
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}

/// Waits until nothing that was written before still has to go to disk.
pub(crate) fn settle() {
    rustix::fs::sync();
}
