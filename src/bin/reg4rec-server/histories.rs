//! The histories that a server starts with: the events of a data set.

use std::path::Path;
use std::sync::Arc;

use reg4rec::history::HistoryStore;

/// Fills `store` with every event of the data set in `dir`; nothing to do when `dir` is empty.
#[cfg(feature = "train")]
pub async fn fill(store: &Arc<HistoryStore>, dir: &Path) -> anyhow::Result<()> {
    use anyhow::Context;
    use reg4rec::domain::Event;
    use reg4rec::training::dataset::Dataset;

    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    let (store, dir) = (Arc::clone(store), dir.to_owned());
    let read = tokio::task::spawn_blocking(move || -> anyhow::Result<usize> {
        let Dataset { user_ids, items, sequences, .. } =
            Dataset::read(&dir).with_context(|| format!("histories {}", dir.display()))?;
        let histories = user_ids.into_iter().zip(sequences).map(|(user, sequence)| {
            let event = |event: reg4rec::training::dataset::Interaction| Event {
                item_id: items[event.item as usize].item.id.clone(),
                kind: event.kind,
                time: event.time,
                value: event.value,
            };
            (user, sequence.into_iter().map(event).collect())
        });
        Ok(store.load(histories))
    });
    let events = read.await??;
    tracing::info!(events, "histories are filled");
    Ok(())
}

/// This build reads no data sets.
#[cfg(not(feature = "train"))]
pub async fn fill(_store: &Arc<HistoryStore>, dir: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        dir.as_os_str().is_empty(),
        "bundle.histories is {}, but this build lacks the feature `train`, which reads data sets; expected nothing",
        dir.display()
    );
    Ok(())
}
