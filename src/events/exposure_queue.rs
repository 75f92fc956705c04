//! Exposures on their way to the writer: a bounded queue that nobody waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::writer::Command;
use crate::domain::Exposure;

/// An exposure and when its answer was given, in Unix milliseconds.
type Waiting = (i64, Exposure);

/// Where exposures are left.
#[derive(Debug)]
pub(super) struct ExposureSender {
    queue: mpsc::Sender<Waiting>,
    called: Arc<AtomicBool>,
    dropped: IntCounter,
}

/// Where the writer finds them.
#[derive(Debug)]
pub(super) struct ExposureReceiver {
    queue: mpsc::Receiver<Waiting>,
    /// The writer was told to look and has not looked yet.
    called: Arc<AtomicBool>,
}

/// A queue of so many exposures; `dropped` counts those that found it full.
pub(super) fn queue(most: usize, dropped: IntCounter) -> (ExposureSender, ExposureReceiver) {
    let (sender, receiver) = mpsc::channel(most);
    let called = Arc::<AtomicBool>::default();
    (
        ExposureSender { queue: sender, called: Arc::clone(&called), dropped },
        ExposureReceiver { queue: receiver, called },
    )
}

impl ExposureSender {
    /// Leaves the exposure for the writer, or drops it when too many wait.
    pub(super) fn send(&self, now_ms: i64, exposure: Exposure, commands: &mpsc::Sender<Command>) {
        if self.queue.try_send((now_ms, exposure)).is_err() {
            self.dropped.inc();
            return;
        }
        if !self.called.swap(true, Ordering::SeqCst) {
            // Where the commands' queue is full there is one to come, after which the writer looks here anyway.
            let _told = commands.try_send(Command::Expose);
        }
    }
}

impl ExposureReceiver {
    /// Takes all that wait.
    pub(super) fn take(&mut self) -> Vec<Waiting> {
        // First, so that whoever comes from here on calls again.
        self.called.store(false, Ordering::SeqCst);
        (0..self.queue.len()).map_while(|_| self.queue.try_recv().ok()).collect()
    }
}
