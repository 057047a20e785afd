//! What the loop shows: the view, swapped whole after each event, and events for what changed.

use std::sync::Arc;

use lifecycle::containers::{Shown, ShownGroup};
use lifecycle::runtime::Ending;
use lifecycle::update::{Phase, Update};
use model::container::Container;
use model::metadata::{MetaKey, MetaKind};
use model::{Instant, RevisionId, Status};
use store::explain;

use crate::device::{Device, Stage};
use crate::handle::{ContainerView, GroupView, RecoveryView, TrialView, View};
use crate::ports::World;

/// Both metadata maps as they are on the storage, newest key first.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    pub(crate) user: Vec<(MetaKey, Vec<u8>)>,
    pub(crate) device: Vec<(MetaKey, Vec<u8>)>,
    user_shown: Arc<Vec<(String, Vec<u8>)>>,
    device_shown: Arc<Vec<(String, Vec<u8>)>>,
    /// The maps changed since they were shown last.
    stale: bool,
    own: Vec<(&'static str, String)>,
}

impl Meta {
    pub(crate) fn map(&mut self, kind: MetaKind) -> &mut Vec<(MetaKey, Vec<u8>)> {
        self.stale = true;
        match kind {
            MetaKind::User => &mut self.user,
            MetaKind::Device => &mut self.device,
        }
    }

    /// Renders again what changed. `own`: what the device tells of itself, kept in memory only; a stored key wins.
    fn refresh(&mut self, own: Vec<(&'static str, String)>) {
        if !self.stale && self.own == own {
            return;
        }
        let texts = |map: &[(MetaKey, Vec<u8>)]| {
            map.iter()
                .map(|(key, value)| (key.as_str().to_owned(), value.clone()))
                .collect::<Vec<_>>()
        };
        self.user_shown = Arc::new(texts(&self.user));
        let mut device = texts(&self.device);
        for (key, value) in &own {
            if !device.iter().any(|(known, _)| known == key) {
                device.push(((*key).to_owned(), value.clone().into_bytes()));
            }
        }
        self.device_shown = Arc::new(device);
        self.own = own;
        self.stale = false;
    }
}

impl<W: World> Device<W> {
    pub(crate) fn load_meta(&mut self) {
        for kind in [MetaKind::User, MetaKind::Device] {
            match self.store.load_meta(kind) {
                Ok(map) => {
                    *self.meta.map(kind) = map.entries;
                    for notice in map.notices {
                        self.notice(notice);
                    }
                }
                Err(error) => self.notice(explain(&error)),
            }
        }
    }

    /// Tells what changed, then swaps the view.
    pub(crate) fn publish(&mut self, now: Instant) {
        let shown = self.containers.shown(now);
        self.tell_statuses(&shown);
        self.refresh_claims();
        let groups = self.containers.shown_groups();
        self.meta.refresh(self.own_meta(&groups));
        let update = match &self.stage {
            Stage::Up(update) => Some(update.as_ref()),
            Stage::New | Stage::Booting(_) | Stage::Ended(_) => None,
        };
        if let Stage::Ended(_) = self.stage {
            let mut view = View::clone(&self.handle.view());
            view.shutting_down = true;
            self.handle.publish(view);
        } else {
            let running = update.and_then(Update::running);
            let marker = update.map(Update::marker);
            self.handle.publish(View {
                running: running.map(|running| running.revision.clone()),
                manifest: running.map(|running| running.digest),
                committed: marker.and_then(|marker| marker.committed.clone()),
                previous: marker.and_then(|marker| marker.previous.clone()),
                trial: update.and_then(trial_view),
                containers: shown.into_iter().map(|shown| self.view_of(shown)).collect(),
                groups: groups.into_iter().map(group_view).collect(),
                user_meta: Arc::clone(&self.meta.user_shown),
                device_meta: Arc::clone(&self.meta.device_shown),
                last_failure: self.last_failure,
                runtime_problem: self.runtime_problem.clone(),
                notices: self.notices.clone(),
                claims: Arc::clone(&self.register.shown),
                shutting_down: update.is_some_and(|update| {
                    let phase = update.phase();
                    matches!(phase, Phase::ShuttingDown { .. } | Phase::Clearing { .. })
                }),
                updates: self.updates.seen.clone(),
            });
        }
        if std::mem::take(&mut self.told) {
            self.handle.wake();
        }
    }

