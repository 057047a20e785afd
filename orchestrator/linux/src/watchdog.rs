//! The hardware watchdog: a device that resets the machine when nobody has written to it for a while.
//!
//! It is opened once and then shared by descriptor, because drivers let nobody open it twice. A process that dies with it leaves it armed.
#![allow(unsafe_code)] // ioctls that rustix has no function for, and a descriptor that is handed over by its number

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::{Errno, FdFlags};
use rustix::ioctl::{self, Getter, Opcode, Setter, Updater};

const WDIOC_GETSUPPORT: Opcode = ioctl::opcode::read::<Support>(b'W', 0);
const WDIOC_SETOPTIONS: Opcode = ioctl::opcode::read::<i32>(b'W', 4);
const WDIOC_SETTIMEOUT: Opcode = ioctl::opcode::read_write::<i32>(b'W', 6);
const WDIOC_GETTIMEOUT: Opcode = ioctl::opcode::read::<i32>(b'W', 7);

const WDIOS_DISABLECARD: i32 = 1;
const WDIOS_ENABLECARD: i32 = 2;
const WDIOF_SETTIMEOUT: u32 = 0x0080;
const WDIOF_MAGICCLOSE: u32 = 0x0100;

/// Times that are tried when the driver refuses the one that is wanted, longest first, seconds.
const USUAL: [i32; 6] = [60, 30, 16, 15, 10, 5];

/// `struct watchdog_info` of linux/watchdog.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Support {
    options: u32,
    firmware: u32,
    identity: [u8; 32],
}

/// Why there is no watchdog.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// No device.
    #[error("cannot open the watchdog {}; is its driver loaded, and does nobody else have it open?", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A descriptor that is none.
    #[error("descriptor {0} is not open")]
    Descriptor(i32),
}

/// An armed watchdog.
#[derive(Debug)]
pub struct Hardware {
    device: File,
    timeout: Duration,
    can_disarm: bool,
    identity: String,
}

impl Hardware {
    /// Opens it, which arms it, with a time as near to `wanted` as the driver takes.
    ///
    /// # Errors
    /// [`WatchdogError::Open`].
    pub fn open(path: &Path, wanted: Duration) -> Result<Self, WatchdogError> {
        let opened = OpenOptions::new().write(true).open(path);
        let device = opened.map_err(|source| WatchdogError::Open {
            path: path.to_owned(),
            source,
        })?;
        let mut watchdog = Self::over(device);
        let support = watchdog.support();
        if let Some(support) = support {
            let name = support.identity;
            let end = name
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(name.len());
            watchdog.identity = String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into();
            watchdog.can_disarm = support.options & WDIOF_MAGICCLOSE != 0;
        }
        if support.is_none_or(|support| support.options & WDIOF_SETTIMEOUT != 0) {
            watchdog.set_timeout(wanted);
        }
        if let Some(timeout) = watchdog.read_timeout() {
            watchdog.timeout = timeout;
        }
        watchdog.kick();
        Ok(watchdog)
    }

    /// Takes over the descriptor that the process which started us has opened.
    ///
    /// # Errors
    /// [`WatchdogError::Descriptor`].
    pub fn adopt(descriptor: i32) -> Result<Self, WatchdogError> {
        // Three are standard; a wrong number must not close one of them.
        let is_open = descriptor > 2 && {
            // SAFETY: asks whether it is open, and touches nothing.
            unsafe { libc::fcntl(descriptor, libc::F_GETFD) >= 0 }
        };
        if !is_open {
            return Err(WatchdogError::Descriptor(descriptor));
        }
        // SAFETY: it is open, and by agreement with who started us it is ours alone in this process.
        let device = unsafe { File::from_raw_fd(descriptor) };
        // Those that we start must not keep it.
        rustix::io::fcntl_setfd(&device, FdFlags::CLOEXEC).ok();
        let mut watchdog = Self::over(device);
        if let Some(timeout) = watchdog.read_timeout() {
            watchdog.timeout = timeout;
        }
        if let Some(support) = watchdog.support() {
            watchdog.can_disarm = support.options & WDIOF_MAGICCLOSE != 0;
        }
        Ok(watchdog)
    }

    fn over(device: File) -> Self {
        Self {
            device,
            timeout: Duration::from_secs(15),
            can_disarm: false,
            identity: "unknown".to_owned(),
        }
    }

