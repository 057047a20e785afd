//! The life of an action: made by an assignment, retrieved, reported on, cancelled, confirmed, closed. What each word of a device
//! does to the action and to its target stands here once.

use super::records::{Action, Force, Row, Stamp, Status, UpdateStatus};
use super::schedule::Window;
use super::wire::Fault;
use super::{Hawkbit, Release};

const PREFIX: &str = "Update Server: ";
/// A message is cut into pieces of this many characters before pieces are counted.
const MESSAGE_CHARS_MAX: usize = 512;

/// What a device reports, parsed.
#[derive(Debug)]
pub(crate) struct Feedback {
    pub(crate) execution: String,
    pub(crate) failed: bool,
    pub(crate) code: Option<i64>,
    pub(crate) details: Vec<String>,
    pub(crate) timestamp: Option<i64>,
}

/// What an operator asks for.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) force: Force,
    pub(crate) weight: Option<i64>,
    pub(crate) confirmation: bool,
    pub(crate) window: Option<Window>,
    pub(crate) rollout: Option<(u64, u64)>,
}

type Key = (String, String);

impl Hawkbit {
    pub(crate) fn row(
        &mut self,
        action: u64,
        kind: Status,
        messages: Vec<String>,
        code: Option<i64>,
        timestamp: Option<i64>,
    ) {
        let id = self.next_id("row");
        let now = self.now;
        let mut messages: Vec<String> = messages.iter().flat_map(|text| pieces(text)).collect();
        if messages.is_empty() {
            // A row without a message is shown with one that is null.
            messages.push(super::device::NO_TEXT.to_owned());
        }
        if let Some(action) = self.actions.get_mut(&action) {
            action.rows.push(Row {
                id,
                kind,
                messages,
                code,
                timestamp: timestamp.unwrap_or(now),
                reported_at: now,
            });
        }
    }

    fn set_status(&mut self, action: u64, status: Status) {
        if let Some(action) = self.actions.get_mut(&action)
            && action.status != status
        {
            action.status = status;
            action.revision += 1;
        }
    }

    /// Active actions of a target, the one to show first.
    pub(crate) fn active_actions(&self, target: &Key) -> Vec<&Action> {
        let mut found: Vec<&Action> = self
            .actions
            .values()
            .filter(|action| action.active && action.target == *target)
            .collect();
        found.sort_by_key(|action| (-action.weight, action.id));
        found
    }

    /// The change marker of an action's resource.
    pub(crate) fn marker(&self, action: &Action) -> i32 {
        let base = match self.setup.release {
            Release::V0_9_0 | Release::V1_0_4 => 410_646_567_i64,
        };
        let window = i64::from(action.window.as_ref().is_some_and(|w| w.is_open(self.now)));
        let forced = i64::from(matches!(action.force, Force::Timed(from) if self.now >= from));
        let id = i64::try_from(action.id).unwrap_or_default();
        let sum = base + id * 923_521 + action.revision * 29_791 + forced * -6 * 31 + window * 12;
        i32::try_from(sum.rem_euclid(1 << 32) - (1 << 31)).unwrap_or_default()
    }

    /// Assigns a set to targets. Gives back the new actions and how many targets had it already.
    pub(crate) fn assign(
        &mut self,
        set: u64,
        targets: &[(Key, Order)],
    ) -> Result<(Vec<u64>, usize), Fault> {
        let mut made = Vec::new();
        let mut already = 0;
        let waiting_is_on = self.is_set("user.confirmation.flow.enabled");
        for (key, order) in targets {
            let Some(target) = self.targets.get(key) else {
                continue;
            };
            if target.assigned == Some(set) {
                already += 1;
                continue;
            }
            let (number, auto) = (target.number, target.auto_confirm.clone());
            let count = self.actions.values().filter(|a| a.target == *key).count();
            if count + 1 > self.setup.actions_max {
                let name = &key.1;
                let _ = number;
                return Err(Fault::quota(
                    self.setup.release.quota_status(),
                    "Action",
                    "Target",
                    name,
                    1,
                    self.setup.actions_max,
                ));
            }
            self.retire(key);
            let first = self.first_message(order);
            let id = self.new_action(key, set, order);
            let needs_consent = waiting_is_on && order.rollout.is_none();
            let (kind, mut messages) = match needs_consent {
                true => (Status::Waiting, vec![first]),
                false => (Status::Running, vec![first]),
            };
            if needs_consent {
                match auto {
                    Some(auto) => messages.push(auto_message(&auto)),
                    None if order.confirmation => {
                        messages.push(
                            "Waiting for the confirmation by the device before processing with the deployment"
                                .to_owned(),
                        );
                        if let Some(action) = self.actions.get_mut(&id) {
                            action.status = Status::Waiting;
                        }
                    }
                    None => messages.push(format!(
                        "Assignment confirmed by initiator [{}].",
                        self.setup.user
                    )),
                }
            }
            self.row(id, kind, messages, None, None);
            self.attach(key, set);
            made.push(id);
        }
        if !made.is_empty() {
            let user = self.setup.user.clone();
            self.lock(set, &user);
        }
        Ok((made, already))
    }

