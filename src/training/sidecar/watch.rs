//! When a cycle begins: the log is looked at again and again, and read only where it grew.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::cycle::Sidecar;
use crate::events::{Record, read_name, read_records_after};

/// Name and length of every file of the log: equal ones hold the same events.
type Marks = Vec<(OsString, u64)>;

/// What was seen at the last look.
#[derive(Debug, Default)]
struct Seen {
    marks: Marks,
    fresh: u64,
}

/// Watches the log and runs cycles, until nobody holds the other end of `stop`. `ready` says whether the last look or cycle
/// went well.
pub(super) fn watch(sidecar: &Sidecar, ready: &AtomicBool, stop: &Receiver<()>) {
    let trigger = &sidecar.config.trigger;
    let (began, mut seen) = (now(), Seen::default());
    loop {
        let looked = look(sidecar, began, &mut seen);
        ready.store(looked.is_ok(), Ordering::Relaxed);
        let pause = match looked {
            Ok(()) => Duration::from_millis(trigger.poll_ms),
            Err(error) => {
                tracing::error!("{error:#}");
                sidecar.metrics.ended("failed");
                Duration::from_secs(trigger.retry_s).max(Duration::from_millis(trigger.poll_ms))
            }
        };
        if stop.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Looks at the log, and runs a cycle when one is due or was left unfinished.
fn look(sidecar: &Sidecar, began: Duration, seen: &mut Seen) -> anyhow::Result<()> {
    let state = sidecar.place.state()?;
    let unfinished = sidecar.place.plan()?.is_some();
    let log = &sidecar.config.events;
    let marks = marks(log)?;
    if marks != seen.marks {
        let mut fresh = 0;
        read_records_after(log, state.looked_through(read_name(log)?.as_deref()), &mut |record| {
            fresh += u64::from(matches!(record, Record::Event(_)))
        })?;
        *seen = Seen { marks, fresh };
    }
    sidecar.metrics.waiting(seen.fresh);
    let ended = u64::try_from(state.ended_at).ok().filter(|seconds| *seconds > 0);
    let last = ended.map_or(began, Duration::from_secs);
    if !unfinished && !sidecar.config.trigger.is_due(seen.fresh, now().saturating_sub(last)) {
        return Ok(());
    }
    // Counted anew after it, from where it has looked.
    *seen = Seen::default();
    let outcome = sidecar.cycle()?;
    tracing::info!("{outcome}");
    Ok(())
}

fn marks(log: &Path) -> anyhow::Result<Marks> {
    let files = || -> std::io::Result<Marks> {
        let mut marks = Vec::new();
        for entry in fs::read_dir(log)? {
            let entry = entry?;
            marks.push((entry.file_name(), entry.metadata()?.len()));
        }
        marks.sort();
        Ok(marks)
    };
    files().with_context(|| format!("events is {}", log.display()))
}

/// Time since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
