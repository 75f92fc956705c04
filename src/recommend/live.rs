//! The items of one variant as requests find them: a view and who is popular in it, swapped together.

use std::sync::Arc;

use crate::catalog::{AddedItem, CatalogItem, Entry, View, Word};
use crate::domain::{DescribedItem, Item, ItemNumber};
use crate::engine::{Growth, Placement};

use super::cold::Popularity;
use super::newcomers::Place;
use super::variant::Loaded;

/// What a request keeps from its start to its end.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) view: View,
    pub(super) popularity: Popularity,
}

/// What was said of one item, for a variant to take in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) id: &'a str,
    pub(super) entry: &'a Entry,
    /// Its text or embedding is not what the variant's tokens were made of.
    pub(super) retold: bool,
}

/// A change of a view while it is put together.
#[derive(Debug, Default)]
struct Draft<'a> {
    changed: Vec<(ItemNumber, Item)>,
    retold: Vec<(ItemNumber, &'a DescribedItem)>,
    new: Vec<&'a DescribedItem>,
}

impl Live {
    pub(super) fn of(view: View) -> Self {
        let popularity = Popularity::of(&view, None);
        Self { view, popularity }
    }

    /// What follows it: the order by popularity is that of the index, and stays while the index does.
    fn next(&self, view: View) -> Self {
        let same = Arc::ptr_eq(view.index(), self.view.index());
        let popularity = Popularity::of(&view, same.then_some(&self.popularity));
        Self { view, popularity }
    }
}

impl Loaded {
    /// Takes in what was said of some items, each once. Every request that comes after this sees it. Not for an async task;
    /// one at a time. An overlay of `most` items is folded at once.
    ///
    /// # Errors
    /// Why new items have no place here; what was said of the others is taken in all the same.
    pub(super) fn take_in<'a>(
        &self,
        said: impl Iterator<Item = Said<'a>>,
        version: &str,
        most: usize,
    ) -> Result<(), String> {
        let live = self.live.load_full();
        let draft = self.draft(&live.view, said);
        let placed = self.places(&draft);
        let (places, outcome) = match placed {
            Ok(places) => (places, Ok(())),
            Err(reason) => (Vec::new(), Err(reason)),
        };
        let view = live.view.with(draft.changed, version.to_owned());
        if places.is_empty() && view.overlaid() < most {
            self.live.store(Arc::new(live.next(view)));
            return outcome;
        }
        let (mut added, mut recoded, mut placements) = (Vec::new(), Vec::new(), Vec::new());
        let (items, learnt) = (view.index().len() as ItemNumber, self.variant.index.len() as ItemNumber);
        let numbers = draft.retold.iter().map(|(number, item)| (*number, *item));
        let numbers = numbers.chain((items..).zip(draft.new.iter().copied()));
        for ((item, described), Place { code, like, category }) in numbers.zip(places) {
            if item >= items {
                let row = CatalogItem { item: described.item.clone(), category, prior: live.popularity.least() };
                added.push(AddedItem { row, code });
                placements.push(Placement { item, like });
            } else if view.index().codes().code(item).to_vec() != code {
                recoded.push((item, code));
                // What users do with an item that was learnt has not changed: its vector stays, its tokens do not.
                let like = if item < learnt { vec![(item, 1.0)] } else { like };
                placements.push(Placement { item, like });
            }
        }
        let view = view.folded(added, &recoded, version.to_owned()).map_err(|error| error.to_string())?;
        self.store(&live, view, placements);
        outcome
    }

    /// Folds the overlay into the index. Not for an async task; not while [`Loaded::take_in`] runs.
    ///
    /// # Errors
    /// Never, unless an item of the view is none that an index takes.
    pub(super) fn fold(&self) -> Result<(), String> {
        let live = self.live.load_full();
        if live.view.overlaid() == 0 {
            return Ok(());
        }
        let version = live.view.version().to_owned();
        let view = live.view.folded(Vec::new(), &[], version).map_err(|error| error.to_string())?;
        self.store(&live, view, Vec::new());
        Ok(())
    }

    fn store(&self, before: &Live, view: View, placed: Vec<Placement>) {
        // First the engine: who sees the view may ask it for the new numbers.
        self.variant.engine.grow(Growth { index: Arc::clone(view.index()), placed });
        self.live.store(Arc::new(before.next(view)));
    }

    fn draft<'a>(&self, view: &View, said: impl Iterator<Item = Said<'a>>) -> Draft<'a> {
        let learnt = &self.variant.index;
        let mut draft = Draft::default();
        for Said { id, entry, retold } in said {
            let Some(number) = view.index().number(id) else {
                if let Word::Item(described) = &entry.word {
                    draft.new.push(described);
                }
                continue;
            };
            let known = (number as usize) < learnt.len();
            let now = view.item(number);
            let bundle = if known { learnt.item(number).item } else { now.clone() };
            draft.changed.extend(entry.item(Some(&bundle)).filter(|item| *item != now).map(|item| (number, item)));
            if let (Word::Item(described), true) = (&entry.word, retold) {
                draft.retold.push((number, described));
            }
        }
        draft
    }

    /// The places of the draft's retold items, then of its new ones.
    fn places(&self, draft: &Draft<'_>) -> Result<Vec<Place>, String> {
        let items: Vec<&DescribedItem> =
            draft.retold.iter().map(|(_, item)| *item).chain(draft.new.iter().copied()).collect();
        match &self.variant.newcomers {
            _ if items.is_empty() => Ok(Vec::new()),
            Some(newcomers) => newcomers.place(&items),
            None => Err(format!("the bundle's tokenizer cannot be read; {} items are left out", items.len())),
        }
    }
}