    fn first_message(&self, order: &Order) -> String {
        let group = order.rollout.and_then(|(rollout, group)| {
            let rollout = self.rollouts.get(&rollout)?;
            let group = rollout.groups.iter().find(|one| one.id == group)?;
            Some(format!(
                "Initiated by Rollout Group '{}' [Rollout {}:{}]",
                group.name, rollout.name, rollout.id
            ))
        });
        group.unwrap_or_else(|| format!("Assignment initiated by user '{}'", self.setup.user))
    }

    pub(crate) fn new_action(&mut self, key: &Key, set: u64, order: &Order) -> u64 {
        let foretold = self.foretold.actions.get_mut(&key.1);
        let id = match foretold.and_then(std::collections::VecDeque::pop_front) {
            Some(id) => id,
            None => self.next_id("action"),
        };
        let action = Action {
            id,
            target: key.clone(),
            set,
            force: order.force,
            weight: order.weight.unwrap_or(1000),
            status: Status::Running,
            active: true,
            last_code: None,
            window: order.window.clone(),
            rows: Vec::new(),
            revision: 1,
            rollout: order.rollout,
            stamp: Stamp::new(&self.setup.user, self.now),
        };
        self.actions.insert(id, action);
        id
    }

    /// The target is to have this set.
    pub(crate) fn attach(&mut self, key: &Key, set: u64) {
        let now = self.now;
        if let Some(target) = self.targets.get_mut(key) {
            target.assigned = Some(set);
            target.status = UpdateStatus::Pending;
            target.stamp.modified_at = now;
        }
    }

    pub(crate) fn lock(&mut self, set: u64, by: &str) {
        let now = self.now;
        let Some(set) = self.sets.get_mut(&set) else {
            return;
        };
        if set.locked {
            return;
        }
        set.locked = true;
        set.stamp.modified_at = now;
        by.clone_into(&mut set.stamp.modified_by);
        for module in set.modules.clone() {
            if let Some(module) = self.modules.get_mut(&module) {
                module.locked = true;
                by.clone_into(&mut module.stamp.modified_by);
            }
        }
    }

    /// A newer assignment meets active actions.
    pub(crate) fn retire(&mut self, key: &Key) {
        if self.is_set("multi.assignments.enabled") {
            return;
        }
        let close = self.is_set("repository.actions.autoclose.enabled");
        let old: Vec<u64> = self
            .active_actions(key)
            .into_iter()
            .filter(|action| {
                let set = self.sets.get(&action.set);
                let keeps = set.is_some_and(|set| set.migration_step);
                !keeps && (close || action.status != Status::Canceling)
            })
            .map(|action| action.id)
            .collect();
        for id in old {
            if close {
                self.set_status(id, Status::Canceled);
                self.deactivate(id);
                let text = format!("{PREFIX}close obsolete action due to new update");
                self.row(id, Status::Canceled, vec![text], None, None);
            } else {
                self.set_status(id, Status::Canceling);
                let text = format!("{PREFIX}cancel obsolete action due to new update");
                self.row(id, Status::Canceling, vec![text], None, None);
            }
        }
    }

    fn deactivate(&mut self, action: u64) {
        if let Some(action) = self.actions.get_mut(&action) {
            action.active = false;
        }
    }

