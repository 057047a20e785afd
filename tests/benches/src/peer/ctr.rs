//! `ctr run` on a private containerd: the shortest way from a root file system to a running process without us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use acceptance::image::{Image, sha256};
use serde_json::json;

use crate::samples::time;

const IMAGE: &str = "docker.io/library/bench:latest";

/// A containerd with one image in it.
#[derive(Debug)]
pub(crate) struct Ctr {
    folder: tempfile::TempDir,
    namespace: String,
    process: Child,
    containers: Vec<String>,
}

impl Ctr {
    /// Starts containerd and imports the same files that are in our image.
    ///
    /// # Panics
    /// When containerd or a tool is missing or fails.
    pub(crate) fn start(image: &Image) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cx-ctr-")
            .tempdir()
            .expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("run"),
            path("socket"),
            path("ttrpc")
        );
        fs::write(path("config.toml"), config).expect("containerd's configuration");
        let log = fs::File::create(path("log")).expect("a log file");
        let process = Command::new("containerd")
            .arg("--config")
            .arg(path("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let mut peer = Self {
            namespace: format!("bench-{}", std::process::id()),
            folder,
            process,
            containers: Vec::new(),
        };
        let end = Instant::now() + Duration::from_secs(30);
        while !peer.ctr(&["version"]).status().is_ok_and(|s| s.success()) {
            assert!(
                Instant::now() < end && peer.process.try_wait().is_ok_and(|ended| ended.is_none()),
                "containerd does not answer: {}",
                fs::read_to_string(peer.folder.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let archive = archive(peer.folder.path(), image);
        peer.must(&["images", "import", &archive.display().to_string()]);
        peer
    }

    /// `ctr run`, from its start until it says that the process runs.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) fn run(&mut self, command: &[&str]) -> Duration {
        let name = format!("c{}", self.containers.len());
        let mut arguments = vec!["run", "-d", IMAGE, &name];
        arguments.extend(command);
        let mut command = self.ctr(&arguments);
        self.containers.push(name);
        let (output, time) = time(|| command.stderr(Stdio::piped()).output());
        let output = output.expect("ctr starts");
        assert!(
            output.status.success(),
            "ctr run: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        time
    }

    /// Ends and removes every container.
    pub(crate) fn clear(&mut self) {
        for name in std::mem::take(&mut self.containers) {
            // One that was never started has no task; what stays is found at the end.
            drop(self.ctr(&["tasks", "rm", "-f", &name]).output());
            drop(self.ctr(&["containers", "rm", &name]).output());
        }
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("-a")
            .arg(self.folder.path().join("socket"))
            .args(["-n", &self.namespace])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn must(&self, arguments: &[&str]) {
        let output = self
            .ctr(arguments)
            .stderr(Stdio::piped())
            .output()
            .expect("ctr starts");
        assert!(
            output.status.success(),
            "ctr {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Ctr {
    fn drop(&mut self) {
        self.clear();
        if let Some(pid) = i32::try_from(self.process.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // Its exit is waited for below, and forced if it does not come.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_err();
        }
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end && self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.process.kill());
        drop(self.process.wait());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let folder = self.folder.path().display().to_string();
        let below = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| point.starts_with(&folder));
        for point in below {
            if let Err(error) = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH) {
                eprintln!("{point} stays mounted: {error}");
            }
        }
        for folder in cgroups(&self.namespace) {
            // Only an empty one can be removed, which is what is wanted.
            drop(fs::remove_dir(folder));
        }
    }
}

/// The control groups that runc made for a namespace, in every hierarchy.
fn cgroups(namespace: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let mut found = vec![top.join(namespace)];
    let hierarchies = fs::read_dir(top).into_iter().flatten().flatten();
    found.extend(hierarchies.map(|entry| entry.path().join(namespace)));
    found
}

/// The image as `docker save` would write it.
fn archive(folder: &Path, image: &Image) -> PathBuf {
    let files = folder.join("image");
    fs::create_dir_all(&files).expect("a folder for the image");
    let squashfs = folder.join("image.squashfs");
    fs::write(&squashfs, &image.bytes).expect("the image");
    let root = folder.join("unpacked");
    tool(
        Command::new("unsquashfs")
            .args(["-quiet", "-no-progress", "-dest"])
            .arg(&root)
            .arg(&squashfs),
    );
    tool(
        Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(files.join("layer.tar"))
            .arg("."),
    );
    let layer = fs::read(files.join("layer.tar")).expect("the layer");
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(files.join("config.json"), config.to_string()).expect("the image's configuration");
    fs::write(files.join("manifest.json"), manifest.to_string()).expect("the image's manifest");
    let archive = folder.join("image.tar");
    tool(
        Command::new("tar")
            .arg("-C")
            .arg(&files)
            .arg("-cf")
            .arg(&archive)
            .args(["manifest.json", "config.json", "layer.tar"]),
    );
    archive
}

fn tool(command: &mut Command) {
    let output = command.output().expect("the tool is installed");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_run_and_nothing_is_left() {
        acceptance::needs_containers!();
        let image = acceptance::image::busybox(&[]);
        let mut peer = Ctr::start(&image);
        let folder = peer.folder.path().display().to_string();
        for _ in 0..2 {
            assert!(peer.run(&["/bin/sleep", "1000"]) > Duration::ZERO);
        }
        let namespace = peer.namespace.clone();
        let pid = peer.process.id();
        drop(peer);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!Path::new(&folder).exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&folder), "{mounts}");
        let left: Vec<_> = cgroups(&namespace)
            .into_iter()
            .filter(|p| p.exists())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
