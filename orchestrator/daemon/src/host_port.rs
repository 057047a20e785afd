//! In a virtual machine: the control socket on the serial port that the host gave the machine for it ([`bridge::PORT`], `rootfs/run`).
//!
//! Only below our own init. Whoever can add such a port to the machine owns it anyway; hardware has none.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Where the kernel lists such ports.
const PORTS: &str = "/sys/class/virtio-ports";
/// Its driver may come late.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Serves it if there is one. The thread ends with the process.
pub(crate) fn serve(socket: PathBuf) {
    let serve = move || {
        let Some(port) = (0..LOOKS).find_map(|look| {
            if look > 0 {
                thread::sleep(PAUSE);
            }
            find(Path::new(PORTS))
        }) else {
            return;
        };
        tracing::info!(
            "the control socket is served on the host's port {}",
            port.display()
        );
        loop {
            if let Err(error) = carry(&port, &socket) {
                tracing::warn!(%error, "the host's port {} failed", port.display());
            }
            // The host is away; its end of the port is closed.
            thread::sleep(PAUSE);
        }
    };
    if let Err(error) = thread::Builder::new()
        .name("host-port".to_owned())
        .spawn(serve)
    {
        tracing::warn!(%error, "the control socket is not served to the host");
    }
}

/// The device of the port with our name.
fn find(ports: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(ports).ok()?.filter_map(Result::ok);
    let found = entries.find(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        name.trim_end() == bridge::PORT
    })?;
    Some(Path::new("/dev").join(found.file_name()))
}

fn carry(port: &Path, socket: &Path) -> io::Result<()> {
    let stream: File = OpenOptions::new().read(true).write(true).open(port)?;
    let socket = socket.to_owned();
    let connect: bridge::Connect = Box::new(move || UnixStream::connect(&socket));
    let link = bridge::Link::new(stream.try_clone()?, Some(connect));
    bridge::carry(&link, stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(&folder.path().join("none")), None);
        for (device, name) in [
            ("vport1p1", "org.qemu.guest_agent.0"),
            ("vport1p2", bridge::PORT),
        ] {
            fs::create_dir(folder.path().join(device)).unwrap();
            fs::write(folder.path().join(device).join("name"), format!("{name}\n")).unwrap();
        }
        assert_eq!(find(folder.path()), Some("/dev/vport1p2".into()));
    }
}
