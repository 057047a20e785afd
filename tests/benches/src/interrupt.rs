//! Ctrl-C ends a run as a failure does: by unwinding, so that everything that was started is ended.

use std::sync::atomic::{AtomicBool, Ordering};

static CAME: AtomicBool = AtomicBool::new(false);

/// Begins to listen for SIGINT and SIGTERM.
pub(crate) fn listen() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a run time for signals");
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be caught");
            let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            CAME.store(true, Ordering::SeqCst);
        });
    });
}

/// Whether one came.
pub(crate) fn came() -> bool {
    CAME.load(Ordering::SeqCst)
}

/// Unwinds when one came. Called in every loop that waits or repeats.
pub(crate) fn check() {
    assert!(!came(), "interrupted");
}