    /// The operator, or a window that has lapsed, cancels an active action.
    pub(crate) fn cancel(&mut self, action: u64, by_operator: bool) -> Result<(), Fault> {
        let refused = |text: String| {
            Fault::of(
                405,
                "CancelActionNotAllowedException",
                "action.notCancelable",
                text,
            )
        };
        let found = &self.actions[&action];
        if found.is_cancelling_or_cancelled() {
            return Err(refused(
                "Actions in canceling or canceled state cannot be canceled".to_owned(),
            ));
        }
        if !found.active {
            return Err(refused(format!(
                "Action [id: {action}] is not active and cannot be canceled"
            )));
        }
        self.set_status(action, Status::Canceling);
        let prefix = if by_operator { PREFIX } else { "" };
        let text = format!("{prefix}manual cancelation requested");
        self.row(action, Status::Canceling, vec![text], None, None);
        Ok(())
    }

    pub(crate) fn force_quit(&mut self, action: u64) -> Result<(), Fault> {
        let found = &self.actions[&action];
        let what = match (found.is_cancelling_or_cancelled(), found.active) {
            (false, _) => "canceled yet",
            (true, false) => "active",
            (true, true) => {
                let text = format!("{PREFIX}A force quit has been performed.");
                self.row(action, Status::Canceled, vec![text], None, None);
                self.cancelled(action);
                return Ok(());
            }
        };
        Err(Fault::of(
            405,
            "ForceQuitActionNotAllowedException",
            "action.notForceQuitable",
            format!("{action} is not {what} and cannot be force quit"),
        ))
    }

    /// An action is cancelled for good.
    fn cancelled(&mut self, action: u64) {
        self.set_status(action, Status::Canceled);
        self.deactivate(action);
        let key = self.actions[&action].target.clone();
        let mut rest: Vec<(u64, u64)> = self
            .active_actions(&key)
            .iter()
            .map(|other| (other.id, other.set))
            .collect();
        rest.sort_unstable();
        if let Some(target) = self.targets.get_mut(&key) {
            match rest.first() {
                Some((_, set)) => target.assigned = Some(*set),
                None => {
                    target.assigned = target.installed;
                    target.status = UpdateStatus::InSync;
                }
            }
        }
    }

    /// A device has read an action's details.
    pub(crate) fn retrieved(&mut self, action: u64, what: &str) {
        let found = &self.actions[&action];
        if found.rows.last().map(|row| row.kind) == Some(Status::Retrieved) {
            return;
        }
        let changes = !found.is_cancelling_or_cancelled();
        self.row(
            action,
            Status::Retrieved,
            vec![format!("{PREFIX}{what}")],
            None,
            None,
        );
        if changes {
            self.set_status(action, Status::Retrieved);
        }
    }

    fn check_rows(&self, action: u64) -> Result<(), Fault> {
        let maximum = self.setup.rows_max;
        if self.actions[&action].rows.len() < maximum {
            return Ok(());
        }
        Err(Fault::quota(
            self.setup.release.quota_status(),
            "ActionStatus",
            "Action",
            &action.to_string(),
            1,
            maximum,
        ))
    }

    fn check_messages(&self, messages: &[String]) -> Result<(), Fault> {
        let count: usize = messages.iter().map(|text| pieces(text).len()).sum();
        let maximum = self.setup.messages_max;
        if count <= maximum {
            return Ok(());
        }
        Err(Fault::quota(
            self.setup.release.quota_status(),
            "Message",
            "ActionStatus",
            "<new>",
            count,
            maximum,
        ))
    }

    /// A download is written down, if there is room.
    pub(crate) fn downloads(&mut self, action: u64, path: &str) -> Result<(), Fault> {
        self.check_rows(action)?;
        let text = format!("{PREFIX}Target downloads {path}");
        self.row(action, Status::Download, vec![text], None, None);
        Ok(())
    }

