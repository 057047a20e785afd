//! `ddi-kit COMMAND...`: runs any DDI client against every case of the misbehaving-server kit and prints a table.
//!
//! The command is started once a case with `DDI_URL`, `DDI_TENANT`, `DDI_CONTROLLER`, `DDI_TOKEN` (a target token) and `DDI_FOLDER` (an
//! empty folder) in its environment, and killed at the end of the case. It must poll often enough: the server asks for every second.

use std::process::{Child, Command, ExitCode, Stdio};

use clouds::kit::cases;
use clouds::kit_run::run;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (Some(program), false) = (words.first(), words.iter().any(|word| word == "--help")) else {
        eprintln!(
            "usage: ddi-kit COMMAND...\nStarts the command for each case with DDI_URL, DDI_TENANT, DDI_CONTROLLER, DDI_TOKEN and DDI_FOLDER, and judges what it sends.\nCASE=name runs the cases whose names hold that."
        );
        return ExitCode::from(2);
    };
    let only = std::env::var("CASE").unwrap_or_default();
    let (mut all, mut failed) = (0, 0);
    for case in cases().filter(|case| case.name.contains(&only)) {
        let result = run(case, |access, folder| {
            let child = Command::new(program)
                .args(&words[1..])
                .env("DDI_URL", &access.url)
                .env("DDI_TENANT", &access.tenant)
                .env("DDI_CONTROLLER", &access.controller)
                .env("DDI_TOKEN", &access.token)
                .env("DDI_FOLDER", folder)
                .stdin(Stdio::null())
                .spawn()
                .expect("the command starts");
            Running(child)
        });
        all += 1;
        match result {
            Ok(()) => println!("passed {:<18} {}", case.name, case.what),
            Err(why) => {
                failed += 1;
                println!("FAILED {:<18} {}: {why}", case.name, case.what);
            }
        }
    }
    println!("{} of {all} cases passed", all - failed);
    // A word that names no case is a mistake.
    ExitCode::from(u8::from(failed > 0 || all == 0))
}
