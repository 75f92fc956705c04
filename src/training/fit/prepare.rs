//! What every run needs of a data set before it learns, whichever system learns.

use std::path::Path;

use super::{Narrator, tokens};
use crate::catalog::{CatalogItem, Index};
use crate::domain::{CodeTable, HistoryEntry};
use crate::tokenizer::{FeatureTable, Fitted};
use crate::training::classes::Classes;
use crate::training::dataset::{Dataset, Part, Split};
use crate::training::preset::FitConfig;
use crate::training::pretrain::HeldOut;

/// A data set's training part, counted and sorted.
#[derive(Debug)]
pub struct Prepared<'a> {
    dataset: &'a Dataset,
    split: Split<'a>,
    /// Training events of every item.
    pub counts: Vec<u32>,
    /// The category head's classes.
    pub classes: Classes,
    /// Training events that have one before them.
    pub targets: usize,
    /// The training part of every user, oldest first.
    pub sequences: Vec<Vec<HistoryEntry>>,
}

impl<'a> Prepared<'a> {
    /// Reads the training part.
    pub fn of(dataset: &'a Dataset, split: Split<'a>) -> Self {
        let users = || (0..split.users()).map(|user| split.train(user));
        let mut counts = vec![0; dataset.items.len()];
        users().flatten().for_each(|event| counts[event.item as usize] += 1);
        let items: Vec<_> = dataset.items.iter().map(|item| &item.item).collect();
        let trained: Vec<bool> = counts.iter().map(|&count| count > 0).collect();
        Self {
            dataset,
            split,
            counts,
            classes: Classes::new(&items, &trained),
            targets: users().map(|events| events.len().saturating_sub(1)).sum(),
            sequences: users().map(|events| events.iter().map(|event| event.entry()).collect()).collect(),
        }
    }

    /// Classes of the category head.
    pub fn categories(&self) -> usize {
        self.classes.names.len()
    }

    /// The feature rows of all items. Behaviour is that of the training parts: no target enters it.
    pub fn features(&self, config: &FitConfig, narrator: &mut Narrator) -> anyhow::Result<FeatureTable> {
        let table = tokens::feature_rows(self.dataset, self.split, &config.features)?;
        narrator.say(&format!("{} features an item", table.width));
        Ok(table)
    }

    /// The items' codes: fitted to `table`, or taken from what an earlier run left in `work`.
    pub fn tokens(
        &self,
        table: &FeatureTable,
        config: &FitConfig,
        work: &Path,
        narrator: &mut Narrator,
    ) -> anyhow::Result<Fitted> {
        tokens::tokenize(table, config, work, narrator)
    }

    /// The index of the items under `codes`; the prior is the smoothed log share of training events.
    pub fn index(&self, codes: CodeTable) -> anyhow::Result<Index> {
        let total: f64 = self.counts.iter().map(|&count| f64::from(count) + 1.0).sum();
        let items = self
            .dataset
            .items
            .iter()
            .zip(&self.classes.of_item)
            .zip(&self.counts)
            .map(|((item, &category), &count)| CatalogItem {
                item: item.item.clone(),
                category,
                prior: ((f64::from(count) + 1.0) / total).ln() as f32,
            })
            .collect();
        Ok(Index::build(items, codes, self.classes.names.clone(), "fit".to_owned())?)
    }

    /// The validation trials, evenly thinned to `users` at most.
    pub fn held_out(&self, users: usize) -> Vec<HeldOut> {
        let trials = self.split.trials(Part::Valid);
        let every = trials.len().div_ceil(users.max(1)).max(1);
        trials.into_iter().step_by(every).collect()
    }
}