    /// A report on the deployment channel.
    pub(crate) fn report(&mut self, action: u64, feedback: &Feedback) -> Result<(), Fault> {
        let mut messages = feedback.details.clone();
        if let Some(code) = feedback.code {
            messages.push(format!("Device reported status code: {code}"));
        }
        let (kind, text) = match feedback.execution.as_str() {
            "canceled" => (
                Status::Canceled,
                "Target confirmed cancellation.".to_owned(),
            ),
            "rejected" => (Status::Warning, "Target REJECTED update".to_owned()),
            "closed" if feedback.failed => (
                Status::Error,
                "Target reported CLOSED with ERROR!".to_owned(),
            ),
            "closed" => (
                Status::Finished,
                "Target reported CLOSED with OK!".to_owned(),
            ),
            "download" => (
                Status::Download,
                "Target confirmed download start".to_owned(),
            ),
            "downloaded" => (
                Status::Downloaded,
                "Target confirmed download finished".to_owned(),
            ),
            other => (
                Status::Running,
                format!("Target reported {}", other.to_uppercase()),
            ),
        };
        if messages.is_empty() {
            messages.push(format!("{PREFIX}{text}."));
        }
        if !matches!(kind, Status::Finished | Status::Error) {
            self.check_rows(action)?;
        }
        self.check_messages(&messages)?;
        let at = feedback.timestamp.unwrap_or(self.now);
        match kind {
            Status::Error => self.failed(action),
            Status::Finished => self.finished(action, at),
            Status::Downloaded => self.downloaded(action),
            Status::Running
            | Status::Retrieved
            | Status::Download
            | Status::Warning
            | Status::Canceling
            | Status::Canceled
            | Status::CancelRejected
            | Status::Waiting
            | Status::Scheduled => {}
        }
        self.row(action, kind, messages, feedback.code, feedback.timestamp);
        self.set_code(action, feedback.code);
        Ok(())
    }

    fn set_code(&mut self, action: u64, code: Option<i64>) {
        if let Some(action) = self.actions.get_mut(&action)
            && action.last_code != code
        {
            action.last_code = code;
            action.revision += 1;
        }
    }

    fn failed(&mut self, action: u64) {
        self.set_status(action, Status::Error);
        self.deactivate(action);
        let key = self.actions[&action].target.clone();
        if let Some(target) = self.targets.get_mut(&key) {
            target.status = UpdateStatus::Error;
            target.assigned = None;
        }
    }

    fn finished(&mut self, action: u64, at: i64) {
        self.set_status(action, Status::Finished);
        self.deactivate(action);
        let found = &self.actions[&action];
        let (key, set) = (found.target.clone(), found.set);
        let only_download = found.force == Force::DownloadOnly;
        let Some(target) = self.targets.get_mut(&key) else {
            return;
        };
        target.wants_attributes = true;
        if target.installed_at.is_some_and(|before| before >= at) {
            return;
        }
        target.installed = Some(set);
        target.installed_at = Some(at);
        if only_download {
            target.assigned = Some(set);
        }
        if target.assigned == Some(set) {
            target.status = UpdateStatus::InSync;
        }
    }

    fn downloaded(&mut self, action: u64) {
        if self.actions[&action].force != Force::DownloadOnly {
            return;
        }
        self.set_status(action, Status::Downloaded);
        self.deactivate(action);
        let key = self.actions[&action].target.clone();
        if let Some(target) = self.targets.get_mut(&key) {
            target.status = UpdateStatus::InSync;
            target.wants_attributes = true;
        }
    }

    /// A report on the cancel channel.
    pub(crate) fn report_cancel(&mut self, action: u64, feedback: &Feedback) -> Result<(), Fault> {
        if !self.actions[&action].is_cancelling_or_cancelled() {
            return Err(Fault::of(
                405,
                "CancelActionNotAllowedException",
                "action.notCancelable",
                "The action is not in canceling state.",
            ));
        }
        let mut messages = Vec::new();
        let kind = match feedback.execution.as_str() {
            "canceled" => {
                messages.push(format!(
                    "{PREFIX}Target reported cancel for a cancel which is not supported by the server."
                ));
                Status::Warning
            }
            "rejected" => {
                messages.push(format!("{PREFIX}Target rejected the cancellation request."));
                Status::CancelRejected
            }
            "closed" if feedback.failed => {
                messages.push(format!(
                    "{PREFIX}Target was not able to complete cancellation."
                ));
                Status::Error
            }
            "closed" => {
                messages.push(format!("{PREFIX}Cancellation confirmed."));
                Status::Canceled
            }
            _ => Status::Running,
        };
        messages.extend(feedback.details.iter().cloned());
        if let Some(code) = feedback.code {
            messages.push(format!("Device reported status code: {code}"));
        }
        match kind {
            Status::Canceled => {
                let word = match self.setup.release {
                    Release::V0_9_0 => "sucessfully",
                    Release::V1_0_4 => "successfully",
                };
                messages.push(format!(
                    "{PREFIX}Cancellation completion is finished {word}."
                ));
                self.cancelled(action);
            }
            Status::Error | Status::CancelRejected => self.set_status(action, Status::Running),
            Status::Running
            | Status::Warning
            | Status::Retrieved
            | Status::Download
            | Status::Downloaded
            | Status::Finished
            | Status::Canceling
            | Status::Waiting
            | Status::Scheduled => {
                self.check_rows(action)?;
                self.check_messages(&messages)?;
            }
        }
        self.row(action, kind, messages, feedback.code, feedback.timestamp);
        Ok(())
    }

