//! coxctl: operate a device, author revisions.
//!
//! Parses the command line, carries the command out over the control socket, and turns the result into an exit code. All
//! knowledge of the protocol is in `client` and `api`; what is here is words, tables and waiting.

#![forbid(unsafe_code)]

mod author;
mod claims;
mod cli;
mod commands;
mod failure;
mod follow;
mod generate;
mod install;
mod logs;
mod machine;
mod objects;
mod plan;
mod screen;
mod table;
mod terminal;
mod top;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

use crate::failure::{Exit, Failure};

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where nobody reads, nobody can be told so.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() {
                Exit::Usage.code()
            } else {
                0
            });
        }
    };
    let json = cli.global.json;
    match commands::run(cli) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            report(&failure, json);
            ExitCode::from(failure.exit.code())
        }
    }
}

fn report(failure: &Failure, json: bool) {
    if failure.quiet {
        return;
    }
    if json {
        eprintln!("{}", failure.json());
    } else {
        eprint!("coxctl: {}", terminal::clean_lines(&failure.text()));
    }
}
