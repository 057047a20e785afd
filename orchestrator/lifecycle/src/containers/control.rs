//! What a person or a container may ask of one container: start, stop, restart, "I am ready".

use model::container::RestartPolicy;
use model::{ContainerName, Goal, Status};

use super::{Containers, Outcome, Run, reconcile};

/// What to do with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start it, forget its retries.
    Start,
    /// Stop it and keep it stopped.
    Stop,
    /// Stop and start it, forget its retries.
    Restart,
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The target has no container of this name.
    #[error("no such container in the running revision")]
    NoSuchContainer,
    /// Its `restart_policy` is `system`.
    #[error("its restart_policy is 'system'")]
    System,
    /// Its status does not allow it.
    #[error("it is {0}, which does not allow this")]
    WrongStatus(Status),
    /// Its goal is not READY.
    #[error("its goal is not READY")]
    SignalNotExpected,
}

impl Containers {
    /// Starts, stops or restarts a container of the target. Carried out by the next [`Containers::reconcile`].
    ///
    /// # Errors
    /// Why it may not be done; nothing has changed then.
    pub fn control(&mut self, name: &ContainerName, action: Action) -> Result<(), ControlError> {
        let status = self.status(name);
        let Some(entry) = self.entries.get_mut(name) else {
            return Err(ControlError::NoSuchContainer);
        };
        let Some(spec) = &entry.spec else {
            return Err(ControlError::NoSuchContainer);
        };
        if spec.restart_policy == RestartPolicy::System {
            return Err(ControlError::System);
        }
        let running = matches!(status, Status::Starting | Status::Started | Status::Ready);
        let ended = matches!(
            status,
            Status::Stopped | Status::Stopping | Status::Recovering
        );
        match action {
            Action::Start if running => return Ok(()),
            Action::Stop => {
                entry.user_stopped = true;
                return Ok(());
            }
            Action::Start if ended => {}
            Action::Restart if running || ended => {}
            Action::Start | Action::Restart => return Err(ControlError::WrongStatus(status)),
        }
        entry.user_stopped = false;
        entry.retries = 0;
        entry.outcome = Outcome::Going;
        if let Run::Stopping { sick, .. } = &mut entry.run {
            // It is being stopped already; that turns into a restart, not into a retry.
            *sick = None;
        }
        if action == Action::Restart && running {
            let spec = entry.spec.clone();
            if let Some(instance) = entry.run.instance().cloned() {
                self.commands
                    .push(reconcile::stop(&instance, spec.as_deref()));
                entry.run = Run::Stopping {
                    instance,
                    sick: None,
                };
            }
        }
        Ok(())
    }

    /// A container says that it is ready. Saying it again changes nothing; saying it before the run time told of the start, or
    /// before a revision was chosen after a start of the orchestrator, is remembered.
    ///
    /// # Errors
    /// [`ControlError::NoSuchContainer`], or [`ControlError::SignalNotExpected`] when its goal is another.
    pub fn ready(&mut self, name: &ContainerName) -> Result<(), ControlError> {
        let entry = self.entries.get(name);
        let entry = entry.ok_or(ControlError::NoSuchContainer)?;
        if !self.decided {
            self.mark_ready(name);
            return Ok(());
        }
        let spec = entry.spec.as_ref().ok_or(ControlError::NoSuchContainer)?;
        if spec.goal != Goal::Ready {
            return Err(ControlError::SignalNotExpected);
        }
        self.mark_ready(name);
        Ok(())
    }
}
