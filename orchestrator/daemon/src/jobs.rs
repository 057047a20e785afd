//! Long work on the storage, one job after the other on a thread of its own.

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use device::ports::{Clock as _, Job, JobEvent, Jobs};
use linux::clock::SystemClock;
use store::Store;
use store::disk::Disk;

/// Hands jobs to the worker.
#[derive(Debug)]
pub(crate) struct Worker {
    jobs: Sender<Job>,
}

impl Worker {
    /// Starts the worker; `deliver` is called on its thread. It ends when this is dropped and its jobs are done.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn start<D: Disk>(
        store: Store<D>,
        deliver: impl Fn(JobEvent) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        thread::Builder::new()
            .name("jobs".to_owned())
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    deliver(carry_out(&store, job));
                }
            })?;
        Ok(Self { jobs })
    }
}

impl Jobs for Worker {
    fn submit(&mut self, job: Job) {
        if self.jobs.send(job).is_err() {
            // The worker ends only by a panic, and a panic ends the process.
            tracing::error!("the worker for the storage is gone");
        }
    }
}

fn carry_out<D: Disk>(store: &Store<D>, job: Job) -> JobEvent {
    match job {
        Job::Verify {
            revision,
            objects,
            reading,
        } => {
            let begun = Instant::now();
            let bad = store.verify_objects(&objects, reading);
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(%revision, objects = objects.len(), ms, "verified");
            JobEvent::Verified { revision, bad }
        }
        Job::Seal { objects, last } => JobEvent::Sealed(store.seal_objects(&objects, last)),
        Job::Collect { keep } => {
            let result = store.collect(&keep, SystemClock.now());
            let result = result
                .map(|collected| collected.bytes)
                .map_err(|error| store::explain(&error));
            JobEvent::Collected { result }
        }
    }
}
