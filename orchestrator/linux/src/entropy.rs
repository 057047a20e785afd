//! The kernel's random numbers: a seed that is carried over from one boot to the next.
#![allow(unsafe_code)] // one ioctl that rustix has no function for

use std::fs::OpenOptions;
use std::io;

use rustix::ioctl::{self, Setter};
use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes of a seed: what the kernel's pool holds.
pub const SEED_BYTES: usize = 32;
/// The same as the kernel's structure has it.
const BYTES: i32 = 32;

/// `struct rand_pool_info` of linux/random.h with room for one seed.
#[repr(C)]
struct PoolInfo {
    bits: i32,
    bytes: i32,
    seed: [u8; SEED_BYTES],
}

/// `_IOW('R', 0x03, int[2])`: the size in its number is that of the head alone.
const RNDADDENTROPY: ioctl::Opcode = ioctl::opcode::write::<[i32; 2]>(b'R', 3);

/// Gives a seed to the kernel; `credited`: it counts as random, so that nobody has to wait for more. Only a seed that was made by a
/// pool in good order, was never used before and never will be again, may be.
///
/// # Errors
/// As the kernel gives them.
pub fn add(seed: &[u8; SEED_BYTES], credited: bool) -> io::Result<()> {
    let pool = OpenOptions::new().write(true).open("/dev/urandom")?;
    let info = PoolInfo {
        bits: if credited { 8 * BYTES } else { 0 },
        bytes: BYTES,
        seed: *seed,
    };
    // SAFETY: the call reads a `struct rand_pool_info` and as many bytes behind it as that says.
    unsafe { ioctl::ioctl(&pool, Setter::<RNDADDENTROPY, PoolInfo>::new(info)) }?;
    Ok(())
}

/// A fresh seed, and whether it was made by a pool in good order.
pub fn fresh() -> ([u8; SEED_BYTES], bool) {
    let mut seed = [0; SEED_BYTES];
    match getrandom(&mut seed[..], GetRandomFlags::NONBLOCK) {
        Ok(SEED_BYTES) => (seed, true),
        // Too early: as good as the kernel can do now.
        Ok(_) | Err(_) => {
            getrandom(&mut seed[..], GetRandomFlags::INSECURE).ok();
            (seed, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ() {
        let (one, good) = fresh();
        assert!(good, "a machine that runs tests has its pool in order");
        assert_ne!(one, fresh().0);
    }

    #[test]
    fn the_size_in_the_number_is_that_of_the_head() {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        assert_eq!(RNDADDENTROPY, 0x4008_5203);
        // Not credited, it changes nothing that anybody could count on.
        match add(&[7; SEED_BYTES], false) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
    }
}
