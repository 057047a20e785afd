//! The reference, `openapi.json`, judged by tools that others made: openapi-spec-validator says that it is one, schemathesis asks what it
//! promises and a lot that it does not, and finds no server error and no answer that stands not in it.
//!
//! The tools come from PyPI: `tests/python-tools openapi-tools` installs them below the target folder. Without them, these tests say SKIPPED; in CI
//! that is a failure.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::device::Bench;

/// Kept below two minutes in CI.
const EXAMPLES: &str = "20";

/// The same requests in every run: what is found can be found again.
const SEED: &str = "1";

/// What schemathesis looks at. What a client may rely on, and not how strict a server might be.
const CONFORMANCE: &str =
    "status_code_conformance,content_type_conformance,response_schema_conformance";

/// Answers of these have no end; what they send is looked at in tests of their own.
const ENDLESS: &str = "^/(events|logs)";

/// Methods that stand in no reference are Pantavisor's matter: it answers 501 to those that it does not know, 400 to the others.
const SETTINGS: &str = "[phases.coverage]\nunexpected-methods = []\n";

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/openapi.json")
}

/// A tool, when it is installed.
fn tool(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let tool = folder.join("openapi-tools/bin").join(name);
    if tool.exists() {
        return Some(tool);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "CI must run this test: run tests/python-tools openapi-tools first"
    );
    eprintln!("SKIPPED: {name} is not installed; run tests/python-tools openapi-tools");
    None
}

fn run(command: &mut Command) {
    let output = command.output().expect("the tool runs");
    assert!(
        output.status.success(),
        "{command:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The socket on a port of the loopback interface, for tools that know only TCP. Its threads end with their connections.
fn bridge(socket: &Path) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = socket.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // The server is gone when the test has ended.
            let Ok(server) = UnixStream::connect(&socket) else {
                return;
            };
            thread::spawn(move || both_ways(&client, &server));
        }
    });
    port
}

fn both_ways(client: &TcpStream, server: &UnixStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, mut to) = (client, server);
            io::copy(&mut from, &mut to).ok();
            server.shutdown(Shutdown::Write).ok();
        });
        let (mut from, mut to) = (server, client);
        io::copy(&mut from, &mut to).ok();
        client.shutdown(Shutdown::Both).ok();
    });
}

fn schemathesis(tool: &Path, port: u16, checks: &str, which: &[&str]) {
    // It keeps what it finds in its folder.
    let folder = std::env::temp_dir().join(format!("coxswain-schemathesis-{port}-{}", which.len()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("schemathesis.toml"), SETTINGS).unwrap();
    let mut command = Command::new(tool);
    command
        .current_dir(&folder)
        .arg("run")
        .arg(std::fs::canonicalize(reference()).unwrap())
        .args(["--url", &format!("http://127.0.0.1:{port}")])
        // As Pantavisor, the server hangs up on other names; the machine itself need not know this one.
        .args(["--header", "Host: localhost"])
        .args(["--checks", checks])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", EXAMPLES, "--seed", SEED])
        .args(["--generation-deterministic", "--request-timeout", "20"])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .args(["--continue-on-failure", "--no-color"])
        .args(which)
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY");
    run(&mut command);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_reference_is_a_valid_openapi_document() {
    let Some(validator) = tool("openapi-spec-validator") else {
        return;
    };
    run(Command::new(validator).arg(reference()));
}

#[test]
fn schemathesis_finds_no_server_error_and_no_answer_beside_the_reference() {
    let Some(schemathesis) = tool("schemathesis") else {
        return;
    };
    let bench = Bench::start();
    let port = bridge(&bench.socket);
    let others = ["--exclude-path", "/signal", "--exclude-path-regex", ENDLESS];
    let checks = format!("not_a_server_error,{CONFORMANCE}");
    self::schemathesis(&schemathesis, port, &checks, &others);
    // Pantavisor answers 500 to a signal that it does not expect, and so do we.
    self::schemathesis(
        &schemathesis,
        port,
        CONFORMANCE,
        &["--include-path", "/signal"],
    );
}
