//! `auto_recovery`, of a group or of a container.
//!
//! A container without one, in a group without one, gets [`DEFAULT`]: a crash alone never restarts the device. That and
//! an explicit `"policy":"no"`, which here really switches recovery off, are our documented differences from
//! Pantavisor.

use std::time::Duration;

use super::json::{Data, Node};
use super::problems::{Reader, Shown, parse_duration};
use crate::container::{BackoffPolicy, Recovery, RecoveryPolicy};
use crate::limits;

/// What holds where nothing is said: the values of the built-in group `app`, and retries are forgotten after five minutes,
/// lest a crash a month restart the device after five months.
pub(super) const DEFAULT: Recovery = Recovery {
    policy: RecoveryPolicy::OnFailure,
    max_retries: 5,
    retry_delay: Duration::from_secs(5),
    backoff_factor: 2.0,
    reset_window: Duration::from_secs(300),
    stable_timeout: Duration::from_secs(30),
    backoff: BackoffPolicy::Reboot,
};

pub(super) const POLICIES: [(&str, RecoveryPolicy); 4] = [
    ("no", RecoveryPolicy::No),
    ("always", RecoveryPolicy::Always),
    ("on-failure", RecoveryPolicy::OnFailure),
    ("unless-stopped", RecoveryPolicy::UnlessStopped),
];

/// Reads the object; fields that are absent get [`DEFAULT`]'s values.
pub(super) fn read<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<Recovery> {
    reader.object(node)?;
    let mut recovery = DEFAULT;
    if let Some(policy) = node.get("policy")
        && let Some(policy) = reader.choice(policy, "unknown-recovery-policy", &POLICIES)
    {
        recovery.policy = policy;
    }
    if let Some(retries) = node.get("max_retries")
        && let Some(retries) = reader.whole(retries, 0, u64::from(u32::MAX))
    {
        recovery.max_retries = u32::try_from(retries).expect("within the range just checked");
    }
    if let Some(factor) = node.get("backoff_factor")
        && let Some(factor) = reader.real(factor, 1.0, 100.0)
    {
        recovery.backoff_factor = factor;
    }
    for (name, field) in [
        ("retry_delay", &mut recovery.retry_delay),
        ("reset_window", &mut recovery.reset_window),
        ("stable_timeout", &mut recovery.stable_timeout),
    ] {
        if let Some(duration) = node.get(name).and_then(|node| reader.duration(node)) {
            *field = duration;
        }
    }
    if let Some(backoff) = node.get("backoff_policy")
        && let Some(backoff) = read_backoff(reader, backoff)
    {
        recovery.backoff = backoff;
    }
    Some(recovery)
}

fn read_backoff<'a>(reader: &mut Reader<'a, '_>, node: &'a Node) -> Option<BackoffPolicy> {
    if let Data::Number(_) = node.data {
        return reader.duration(node).map(BackoffPolicy::Pause);
    }
    let text = reader.text(node)?;
    match text {
        "reboot" => return Some(BackoffPolicy::Reboot),
        "never" => return Some(BackoffPolicy::Never),
        _ => {}
    }
    match parse_duration(text) {
        Some(pause) if pause <= limits::DURATION_MAX => Some(BackoffPolicy::Pause(pause)),
        Some(_) | None => {
            reader.report(
                node,
                "bad-backoff-policy",
                format_args!("{} is no back-off policy", Shown(text)),
                format_args!(
                    "use \"reboot\", \"never\" or a pause such as \"30s\", \"10min\", \"1h\""
                ),
            );
            None
        }
    }
}
