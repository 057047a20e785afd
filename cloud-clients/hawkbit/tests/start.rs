//! The program itself, as far as it comes without a device: what it says of a command line and an environment that cannot be used.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output};

fn started(prepare: impl FnOnce(&mut Command)) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coxswain-hawkbit"));
    prepare(&mut command);
    let Output { status, stderr, .. } = command.output().expect("it was built");
    (status.code(), String::from_utf8(stderr).expect("text"))
}

#[test]
fn what_is_no_text_stops_nothing_or_is_told() {
    let odd = OsStr::from_bytes(b"a\xffb");
    let (code, said) = started(|command| {
        command.env("SOMEBODYS", odd).arg("--nothing=1");
    });
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no setting \"nothing\""), "{said}");
    let (code, said) = started(|command| {
        command.arg(odd);
    });
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("is no text"), "{said}");
}
