//! Loop devices over image files: read-only, released by the kernel with their last user.
//!
//! Autoclear is set before anything else can see the device, so a kill between two steps leaves no device behind:
//! the file descriptor that holds it goes with the process, the mount that holds it goes with the mount.
#![allow(unsafe_code)] // two ioctls that rustix has no function for

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::ioctl::{self, IntegerSetter, Ioctl, IoctlOutput, Opcode};

/// Times that a device which another process took first is given up for the next one.
const ATTEMPTS_MAX: u32 = 64;

const LOOP_SET_FD: Opcode = 0x4C00;
const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_SET_STATUS64: Opcode = 0x4C04;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// A loop device that shows a file. It lives as long as this value or a mount of it.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _held: File,
}

impl LoopDevice {
    /// Shows `file` read-only as a block device.
    ///
    /// # Errors
    /// As the kernel gives them; `ENOENT` of `/dev/loop-control` means that the kernel has no loop driver.
    pub fn attach_read_only(file: &Path) -> io::Result<Self> {
        let backing = File::open(file)?;
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        for _ in 0..ATTEMPTS_MAX {
            let number = free_number(&control)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = match OpenOptions::new().read(true).open(&path) {
                Ok(device) => device,
                // devtmpfs makes the node a moment after the number was given.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    continue;
                }
                Err(error) => return Err(error),
            };
            match configure(&device, &backing) {
                Ok(()) => {
                    return Ok(Self {
                        path,
                        _held: device,
                    });
                }
                // Somebody was quicker: take the next one.
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::Error::other(format!(
            "no loop device stayed free long enough in {ATTEMPTS_MAX} attempts"
        )))
    }

    /// The block device, `/dev/loop<n>`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Asks the driver for a number whose result is the return value of the call.
struct GetFree;

// SAFETY: LOOP_CTL_GET_FREE takes no argument, writes no memory and returns the number.
unsafe impl Ioctl for GetFree {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        Ok(out)
    }
}

fn free_number(control: &File) -> io::Result<i32> {
    // SAFETY: see `GetFree`.
    Ok(unsafe { ioctl::ioctl(control, GetFree) }?)
}

fn configure(device: &File, backing: &File) -> rustix::io::Result<()> {
    let fd = u32::try_from(backing.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let info = LoopInfo64 {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let config = LoopConfig {
        fd,
        block_size: 0,
        info,
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, which `LoopConfig` is.
    let configured = unsafe {
        ioctl::ioctl(
            device,
            ioctl::Setter::<LOOP_CONFIGURE, LoopConfig>::new(config),
        )
    };
    match configured {
        // Kernels before 5.8 do it in two calls.
        Err(Errno::INVAL | Errno::NOTTY) => configure_in_two(device, backing, info),
        other => other,
    }
}

fn configure_in_two(device: &File, backing: &File, info: LoopInfo64) -> rustix::io::Result<()> {
    let fd = usize::try_from(backing.as_raw_fd()).map_err(|_| Errno::BADF)?;
    // SAFETY: LOOP_SET_FD takes a file descriptor by value.
    unsafe { ioctl::ioctl(device, IntegerSetter::<LOOP_SET_FD>::new_usize(fd)) }?;
    // SAFETY: LOOP_SET_STATUS64 reads one `struct loop_info64`, which `LoopInfo64` is.
    let set = unsafe {
        ioctl::ioctl(
            device,
            ioctl::Setter::<LOOP_SET_STATUS64, LoopInfo64>::new(info),
        )
    };
    if set.is_err() {
        // SAFETY: LOOP_CLR_FD takes no argument.
        let cleared = unsafe { ioctl::ioctl(device, IntegerSetter::<LOOP_CLR_FD>::new_usize(0)) };
        if let Err(error) = cleared {
            tracing::warn!(%error, "a loop device that could not be set up stays attached");
        }
    }
    set
}
