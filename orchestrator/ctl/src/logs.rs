//! `coxctl logs`: one container's log, or all of them with names in front.

use api::call::LogForm;
use client::{LogQuery, Logs};
use model::ContainerName;
use tokio::sync::mpsc;

use crate::cli::LogsArgs;
use crate::commands::Context;
use crate::failure::{Exit, Failure};
use crate::terminal::{Cleaner, clean, clean_lines, print, print_bytes};

/// Bytes of a line that is not complete; longer ones are shown in parts.
const LINE_BYTES_MAX: usize = 64 << 10;

pub(crate) async fn logs(context: &Context, args: LogsArgs) -> Result<(), Failure> {
    let query = LogQuery {
        tail: args.lines,
        follow: args.follow,
        revision: args.revision,
        since: args.since,
        level: args.level,
        form: if context.json {
            Some(LogForm::Json)
        } else {
            args.times.then_some(LogForm::Text)
        },
    };
    if let Some(container) = &args.container {
        let log = context.client.logs(container, &query).await?;
        return if context.json {
            // Lines of JSON already.
            raw(log).await
        } else if context.look.width.is_some() {
            clean_log(log).await
        } else {
            raw(log).await
        };
    }
    let status = context.client.status().await?;
    let names: Vec<ContainerName> = status.containers.into_iter().map(|c| c.name).collect();
    if args.follow {
        all_at_once(context, names, query).await
    } else {
        one_by_one(context, names, query).await
    }
}

async fn raw(mut log: Logs) -> Result<(), Failure> {
    while let Some(piece) = log.next().await? {
        print_bytes(&piece)?;
    }
    Ok(())
}

async fn clean_log(mut log: Logs) -> Result<(), Failure> {
    let mut cleaner = Cleaner::default();
    while let Some(piece) = log.next().await? {
        print(&cleaner.push(&piece))?;
    }
    Ok(print(&cleaner.finish())?)
}

/// Whether there is just nothing to show: a container that was never started has no log.
fn no_log(error: &client::Error) -> bool {
    error.code() == Some(api::Code::NoSuchLog)
}

async fn one_by_one(
    context: &Context,
    names: Vec<ContainerName>,
    query: LogQuery,
) -> Result<(), Failure> {
    let width = widest(&names);
    for name in names {
        let mut log = match context.client.logs(&name, &query).await {
            Ok(log) => log,
            Err(error) if no_log(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut lines = Lines::default();
        while let Some(piece) = log.next().await? {
            for line in lines.push(&piece) {
                show(context, &name, width, &line)?;
            }
        }
        if let Some(line) = lines.finish() {
            show(context, &name, width, &line)?;
        }
    }
    Ok(())
}

async fn all_at_once(
    context: &Context,
    names: Vec<ContainerName>,
    query: LogQuery,
) -> Result<(), Failure> {
    let width = widest(&names);
    let (sender, mut receiver) =
        mpsc::channel::<Result<(ContainerName, String), client::Error>>(64);
    for name in names {
        let (sender, client, query) = (sender.clone(), context.client.clone(), query.clone());
        // The task ends when the receiver is gone or the log is.
        tokio::spawn(async move {
            let result = async {
                let mut log = client.logs(&name, &query).await?;
                let mut lines = Lines::default();
                while let Some(piece) = log.next().await? {
                    for line in lines.push(&piece) {
                        if sender.send(Ok((name.clone(), line))).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                if let Some(line) = lines.finish() {
                    sender.send(Ok((name.clone(), line))).await.ok();
                }
                Ok(())
            }
            .await;
            if let Err(error) = result
                && !no_log(&error)
            {
                sender.send(Err(error)).await.ok();
            }
        });
    }
    drop(sender);
    while let Some(line) = receiver.recv().await {
        let (name, line) = line?;
        show(context, &name, width, &line)?;
    }
    Err(Failure::new(Exit::Unreachable, "all logs have ended")
        .remedy("the orchestrator was stopped, or there is no container; see `coxctl status`"))
}

fn widest(names: &[ContainerName]) -> usize {
    names
        .iter()
        .map(|name| clean(name.as_str()).chars().count())
        .max()
        .unwrap_or(0)
}

fn show(context: &Context, name: &ContainerName, width: usize, line: &str) -> Result<(), Failure> {
    if context.json {
        // A line of JSON that holds the name.
        return Ok(print(&format!("{line}\n"))?);
    }
    let name = clean(name.as_str());
    if context.look.width.is_none() {
        return Ok(print(&format!("{name:<width$} | {line}\n"))?);
    }
    let mut cleaner = Cleaner::default();
    let cleaned = cleaner.push(line.as_bytes()) + &cleaner.finish();
    Ok(print(&format!(
        "{name:<width$} | {}\n",
        clean_lines(&cleaned)
    ))?)
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
struct Lines {
    held: Vec<u8>,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.held.extend_from_slice(line);
            rest = after.get(1..).unwrap_or_default();
            lines.push(self.take());
        }
        self.held.extend_from_slice(rest);
        if self.held.len() > LINE_BYTES_MAX {
            lines.push(self.take());
        }
        lines
    }

    fn finish(&mut self) -> Option<String> {
        (!self.held.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.held);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        String::from_utf8_lossy(line).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_cut_into_lines() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\nb"), ["a"]);
        assert_eq!(lines.push(b"c\r\n\nd"), ["bc", ""]);
        assert_eq!(lines.finish().as_deref(), Some("d"));
        assert_eq!(lines.finish(), None);
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(
            lines.push(&long).len(),
            1,
            "an endless line does not grow for ever"
        );
        assert_eq!(lines.push(b"\n"), [""]);
    }
}
