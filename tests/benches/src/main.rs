//! Measures every figure of README.md beside its peer or limit, in the same run, and prints one Markdown table.
//!
//! Started by `tests/benches/run`, which builds the binaries. Never part of the test suite: nothing here asserts a time. A row that
//! cannot be measured is in the table with the reason; what it had started is ended all the same.

#![forbid(unsafe_code)]

mod figure;
mod files;
mod interrupt;
mod load;
mod memory;
mod peer;
mod rows;
mod samples;
mod subject;
mod upload;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::figure::{Figure, Verdict};

/// What was asked for.
#[derive(Debug, clap::Parser)]
#[command(about = "Measures Coxswain beside its peers and prints one Markdown table")]
pub(crate) struct Options {
    /// Rows to measure; all when none is named.
    rows: Vec<String>,
    /// Print the names of the rows.
    #[arg(long)]
    list: bool,
    /// Repetitions of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Updates of the row `memory-over-time`.
    #[arg(long, default_value_t = 200)]
    updates: u32,
    /// Requests of the row `memory-over-time`.
    #[arg(long, default_value_t = 100_000)]
    requests: u32,
    /// Serve `hello` on this socket: how the peer of the request rows is started.
    #[arg(long, hide = true)]
    hello: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(socket) = &options.hello {
        return peer::hello::serve(socket);
    }
    if options.list {
        for (name, _) in rows::ALL {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = options
        .rows
        .iter()
        .find(|asked| !rows::ALL.iter().any(|(name, _)| name == asked))
    {
        eprintln!("there is no row {unknown:?}: see --list");
        return ExitCode::from(2);
    }
    if let Some(why) = acceptance::device::missing() {
        eprintln!("nothing can be measured: {why}");
        return ExitCode::FAILURE;
    }
    interrupt::listen();
    println!("{}", figure::HEADING);
    let mut complete = true;
    for (name, measure) in rows::ALL {
        if !options.rows.is_empty() && !options.rows.iter().any(|asked| asked == name) {
            continue;
        }
        eprintln!("measuring {name}");
        let figures = catch_unwind(AssertUnwindSafe(|| measure(&options)));
        let figures = figures.unwrap_or_else(|_| vec![Figure::not_measured(name)]);
        for figure in figures {
            complete &= figure.verdict != Verdict::NotMeasured;
            println!("{figure}");
        }
        if interrupt::came() {
            return ExitCode::FAILURE;
        }
    }
    if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
