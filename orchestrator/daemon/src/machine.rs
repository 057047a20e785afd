//! The machine below, for the server and for starts of containers: facts about it, kernel modules of drivers, the private containerd.

use std::path::Path;

use api::messages::pantavisor::{Daemon, DaemonAction};
use containerd::Control;
use device::Handle;
use linux::facts::Facts;
use linux::modules::{self, Modules};
use model::manifest::{Driver, Need};
use model::{ContainerName, Manifest, RevisionId};
use store::Store;
use store::disk::Disk;

use crate::daemons::Daemons;

/// Name of the private containerd in `GET /daemons`.
const CONTAINERD: &str = "containerd";
/// In the line of a module, this and a key of the user metadata stand for its value, up to the next `}`.
const USER_META: &str = "${user-meta:";

/// Drivers of containers: their modules, with parameters from the user metadata.
#[derive(Debug, Clone)]
pub(crate) struct Drivers {
    modules: Modules,
    handle: Handle,
}

impl Drivers {
    pub(crate) fn new(modprobe: &Path, handle: Handle) -> Self {
        Self {
            modules: Modules::new(modprobe.to_owned()),
            handle,
        }
    }

    fn load(&self, driver: &Driver) -> Result<(), String> {
        let lines = driver.modules.as_ref().ok_or_else(|| {
            format!(
                "driver {} stands not in section \"all\" of bsp/drivers.json",
                driver.name
            )
        })?;
        for line in lines {
            let (module, parameters) = self.words(line);
            self.modules
                .load(&module, &parameters)
                .map_err(|error| format!("driver {}: {}", driver.name, store::explain(&error)))?;
        }
        Ok(())
    }

    /// The reverse order: a module that another one needs is free after that one.
    fn unload(&self, driver: &Driver) {
        for line in driver.modules.iter().flatten().rev() {
            let (module, _) = self.words(line);
            if let Err(error) = self.modules.unload(&module) {
                tracing::warn!(
                    driver = driver.name,
                    "module stays: {}",
                    store::explain(&error)
                );
            }
        }
    }

    /// Module and parameters. Each word is filled in by itself, so that a value is never a second parameter.
    fn words(&self, line: &str) -> (String, Vec<String>) {
        let view = self.handle.view();
        let value = |key: &str| {
            let found = view.user_meta.iter().find(|(known, _)| known == key);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let mut words = line
            .split_ascii_whitespace()
            .map(|word| filled(word, &value));
        (words.next().unwrap_or_default(), words.collect())
    }

    /// Loads what a container needs before it starts: what is optional is only tried.
    ///
    /// # Errors
    /// The first required driver that could not be loaded, and why.
    pub(crate) fn before_start<D: Disk>(
        &self,
        store: &Store<D>,
        revision: &RevisionId,
        container: &ContainerName,
    ) -> Result<(), String> {
        let bytes = store
            .read_manifest(revision)
            .map_err(|error| store::explain(&error))?;
        // Parsing again is for those few manifests that speak of drivers at all.
        if !contains(&bytes, b"\"drivers\"") {
            return Ok(());
        }
        let manifest = Manifest::parse(&bytes).map_err(|error| error.to_string())?;
        for driver in manifest.drivers(container) {
            match driver.need {
                Need::Required => self.load(&driver)?,
                Need::Optional => {
                    if let Err(error) = self.load(&driver) {
                        tracing::warn!(%container, "started without an optional driver: {error}");
                    }
                }
                Need::Manual => {}
            }
        }
        Ok(())
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// A word with the values of the user metadata in it; nothing for a key that is not set.
fn filled(word: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut filled = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once(USER_META) {
        let Some((key, end)) = after.split_once('}') else {
            break;
        };
        filled.push_str(before);
        filled.push_str(&value(key).unwrap_or_default());
        rest = end;
    }
    filled.push_str(rest);
    filled
}

/// What the server asks.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) facts: Facts,
    pub(crate) drivers: Drivers,
    pub(crate) containerd: Control,
    pub(crate) others: Daemons,
    pub(crate) tokio: tokio::runtime::Handle,
}

impl server::Machine for Host {
    fn facts(&self) -> Vec<(&'static str, String)> {
        self.facts.now()
    }

    fn daemons(&self) -> Vec<Daemon> {
        let private = self.containerd.private();
        private
            .map(|private| Daemon {
                name: CONTAINERD.to_owned(),
                pid: private.pid,
                respawn: private.wanted,
            })
            .into_iter()
            .chain(self.others.list())
            .collect()
    }

    fn control_daemon(&self, name: &str, action: DaemonAction) -> Option<Result<(), String>> {
        let wanted = match action {
            DaemonAction::Start => true,
            DaemonAction::Stop => false,
        };
        if name != CONTAINERD || self.containerd.private().is_none() {
            return self.others.want(name, wanted).map(Ok);
        }
        let done = self.tokio.block_on(self.containerd.want_private(wanted));
        Some(if done {
            Ok(())
        } else {
            let what = if wanted { "started" } else { "ended" };
            Err(format!(
                "containerd has not {what} yet; see GET /daemons and containerd.log in the run folder"
            ))
        })
    }

    fn is_loaded(&self, driver: &Driver) -> Option<bool> {
        let lines = driver.modules.as_ref()?;
        let mut names = lines.iter().map(|line| self.drivers.words(line).0);
        Some(names.all(|module| modules::is_loaded(&module)))
    }

    fn load(&self, driver: &Driver) -> Result<(), String> {
        self.drivers.load(driver)
    }

    fn unload(&self, driver: &Driver) {
        self.drivers.unload(driver);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_from_the_user_metadata() {
        let value = |key: &str| (key == "wifi.debug").then(|| "7 evil=1".to_owned());
        for (word, expected) in [
            ("debug=${user-meta:wifi.debug}", "debug=7 evil=1"),
            ("a=${user-meta:none}b", "a=b"),
            ("x${user-meta:wifi.debug", "x${user-meta:wifi.debug"),
            ("plain", "plain"),
        ] {
            assert_eq!(filled(word, &value), expected, "{word}");
        }
    }

    #[test]
    fn a_value_is_no_second_parameter() {
        let handle = Handle::new(|_, _| {});
        let view = device::handle::View {
            user_meta: std::sync::Arc::new(vec![("k".to_owned(), b"1 b=2".to_vec())]),
            ..device::handle::View::default()
        };
        handle.publish(view);
        let drivers = Drivers::new(Path::new("modprobe"), handle);
        let (module, parameters) = drivers.words("brcmfmac debug=${user-meta:k}  x=1");
        assert_eq!(module, "brcmfmac");
        assert_eq!(parameters, ["debug=1 b=2", "x=1"]);
    }
}
