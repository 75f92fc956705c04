//! The histories that a server starts with: a Parquet file of events, or the events of a data set.

use std::path::Path;

use anyhow::Context;
use reg4rec::events::ForgottenUsers;
use reg4rec::history::{Histories, load_table};

/// Fills the store with every event of the file or the data set at `path`, but those of users whom the event log in `log` was
/// asked to forget; nothing to do when `path` is empty. A store that outlives the process takes in only what it does not
/// hold yet.
pub async fn fill(histories: &Histories, path: &Path, log: &Path) -> anyhow::Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let (histories, path, log) = (histories.clone(), path.to_owned(), log.to_owned());
    let handle = tokio::runtime::Handle::current();
    let read = tokio::task::spawn_blocking(move || {
        // Without a log nobody was.
        let forgotten =
            if log.as_os_str().is_empty() { ForgottenUsers::default() } else { ForgottenUsers::read(&log)? };
        if path.is_file() {
            return Ok(load_table(&path, histories.store().as_ref(), &handle, &|user| forgotten.contains(user))?);
        }
        of_data_set(&histories, &path, &handle, &forgotten)
    });
    let events = read.await?.context("bundle.histories")?;
    tracing::info!(events, "histories are filled");
    Ok(())
}

#[cfg(feature = "train")]
fn of_data_set(
    histories: &Histories,
    dir: &Path,
    handle: &tokio::runtime::Handle,
    forgotten: &ForgottenUsers,
) -> anyhow::Result<usize> {
    use reg4rec::domain::Event;
    use reg4rec::history::{Mark, Noted};
    use reg4rec::training::dataset::Dataset;

    /// Users that are written together.
    const TOGETHER: usize = 512;
    let Dataset { user_ids, items, sequences, .. } = Dataset::read(dir)?;
    let remembered = user_ids.into_iter().zip(sequences).filter(|(user, _)| !forgotten.contains(user));
    let histories_of = remembered.map(|(user, sequence)| {
        let event = |event: reg4rec::training::dataset::Interaction| Event {
            item_id: items[event.item as usize].item.id.clone(),
            kind: event.kind,
            time: event.time,
            value: event.value,
        };
        (user, sequence.into_iter().map(event).collect::<Vec<Event>>())
    });
    if let Some(memory) = histories.memory() {
        return Ok(memory.load(histories_of));
    }
    let (mut read, mut batch, mut users) = (0, Vec::new(), 0);
    for (user, events) in histories_of {
        read += events.len();
        users += 1;
        batch.extend(events.into_iter().enumerate().map(|(at, event)| {
            let mark = Mark::loaded(&user, at, &event);
            Noted { user: user.clone(), mark, order: at as u64, event }
        }));
        if users % TOGETHER == 0 {
            handle.block_on(histories.store().append(&std::mem::take(&mut batch), None))?;
        }
    }
    handle.block_on(histories.store().append(&batch, None))?;
    Ok(read)
}

/// This build reads no data sets.
#[cfg(not(feature = "train"))]
fn of_data_set(_: &Histories, dir: &Path, _: &tokio::runtime::Handle, _: &ForgottenUsers) -> anyhow::Result<usize> {
    anyhow::bail!(
        "{} is no file, and this build lacks the feature `train`, which reads data sets; expected a Parquet file of events",
        dir.display()
    )
}
