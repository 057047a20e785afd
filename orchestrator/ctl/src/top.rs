//! `coxctl top`: what containers use, on a screen that is brought up to date in place.
//!
//! Rates are differences of two readings divided by the device's own time between them. Without a terminal, and with --once, two readings
//! are taken a moment apart and shown once. Nothing of the terminal is changed that an interruption would have to put back.

use std::cmp::Reverse;
use std::time::Duration;

use api::messages::ours::{Condition, ContainerStatus, DeviceStatus};
use model::usage::{ContainerUsage, MachineUsage, Usage};
use serde::Serialize;

use crate::cli::TopArgs;
use crate::commands::{Context, json_line};
use crate::failure::Failure;
use crate::table::{Table, cell, long, maybe, number, text, toned};
use crate::terminal::{Look, Tone, clean, print};
use crate::units;

/// Between the two readings of a screen that is shown once.
const MOMENT: Duration = Duration::from_millis(500);
/// To the upper left corner.
const HOME: &str = "\u{1b}[H";
/// The rest of a line is emptied.
const LINE_END: &str = "\u{1b}[K\n";
/// The rest of the screen is emptied.
const SCREEN_END: &str = "\u{1b}[J";

/// One screen, for programs.
#[derive(Debug, Serialize)]
struct Screen<'a> {
    /// As `GET /status`.
    status: &'a DeviceStatus,
    /// As `GET /usage`.
    usage: &'a Usage,
    /// The reading before it.
    before: &'a Usage,
}

/// What is shown of a container.
#[derive(Debug, Clone, PartialEq)]
struct Row<'a> {
    container: &'a ContainerStatus,
    usage: ContainerUsage,
    /// Thousandths of one processor.
    cpu_permille: Option<u64>,
    /// Bytes a second read and written.
    io: Option<(u64, u64)>,
}

pub(crate) async fn top(context: &Context, args: TopArgs) -> Result<(), Failure> {
    let live = context.look.width.is_some() && !args.once && !context.json;
    let mut before = context.client.usage().await?;
    let mut pause = MOMENT;
    loop {
        tokio::time::sleep(pause).await;
        pause = Duration::from_secs(args.delay);
        let looked = async {
            let status = context.client.status().await?;
            Ok::<_, client::Error>((status, context.client.usage().await?))
        };
        let (status, usage) = match looked.await {
            Ok(looked) => looked,
            // It is being restarted: the screen says so and goes on when it is back.
            Err(error) if live && error.is_transport() => {
                let note = clean(&format!("no answer: {error}"));
                print(&format!("{HOME}{note}{LINE_END}"))?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if context.json {
            print(&json_line(&Screen {
                status: &status,
                usage: &usage,
                before: &before,
            }))?;
        } else if live {
            // A window may have been made larger or smaller.
            let look = Look::now(&context.look);
            let shown = screen(&status, &before, &usage, &look);
            print(&in_place(&shown, look.height()))?;
        } else {
            print(&screen(&status, &before, &usage, &context.look))?;
        }
        if !live && (args.once || !context.json) {
            return Ok(());
        }
        before = usage;
    }
}

/// The text over what is on the screen, no more lines than it has.
fn in_place(text: &str, height: usize) -> String {
    let mut shown = HOME.to_owned();
    for line in text.lines().take(height.saturating_sub(1).max(1)) {
        shown.push_str(line);
        shown.push_str(LINE_END);
    }
    shown + SCREEN_END
}

fn screen(status: &DeviceStatus, before: &Usage, now: &Usage, look: &Look) -> String {
    let mut text = head(status, before, now, look);
    text.push('\n');
    text.push_str(&table(&rows(status, before, now), look));
    text
}

fn head(status: &DeviceStatus, before: &Usage, now: &Usage, look: &Look) -> String {
    let (word, tone) = match status.condition {
        Condition::Good => ("good", Tone::Good),
        Condition::Starting => ("starting", Tone::Busy),
        Condition::Updating => ("updating", Tone::Busy),
        Condition::Degraded => ("degraded", Tone::Bad),
        Condition::ShuttingDown => ("shutting down", Tone::Busy),
    };
    let running = status.running.as_ref().map_or("none", |r| r.as_str());
    let mut first = vec![
        format!("revision {}", look.paint(Tone::Strong, &clean(running))),
        look.paint(tone, word),
        format!("up {}", units::seconds(status.uptime_s)),
    ];
    if let Some(trial) = &status.trial {
        first.push(format!("trying {}", clean(trial.revision.as_str())));
    }
    let machine = &now.machine;
    let mut second = Vec::new();
    if let Some(used) = busy_permille(&before.machine, machine, elapsed_us(before, now)) {
        let all = u64::from(machine.cpus.max(1));
        second.push(format!("cpu {} of {all}", percent(used)));
    }
    if let (Some(total), Some(free)) = (machine.memory_total_bytes, machine.memory_available_bytes)
    {
        let used = units::bytes(total.saturating_sub(free));
        second.push(format!("memory {used} of {}", units::bytes(total)));
    }
    if let Some(storage) = &status.storage {
        let free = units::bytes(storage.free_bytes);
        second.push(format!(
            "storage {free} free of {}",
            units::bytes(storage.total_bytes)
        ));
    }
    for (name, waited) in waits(before, now) {
        second.push(look.paint(Tone::Busy, &format!("waits for {name} {waited}")));
    }
    format!("{}\n{}\n", first.join("  "), second.join("  "))
}

/// Shares of the time in which something waited, when it is worth a word.
fn waits(before: &Usage, now: &Usage) -> Vec<(&'static str, String)> {
    let elapsed = elapsed_us(before, now);
    let pairs = before.machine.pressure.named().into_iter();
    pairs
        .zip(now.machine.pressure.named())
        .filter_map(|((name, before), (_, now))| {
            let share = rate(before?.some_us, now?.some_us, elapsed, 1000)?;
            (share >= 10).then(|| (name, percent(share)))
        })
        .collect()
}

fn busy_permille(before: &MachineUsage, now: &MachineUsage, elapsed: u64) -> Option<u64> {
    rate(before.cpu_busy_us?, now.cpu_busy_us?, elapsed, 1000)
}

fn elapsed_us(before: &Usage, now: &Usage) -> u64 {
    now.at_ms.saturating_sub(before.at_ms).saturating_mul(1000)
}

/// `(now - before) * unit / elapsed`; `None` when the counter was started anew or no time has passed.
fn rate(before: u64, now: u64, elapsed_us: u64, unit: u64) -> Option<u64> {
    let grown = u128::from(now.checked_sub(before)?) * u128::from(unit);
    u64::try_from(grown.checked_div(elapsed_us.into())?).ok()
}

/// Containers, the busiest first.
fn rows<'a>(status: &'a DeviceStatus, before: &Usage, now: &Usage) -> Vec<Row<'a>> {
    let elapsed = elapsed_us(before, now);
    let mut rows: Vec<Row<'a>> = status
        .containers
        .iter()
        .map(|container| {
            let usage = now.containers.get(&container.name).copied();
            let old = before.containers.get(&container.name);
            let grown = |figure: fn(&ContainerUsage) -> Option<u64>, unit| {
                rate(figure(old?)?, figure(usage.as_ref()?)?, elapsed, unit)
            };
            let read = grown(|used| used.io_read_bytes, 1_000_000);
            let written = grown(|used| used.io_write_bytes, 1_000_000);
            Row {
                container,
                cpu_permille: grown(|used| used.cpu_us, 1000),
                io: read.zip(written),
                usage: usage.unwrap_or_default(),
            }
        })
        .collect();
    rows.sort_by_key(|row| {
        let memory = row.usage.memory_working_set_bytes;
        (Reverse(row.cpu_permille), Reverse(memory))
    });
    rows
}

