//! A real hawkBit server from a jar that somebody has, with its embedded database.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::server::Server;

/// Where the jar is: below the folder in which the test runs, which cargo chooses, or below the checkout, in which cargo is called.
fn find(jar: &Path) -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    [jar.to_owned(), checkout.join(jar)]
        .iter()
        .find_map(|path| std::fs::canonicalize(path).ok())
        .unwrap_or_else(|| panic!("there is no {} (HAWKBIT_JAR)", jar.display()))
}

/// Starts `java -jar` and waits until it answers.
///
/// # Panics
/// When there is no jar or no java, or no answer within four minutes.
pub fn start(jar: &Path) -> Server {
    let jar = find(jar);
    let ddi = "--hawkbit.server.ddi.security.authentication";
    Server::start("hawkbit", "/", Duration::from_secs(240), |_, port| {
        let mut command = Command::new("java");
        command
            .arg("-Xmx768m")
            .arg("-jar")
            .arg(jar)
            .arg("--server.address=127.0.0.1")
            .arg(format!("--server.port={port}"))
            .arg("--hawkbit.dmf.rabbitmq.enabled=false")
            .arg("--hawkbit.server.security.dos.filter.enabled=false")
            .arg(format!("{ddi}.targettoken.enabled=true"))
            .arg(format!("{ddi}.gatewaytoken.enabled=true"))
            .arg(format!("{ddi}.gatewaytoken.key=gwsecret"))
            .arg("--hawkbit.controller.minPollingTime=00:00:01")
            .arg("--server.forward-headers-strategy=NATIVE");
        command
    })
}