    /// Consent is given or refused.
    pub(crate) fn confirm(
        &mut self,
        action: u64,
        yes: bool,
        code: Option<i64>,
        details: &[String],
    ) -> Result<(), Fault> {
        let found = &self.actions[&action];
        if !found.active {
            return Err(Fault::Empty(410));
        }
        if !found.is_waiting() {
            return Err(Fault::Empty(404));
        }
        let mut messages = details.to_vec();
        messages.push(if yes {
            format!(
                "{PREFIX}Target confirmed action. Therefore, it will be set to the running state to proceed with the deployment."
            )
        } else {
            format!(
                "{PREFIX}Target rejected action. Action will stay in confirmation pending state."
            )
        });
        if let Some(code) = code {
            messages.push(format!("Confirmation status code: {code}"));
        }
        self.check_rows(action)?;
        self.check_messages(&messages)?;
        let kind = if yes {
            Status::Running
        } else {
            Status::Waiting
        };
        if yes {
            self.set_status(action, Status::Running);
        }
        self.row(action, kind, messages, code, None);
        self.set_code_after_status(action, code, yes);
        Ok(())
    }

    /// One write of the row: status and code change together.
    fn set_code_after_status(&mut self, action: u64, code: Option<i64>, changed: bool) {
        if let Some(action) = self.actions.get_mut(&action)
            && action.last_code != code
        {
            action.last_code = code;
            action.revision += i64::from(!changed);
        }
    }

    /// Auto-confirmation frees what waits.
    pub(crate) fn confirm_all(&mut self, key: &Key) {
        let Some(auto) = self.targets.get(key).and_then(|t| t.auto_confirm.clone()) else {
            return;
        };
        let waiting: Vec<u64> = self
            .active_actions(key)
            .into_iter()
            .filter(|action| action.is_waiting())
            .map(|action| action.id)
            .collect();
        for id in waiting {
            self.set_status(id, Status::Running);
            self.row(id, Status::Running, vec![auto_message(&auto)], None, None);
        }
    }

    /// The device, or the operator, states what is installed.
    pub(crate) fn install_offline(&mut self, key: &Key, set: u64, by: &str) -> Option<u64> {
        let target = self.targets.get(key)?;
        if target.assigned == Some(set) || target.status == UpdateStatus::Pending {
            return None;
        }
        let order = Order {
            force: Force::Forced,
            weight: None,
            confirmation: false,
            window: None,
            rollout: None,
        };
        self.retire(key);
        let id = self.new_action(key, set, &order);
        let now = self.now;
        if let Some(action) = self.actions.get_mut(&id) {
            action.active = false;
            action.status = Status::Finished;
            action.stamp = Stamp::new(by, now);
        }
        let text = format!("Assignment initiated by user '{by}'");
        self.row(id, Status::Finished, vec![text], None, None);
        if let Some(target) = self.targets.get_mut(key) {
            target.assigned = Some(set);
            target.installed = Some(set);
            target.installed_at = Some(now);
            target.status = UpdateStatus::InSync;
            by.clone_into(&mut target.stamp.modified_by);
        }
        self.lock(set, by);
        Some(id)
    }
}

fn auto_message(auto: &super::records::AutoConfirm) -> String {
    let mut text = format!(
        "Assignment automatically confirmed by initiator '{}'. \n\nAuto confirmation activated by system user: '{}'",
        auto.initiator.as_deref().unwrap_or("n/a"),
        auto.by
    );
    text.push_str(&format!(
        " \n\nRemark: {}",
        auto.remark.as_deref().unwrap_or("n/a")
    ));
    text
}

fn pieces(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    if letters.is_empty() {
        return vec![String::new()];
    }
    letters
        .chunks(MESSAGE_CHARS_MAX)
        .map(|piece| piece.iter().collect())
        .collect()
}
