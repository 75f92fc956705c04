//! Who may come in: open, draining, closed; and who is still inside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::Failure;

/// The door of the service. Whoever comes in holds a [`Visit`] until the answer is given.
#[derive(Debug)]
pub(super) struct Door {
    ready: watch::Sender<bool>,
    closed: AtomicBool,
    inside: watch::Sender<usize>,
}

impl Door {
    pub(super) fn open() -> Self {
        Self { ready: watch::Sender::new(true), closed: AtomicBool::new(false), inside: watch::Sender::new(0) }
    }

    /// Comes in, unless the door is closed.
    pub(super) fn enter(&self) -> Result<Visit<'_>, Failure> {
        // Counted before looking, so that a drain that closes the door at this moment waits for this visit.
        self.inside.send_modify(|inside| *inside += 1);
        let visit = Visit { door: self };
        if self.closed.load(Ordering::SeqCst) {
            return Err(Failure::NotReady { reason: "draining", retry_after: Duration::from_secs(1) });
        }
        Ok(visit)
    }

    pub(super) fn watch_ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Says so at once, keeps answering for `lag`, then lets nobody in and waits until everybody has left.
    pub(super) async fn drain(&self, lag: Duration) {
        self.ready.send_replace(false);
        tokio::time::sleep(lag).await;
        self.closed.store(true, Ordering::SeqCst);
        // The sender is ours, so waiting cannot fail.
        drop(self.inside.subscribe().wait_for(|&inside| inside == 0).await);
    }

    pub(super) fn inside(&self) -> usize {
        *self.inside.borrow()
    }
}

/// One request that is being answered.
pub(super) struct Visit<'a> {
    door: &'a Door,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.door.inside.send_modify(|inside| *inside -= 1);
    }
}