fn table(rows: &[Row<'_>], look: &Look) -> String {
    if rows.is_empty() {
        return "no containers\n".to_owned();
    }
    let mut table = Table::new(&[
        long("CONTAINER"),
        text("STATUS"),
        number("CPU"),
        number("MEMORY"),
        number("LIMIT"),
        number("PIDS"),
        number("READ/s"),
        number("WRITTEN/s"),
        number("RESTARTS"),
        number("UPTIME"),
    ]);
    for row in rows {
        let one = row.container;
        let tone = if one.good { Tone::Good } else { Tone::Bad };
        table.row([
            cell(&one.name),
            toned(tone, one.status),
            maybe(row.cpu_permille.map(percent)),
            maybe(row.usage.memory_working_set_bytes.map(units::bytes)),
            maybe(row.usage.memory_limit_bytes.map(units::bytes)),
            maybe(row.usage.pids),
            maybe(row.io.map(|(read, _)| units::bytes(read))),
            maybe(row.io.map(|(_, written)| units::bytes(written))),
            toned(
                if one.restarts > 0 {
                    Tone::Busy
                } else {
                    Tone::Plain
                },
                one.restarts,
            ),
            maybe(one.uptime_s.map(units::seconds)),
        ]);
    }
    table.render(look)
}

/// Thousandths as percent.
fn percent(permille: u64) -> String {
    format!("{}.{}%", permille / 10, permille % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn usage(at_ms: u64, cpu_us: u64) -> Usage {
        let web = ContainerUsage {
            cpu_us: Some(cpu_us),
            memory_working_set_bytes: Some(5 << 20),
            io_read_bytes: Some(0),
            io_write_bytes: Some(cpu_us),
            pids: Some(3),
            ..ContainerUsage::default()
        };
        Usage {
            at_ms,
            machine: MachineUsage {
                cpus: 2,
                cpu_busy_us: Some(cpu_us * 2),
                memory_total_bytes: Some(1 << 30),
                memory_available_bytes: Some(1 << 29),
                ..MachineUsage::default()
            },
            containers: BTreeMap::from([("web".parse().unwrap(), web)]),
        }
    }

    #[test]
    fn a_screen() {
        let look = Look {
            width: Some(120),
            colour: false,
        };
        let status = crate::screen::tests::device();
        let shown = screen(&status, &usage(1000, 0), &usage(3000, 500_000), &look);
        expect_test::expect_file!["top.txt"].assert_eq(&shown);
    }

    #[test]
    fn rates() {
        assert_eq!(rate(0, 500_000, 2_000_000, 1000), Some(250));
        assert_eq!(rate(5, 4, 1, 1), None, "it was started anew");
        assert_eq!(rate(0, 1, 0, 1), None, "no time has passed");
        assert_eq!(rate(0, u64::MAX, u64::MAX, u64::MAX), Some(u64::MAX));
        assert_eq!(percent(1234), "123.4%");
    }

    #[test]
    fn never_more_lines_than_the_screen_has() {
        let shown = in_place("a\nb\nc\nd\n", 3);
        assert_eq!(shown, "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert!(in_place("a\n", 0).contains('a'));
    }
}