    fn tell_statuses(&mut self, shown: &[Shown]) {
        let known = std::mem::take(&mut self.shown);
        for container in shown {
            let name = &container.spec.name;
            if known.get(name) != Some(&container.status) {
                let mut text = container.status.to_string();
                if !container.reason.is_empty() {
                    text = format!("{text}: {}", container.reason);
                }
                let revision = self.running_revision();
                self.tell("container-status", revision, Some(name.clone()), text);
            }
            self.shown.insert(name.clone(), container.status);
        }
    }

    fn running_revision(&self) -> Option<RevisionId> {
        match &self.stage {
            Stage::Up(update) => update.running().map(|running| running.revision.clone()),
            Stage::New | Stage::Booting(_) | Stage::Ended(_) => None,
        }
    }

    fn own_meta(&self, groups: &[ShownGroup]) -> Vec<(&'static str, String)> {
        let revision = self.running_revision();
        let revision = revision.map_or_else(String::new, |revision| revision.to_string());
        let status = groups
            .iter()
            .map(|group| group.status)
            .min()
            .unwrap_or(Status::Ready);
        let mut own = vec![
            ("pantavisor.revision", revision),
            ("pantavisor.status", status.to_string()),
            ("pantavisor.mode", "local".to_owned()),
            ("pantavisor.version", self.settings.version.clone()),
            ("pantahub.claimed", "0".to_owned()),
            ("pantahub.online", "0".to_owned()),
        ];
        if !self.settings.arch.is_empty() {
            own.push(("pantavisor.arch", self.settings.arch.clone()));
        }
        own
    }

    fn view_of(&self, shown: Shown) -> ContainerView {
        let spec = shown.spec;
        ContainerView {
            name: spec.name.clone(),
            group: spec.group.clone(),
            status: shown.status,
            goal: spec.goal,
            restart_policy: spec.restart_policy,
            roles: self.roles(&spec),
            recovery: RecoveryView {
                policy: spec.recovery.policy,
                max_retries: spec.recovery.max_retries,
                current_retries: shown.retries,
                stable_timeout: spec.recovery.stable_timeout,
                is_stable: shown.is_stable,
                backoff: spec.recovery.backoff,
            },
            user_stopped: shown.user_stopped,
            pid: shown.pid,
            started_at: shown.started_at,
            restarts: shown.restarts,
            exit_code: shown.exit_code,
            out_of_memory: shown.out_of_memory,
            damaged: shown.damaged,
            fingerprint: spec.fingerprint,
            reason: shown.reason,
            health_problem: shown.health_problem,
        }
    }

    fn roles(&self, spec: &Container) -> Vec<&'static str> {
        let roles = &spec.roles;
        let mgmt = roles.mgmt || (!roles.given && self.settings.default_role_mgmt);
        [(mgmt, "mgmt"), (roles.monitor, "monitor")]
            .into_iter()
            .filter_map(|(has, role)| has.then_some(role))
            .collect()
    }
}

fn group_view(shown: ShownGroup) -> GroupView {
    let group = shown.group;
    GroupView {
        name: group.name,
        goal: group.goal,
        restart_policy: group.restart_policy,
        status: shown.status,
        recovery: group.recovery.map(|recovery| {
            (
                recovery.max_retries,
                recovery.stable_timeout,
                recovery.backoff,
            )
        }),
    }
}

fn trial_view(update: &Update) -> Option<TrialView> {
    let trial = update.marker().trial.as_ref();
    let (revision, phase) = match update.phase() {
        Phase::Verifying { wanted, .. } => (wanted.revision.clone(), "verifying"),
        Phase::Starting(attempt) => (attempt.revision.clone(), "starting"),
        Phase::Observing { attempt, .. } => (attempt.revision.clone(), "observing"),
        Phase::RollingBack { failed } => (failed.clone(), "rolling back"),
        Phase::ShuttingDown {
            ending: Ending::Reboot,
            ..
        } => (trial?.revision.clone(), "waiting for a reboot"),
        Phase::ShuttingDown { .. } | Phase::Clearing { .. } => return None,
        // Applied and not committed (UPDATED): the next start tries it again.
        Phase::Settled => (trial?.revision.clone(), "waiting for a reboot"),
    };
    Some(TrialView {
        tries_left: trial
            .filter(|trial| trial.revision == revision)
            .map_or(0, |trial| trial.tries_left),
        revision,
        phase,
        commit_at: update.commit_at(),
    })
}
