//! What is made from the command line's definition: completions, man pages, the Markdown reference.

use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};

use crate::cli::Cli;
use crate::failure::{Exit, Failure};

/// The completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "coxctl", &mut script);
    script
}

/// The page of coxctl itself.
pub(crate) fn man() -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    Ok(page)
}

/// Writes the pages of all commands into a folder.
pub(crate) fn man_pages(folder: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file("write man pages to", folder, &error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)
}

/// The reference page.
pub(crate) fn reference() -> String {
    let mut command = Cli::command();
    command.build();
    let mut text = String::from(
        "# coxctl\n\n<!-- Made by `coxctl reference`; a test keeps it fresh. Do not edit. -->\n\n\
         Operate a device that runs Coxswain. Tables are for people and may change; `--json` and the\n\
         exit codes are for programs and stay.\n\n## Options of every command\n\n",
    );
    for arg in command.get_arguments() {
        option(&mut text, arg);
    }
    text.push_str("\n## Exit codes\n\n| code | in `--json` errors | meaning |\n|---|---|---|\n");
    for exit in Exit::ALL {
        text.push_str(&format!(
            "| {} | `{}` | {} |\n",
            exit.code(),
            exit.word(),
            exit.meaning()
        ));
    }
    text.push_str(JSON);
    text.push_str("\n## Commands\n");
    for child in command
        .get_subcommands()
        .filter(|child| !child.is_hide_set())
    {
        section(&mut text, child, "coxctl");
    }
    text
}

const JSON: &str = "\n## JSON\n\n\
With `--json` each command prints one message of the control socket (see its OpenAPI document), events\n\
one a line; metadata is one object. Messages that are coxctl's own:\n\n\
| command | message |\n|---|---|\n\
| `install` | `{\"revision\",\"manifest\",\"objects\":{\"needed\",\"uploaded\",\"bytes\"},\"result\"}`; `result` as of `run --wait`, or null |\n\
| `run --wait`, `rollback --wait`, `progress --wait` | `{\"revision\",\"outcome\":\"good\"\\|\"rolled-back\",\"progress\",\"why\"}`; `why` is null when the outcome is good |\n\
| `objects`, `steps`, `config` | the list as the socket sends it |\n\
| `ps`, `groups` | `containers` and `groups` of `GET /status` |\n\
| `logs` | `{\"container\",\"line\"}`, one a line |\n\
| every command that only changes something | `{\"done\":true}` |\n\
| any error, on standard error | `{\"error\":{\"exit\",\"kind\",\"message\",\"because\":[…],\"remedy\",\"code\",\"problems\"}}`; the last three may be missing |\n";

fn section(text: &mut String, command: &Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    let level = if parent == "coxctl" { "###" } else { "####" };
    text.push_str(&format!("\n{level} {name}\n\n"));
    let about = command.get_long_about().or(command.get_about());
    if let Some(about) = about {
        text.push_str(&format!("{}\n", about.to_string().trim()));
    }
    let own = |arg: &&Arg| !arg.is_global_set() && arg.get_id() != "help";
    let mut usage = name.clone();
    if command
        .get_arguments()
        .any(|arg| own(&arg) && !arg.is_positional())
    {
        usage.push_str(" [OPTIONS]");
    }
    for arg in command.get_positionals() {
        let value = values(arg);
        usage.push_str(&if arg.is_required_set() {
            format!(" {value}")
        } else {
            format!(" [{value}]")
        });
    }
    if command.has_subcommands() {
        let word = if command.is_subcommand_required_set() {
            "COMMAND"
        } else {
            "[COMMAND]"
        };
        usage.push_str(&format!(" {word}"));
    }
    text.push_str(&format!("\n    {usage}\n\n"));
    for arg in command.get_arguments().filter(own) {
        option(text, arg);
    }
    for child in command
        .get_subcommands()
        .filter(|child| !child.is_hide_set())
    {
        section(text, child, &name);
    }
}

fn values(arg: &Arg) -> String {
    let names: Vec<&str> = arg
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(|name| name.as_str())
        .collect();
    names.join(" ")
}

fn option(text: &mut String, arg: &Arg) {
    if matches!(arg.get_id().as_str(), "help" | "version") {
        return;
    }
    let mut form = Vec::new();
    if let Some(short) = arg.get_short() {
        form.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        form.push(format!("--{long}"));
    }
    let mut form = form.join(", ");
    if arg.get_action().takes_values() {
        if !form.is_empty() {
            form.push(' ');
        }
        form.push_str(&values(arg));
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let stop = if help.ends_with('.') { "" } else { "." };
    text.push_str(&format!("- `{form}`: {help}{stop}"));
    let choices: Vec<String> = if arg.get_action().takes_values() {
        arg.get_possible_values()
            .iter()
            .map(|value| value.get_name().to_owned())
            .collect()
    } else {
        Vec::new()
    };
    if !choices.is_empty() {
        text.push_str(&format!(" One of: {}.", choices.join(", ")));
    }
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .filter_map(|v| v.to_str())
        .collect();
    if !defaults.concat().is_empty() && arg.get_action().takes_values() {
        text.push_str(&format!(" Default: {}.", defaults.join(" ")));
    }
    if let Some(variable) = arg.get_env().and_then(|name| name.to_str()) {
        text.push_str(&format!(" Environment: `{variable}`."));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_fresh() {
        expect_test::expect_file!["../coxctl.md"].assert_eq(&reference());
    }

    #[test]
    fn completions_and_pages_know_every_command() {
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Zsh,
            clap_complete::Shell::Fish,
        ] {
            let script = String::from_utf8(completions(shell)).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(
                    script.contains(command.get_name()),
                    "{shell}: {}",
                    command.get_name()
                );
            }
        }
        assert!(
            String::from_utf8(man().unwrap())
                .unwrap()
                .contains("make\\-factory")
        );
    }
}
