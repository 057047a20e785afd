//! The loopback interface, brought up: containers that share the machine's network talk over it.
#![allow(unsafe_code)] // two ioctls that rustix has no function for

use std::io;

use rustix::ioctl::{self, Opcode, Updater};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const SIOCGIFFLAGS: Opcode = 0x8913;
const SIOCSIFFLAGS: Opcode = 0x8914;
const IFF_UP: u16 = 1;

/// `struct ifreq` of linux/if.h, of which the flags are used.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Brings `lo` up; the kernel gives it its addresses.
///
/// # Errors
/// As the kernel gives them.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: 0,
        rest: [0; 22],
    };
    for (to, from) in request.name.iter_mut().zip(b"lo") {
        *to = *from;
    }
    // SAFETY: both calls take one `struct ifreq`, which `InterfaceRequest` is, and write at most it.
    unsafe {
        ioctl::ioctl(
            &socket,
            Updater::<SIOCGIFFLAGS, InterfaceRequest>::new(&mut request),
        )?;
    }
    request.flags |= IFF_UP;
    // SAFETY: as above.
    unsafe {
        ioctl::ioctl(
            &socket,
            Updater::<SIOCSIFFLAGS, InterfaceRequest>::new(&mut request),
        )?;
    }
    Ok(())
}
