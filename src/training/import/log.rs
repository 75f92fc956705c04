//! An event log, after a data set that it goes on from: what the next fit learns from.

use super::draft::{Draft, Finished, Told};
use super::{EventsArgs, ImportError};
use crate::domain::EventKind;
use crate::events::{self, ForgottenUsers};
use crate::training::dataset::Dataset;

/// Reads the data set, then the log. Hidden items are left out: nobody is to be led to them. So are the data set's users whom
/// the log was asked to forget.
pub(super) fn import(args: &EventsArgs) -> Result<Finished, ImportError> {
    let mut draft = Draft::timed();
    if let Some(directory) = &args.after {
        let before = Dataset::read(directory)?;
        let forgotten = ForgottenUsers::read(&args.log)?;
        let users = before.user_ids.iter().zip(&before.sequences);
        for (user, sequence) in users.filter(|(user, _)| !forgotten.contains(user)) {
            for event in sequence {
                let item = before.items[event.item as usize].item.id.as_str();
                draft.event(&Told { user, item, time: event.time, kind: event.kind, value: event.value });
            }
        }
        for item in before.items {
            // Unique within a data set, so that every one is described here.
            draft.describe(item);
        }
    }
    let mut hidden = 0;
    events::read(&args.log, &mut |logged| {
        let event = &logged.event.event;
        if event.kind == EventKind::Hide {
            hidden += 1;
            return;
        }
        let (user, item) = (logged.event.user_id.as_str(), event.item_id.as_str());
        draft.event(&Told { user, item, time: event.time, kind: event.kind, value: event.value });
    })?;
    let mut finished = draft.finish(args.k_core)?;
    if hidden > 0 {
        finished.notes.push(format!("{hidden} events that hide an item left out"));
    }
    Ok(finished)
}
