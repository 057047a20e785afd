//! fs-verity: a file that nobody can write to any more and whose blocks are checked against a tree of hashes whenever they are read.
//!
//! Two calls of `linux/fsverity.h`, always with SHA-256, blocks of 4096 bytes and no salt, so the same bytes have the same digest on
//! every device. ext4 (feature `verity`), f2fs and btrfs have it.
#![allow(unsafe_code)] // two ioctls that rustix has no function for

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use store::disk::Seal;

const ENABLE: Opcode = ioctl::opcode::write::<EnableArg>(b'f', 133);
const MEASURE: Opcode = ioctl::opcode::read_write::<[u16; 2]>(b'f', 134);
const SHA256: u32 = 1;
const BLOCK: u32 = 4096;
const DIGEST_MAX: usize = 64;

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved_1: u32,
    signature: u64,
    reserved_2: [u64; 11],
}

/// `struct fsverity_digest` with room for every digest.
#[repr(C)]
struct Measure {
    algorithm: u16,
    size: u16,
    digest: [u8; DIGEST_MAX],
}

// SAFETY: the kernel reads `size` as the room behind the two numbers, which is the array, and writes no more than that; the value lives
// through the call.
unsafe impl Ioctl for Measure {
    type Output = Seal;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        MEASURE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(
        _: IoctlOutput,
        written: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        // SAFETY: it is the value of `as_ptr`, which is still there.
        let written = unsafe { &*written.cast::<Self>() };
        let len = usize::from(written.size).min(DIGEST_MAX);
        Ok(Seal::new(written.algorithm, &written.digest[..len]))
    }
}

/// Seals a file that is open for reading, and by nobody for writing.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] when the file system or the kernel cannot; else as the kernel gives them.
pub fn enable(file: BorrowedFd<'_>) -> io::Result<()> {
    let arg = EnableArg {
        version: 1,
        hash_algorithm: SHA256,
        block_size: BLOCK,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved_1: 0,
        signature: 0,
        reserved_2: [0; 11],
    };
    // SAFETY: the call reads one `struct fsverity_enable_arg`, which `EnableArg` is; it points to nothing else.
    let enabled = unsafe { ioctl::ioctl(file, ioctl::Setter::<ENABLE, EnableArg>::new(arg)) };
    match enabled {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // In turn: a file system without the feature, one of another kind, one whose blocks are not those of the kernel's pages.
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        Err(errno) => Err(errno.into()),
    }
}

/// The digest of a sealed file; `None` when it is not sealed. Reads no content.
///
/// # Errors
/// As the kernel gives them.
pub fn measure(file: BorrowedFd<'_>) -> io::Result<Option<Seal>> {
    let room = Measure {
        algorithm: 0,
        size: u16::try_from(DIGEST_MAX).expect("64"),
        digest: [0; DIGEST_MAX],
    };
    // SAFETY: see `Measure`.
    match unsafe { ioctl::ioctl(file, room) } {
        Ok(seal) => Ok(Some(seal)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_have_the_numbers_of_the_header() {
        assert_eq!((ENABLE, MEASURE), (0x4080_6685, 0xC004_6686));
        assert_eq!(size_of::<EnableArg>(), 128);
    }

    #[test]
    fn a_file_system_without_it_says_so() {
        use std::os::fd::AsFd as _;
        let Ok(file) = std::fs::File::open("/proc/self/status") else {
            return;
        };
        let refused = enable(file.as_fd()).expect_err("proc seals nothing");
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        assert_eq!(measure(file.as_fd()).expect("an answer"), None);
    }
}
