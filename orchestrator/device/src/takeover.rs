//! The first start on a storage that Pantavisor left: what it committed and tried becomes the marker, in one durable step.

use model::Marker;
use store::{TakeoverRecord, explain};

use crate::device::Device;
use crate::ports::World;

impl<W: World> Device<W> {
    /// The marker to go on with. `marker` is the one that was read; it counts unless Pantavisor has had the device since.
    pub(crate) fn taken_over(&mut self, marker: Option<Marker>) -> Option<Marker> {
        let record = match self.store.takeover() {
            Ok(record) => record,
            Err(error) => {
                self.notice(explain(&error));
                return marker;
            }
        };
        let stale = match (&marker, record) {
            (Some(marker), Some(record)) => record.is_stale(marker, self.booted.as_ref()),
            (Some(_), None) => false,
            (None, _) => true,
        };
        if !stale {
            return marker;
        }
        match self.take_over(marker.as_ref()) {
            Ok(Some(taken)) => Some(taken),
            Ok(None) => marker,
            Err(error) => {
                self.notice(format!(
                    "Pantavisor's storage could not be taken over: {error}; it is tried again at the next start"
                ));
                marker
            }
        }
    }

    /// `None` when Pantavisor has never had this storage.
    fn take_over(&mut self, before: Option<&Marker>) -> Result<Option<Marker>, String> {
        let found = self.store.pantavisor().map_err(|error| explain(&error))?;
        let Some(found) = found else {
            return Ok(None);
        };
        let odd = found
            .odd
            .iter()
            .map(|odd| format!("taken over from Pantavisor: {odd}"));
        let odd: Vec<_> = odd.collect();
        let mut marker = found.marker(self.booted.as_ref(), self.settings.tries);
        if let Some(before) = before {
            marker.generations_reserved = before.generations_reserved;
        }
        for notice in odd {
            self.notice(notice);
        }
        match self.store.import_metadata() {
            Ok(odd) => {
                for odd in odd {
                    self.notice(format!("taken over from Pantavisor: {odd}"));
                }
            }
            Err(error) => self.notice(explain(&error)),
        }
        self.load_meta();
        let trial = marker.trial.as_ref().map(|trial| trial.revision.clone());
        let written = self
            .store
            .set_takeover(&TakeoverRecord::new(trial.clone()))
            .map_err(|error| explain(&error))
            .and_then(|()| {
                self.store
                    .write_marker(&marker)
                    .map_err(|error| explain(&error))
            });
        match written {
            Ok(written) => marker = written,
            // What runs does not depend on it; a try does, and waits until it can be counted.
            Err(error) => self.notice(format!("the takeover is not durable yet: {error}")),
        }
        let name = |revision: Option<&model::RevisionId>| {
            revision.map_or_else(|| "nothing".to_owned(), ToString::to_string)
        };
        let text = format!(
            "Pantavisor's storage was taken over: {} is committed, {} is tried",
            name(marker.committed.as_ref()),
            name(trial.as_ref())
        );
        self.tell("takeover", trial, None, text);
        self.manifests.clear();
        Ok(Some(marker))
    }
}