    /// Its descriptor, for a child that shall have it too; [`Hardware::share`] lets it.
    pub fn descriptor(&self) -> i32 {
        self.device.as_raw_fd()
    }

    /// Whether programs that are started from here on get the descriptor.
    pub fn share(&self, shared: bool) {
        let flags = if shared {
            FdFlags::empty()
        } else {
            FdFlags::CLOEXEC
        };
        rustix::io::fcntl_setfd(&self.device, flags).ok();
    }

    /// After how long without a kick the machine is reset, as the driver says.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The driver's name for itself.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Postpones the reset.
    pub fn kick(&self) {
        // Any byte but `V`. What could be done about a failure is what will happen: the reset.
        if let Err(error) = (&self.device).write_all(b"\0") {
            tracing::warn!(%error, "cannot kick the watchdog");
        }
    }

    /// Stops it, where the driver can; tells whether it did. [`Hardware::start`] arms it again.
    pub fn stop(&self) -> bool {
        self.set_options(WDIOS_DISABLECARD)
    }

    /// Arms one that was stopped.
    pub fn start(&self) {
        // A driver that could not stop it runs already.
        self.set_options(WDIOS_ENABLECARD);
        self.kick();
    }

    /// Stops it and lets go of it: for the end of a machine that is switched off.
    pub fn disarm(self) {
        if !self.stop() && self.can_disarm {
            // The magic close: stops with the last descriptor.
            (&self.device).write_all(b"V").ok();
        }
    }

    fn set_options(&self, options: i32) -> bool {
        // SAFETY: WDIOC_SETOPTIONS reads one int.
        let set =
            unsafe { ioctl::ioctl(&self.device, Setter::<WDIOC_SETOPTIONS, i32>::new(options)) };
        set.is_ok()
    }

    fn support(&self) -> Option<Support> {
        // SAFETY: WDIOC_GETSUPPORT writes one `struct watchdog_info`, which `Support` is.
        unsafe { ioctl::ioctl(&self.device, Getter::<WDIOC_GETSUPPORT, Support>::new()) }.ok()
    }

    fn read_timeout(&self) -> Option<Duration> {
        // SAFETY: WDIOC_GETTIMEOUT writes one int.
        let seconds = unsafe { ioctl::ioctl(&self.device, Getter::<WDIOC_GETTIMEOUT, i32>::new()) };
        let seconds = u64::try_from(seconds.ok()?).ok()?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// The wanted time, or the longest usual one below it that the driver takes.
    fn set_timeout(&self, wanted: Duration) {
        let wanted = i32::try_from(wanted.as_secs()).unwrap_or(i32::MAX).max(1);
        let usual = USUAL.into_iter().filter(|seconds| *seconds < wanted);
        for mut seconds in std::iter::once(wanted).chain(usual) {
            // SAFETY: WDIOC_SETTIMEOUT reads and writes one int.
            let set = unsafe {
                ioctl::ioctl(
                    &self.device,
                    Updater::<WDIOC_SETTIMEOUT, i32>::new(&mut seconds),
                )
            };
            match set {
                Err(Errno::INVAL) => {}
                Ok(()) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(WDIOC_GETSUPPORT, 0x8028_5700);
        assert_eq!(WDIOC_SETOPTIONS, 0x8004_5704);
        assert_eq!(WDIOC_SETTIMEOUT, 0xC004_5706);
        assert_eq!(WDIOC_GETTIMEOUT, 0x8004_5707);
    }

    #[test]
    fn a_driver_that_knows_no_calls_is_kicked_and_never_stopped() {
        // A file takes every write and knows none of the calls, as the worst drivers do.
        let path = std::env::temp_dir().join(format!("watchdog-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let watchdog = Hardware::open(&path, Duration::from_secs(30)).unwrap();
        assert_eq!(watchdog.timeout(), Duration::from_secs(15));
        watchdog.kick();
        assert!(!watchdog.stop());
        watchdog.disarm();
        assert_eq!(std::fs::read(&path).unwrap(), [0, 0]);
        std::fs::remove_file(&path).unwrap();
        assert!(Hardware::open(&path, Duration::from_secs(30)).is_err());
    }

    #[test]
    fn only_open_descriptors_are_adopted() {
        for bad in [-1, 0, 2, 999_999] {
            assert!(matches!(
                Hardware::adopt(bad),
                Err(WatchdogError::Descriptor(_))
            ));
        }
    }
}
