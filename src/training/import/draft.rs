//! A data set in the making: ids become numbers, events get their order.

use std::collections::{HashMap, HashSet};

use crate::domain::{EventKind, Item};
use crate::training::dataset::{DataError, Dataset, DatasetItem, Interaction, k_core};

/// Gathers items and events in the order of the source.
#[derive(Default)]
pub(super) struct Draft {
    users: Numbering,
    items: Numbering,
    /// By item number; none while an item is only known from events.
    described: Vec<Option<DatasetItem>>,
    events: Vec<Interaction>,
    /// Whether the source has times; else an event's time is its row.
    pub(super) has_times: bool,
}

/// One event as the source tells it.
pub(super) struct Told<'a> {
    pub(super) user: &'a str,
    pub(super) item: &'a str,
    /// Unix seconds, or the row where the source has no times.
    pub(super) time: i64,
    pub(super) kind: EventKind,
    pub(super) value: Option<f32>,
}

/// What became of a draft.
pub(super) struct Finished {
    pub(super) data: Dataset,
    /// What was left out or is missing, in words.
    pub(super) notes: Vec<String>,
}

impl Draft {
    /// A draft of a source with times.
    pub(super) fn timed() -> Self {
        Self { has_times: true, ..Self::default() }
    }

    pub(super) fn event(&mut self, told: &Told<'_>) {
        let user = self.users.number(told.user);
        let item = self.items.number(told.item);
        self.described.resize_with(self.items.ids.len(), || None);
        self.events.push(Interaction { user, item, time: told.time, kind: told.kind, value: told.value });
    }

    /// Whether an event was about this item, or it has been described.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.items.numbers.contains_key(id)
    }

    /// Describes an item; false when it has been described before, which then stands.
    pub(super) fn describe(&mut self, item: DatasetItem) -> bool {
        let number = self.items.number(&item.item.id) as usize;
        self.described.resize_with(self.items.ids.len(), || None);
        if self.described[number].is_some() {
            return false;
        }
        self.described[number] = Some(item);
        true
    }

    /// Puts each user's events in order of time, ties in order of the source, takes exact repetitions once, and keeps
    /// the k-core (`core` 0: everything).
    pub(super) fn finish(mut self, core: usize) -> Result<Finished, DataError> {
        if self.events.is_empty() {
            return Err(DataError::Inconsistent("the source holds no events".to_owned()));
        }
        let mut notes = Vec::new();
        let bare = self.described.iter().filter(|item| item.is_none()).count();
        if bare > 0 {
            notes.push(format!("{bare} items have events but no description"));
        }
        let users = self.users.sorted();
        let items = self.items.sorted();
        for event in &mut self.events {
            event.user = users.new_of_old[event.user as usize];
            event.item = items.new_of_old[event.item as usize];
        }
        self.events.sort_by_key(|event| (event.user, event.time));
        if self.has_times {
            let before = self.events.len();
            self.events = without_repetitions(&self.events);
            if self.events.len() < before {
                notes.push(format!("{} exact repetitions of events taken once", before - self.events.len()));
            }
        }
        let catalogue = items
            .order
            .iter()
            .map(|&old| self.described[old].take().unwrap_or_else(|| bare_item(&self.items.ids[old])));
        let catalogue = catalogue.collect();
        let user_ids = users.order.iter().map(|&old| self.users.ids[old].clone()).collect();
        let mut sequences: Vec<Vec<Interaction>> = vec![Vec::new(); users.order.len()];
        for event in &self.events {
            let sequence = &mut sequences[event.user as usize];
            let time = if self.has_times { event.time } else { sequence.len() as i64 };
            sequence.push(Interaction { time, ..*event });
        }
        let data = Dataset::new(user_ids, catalogue, sequences)?;
        if core == 0 {
            return Ok(Finished { data, notes });
        }
        let kept = k_core(&data, core)?;
        notes.push(format!(
            "{core}-core: {} of {} users, {} of {} items, {} of {} events",
            kept.user_ids.len(),
            data.user_ids.len(),
            kept.items.len(),
            data.items.len(),
            kept.interactions(),
            data.interactions()
        ));
        Ok(Finished { data: kept, notes })
    }
}

/// Ids in the order they were first met.
#[derive(Default)]
struct Numbering {
    numbers: HashMap<String, u32>,
    ids: Vec<String>,
}

impl Numbering {
    fn number(&mut self, id: &str) -> u32 {
        if let Some(&number) = self.numbers.get(id) {
            return number;
        }
        let number = self.ids.len() as u32;
        self.numbers.insert(id.to_owned(), number);
        self.ids.push(id.to_owned());
        number
    }

    /// Numbers by value where all ids are whole numbers, so that the layout can hold them as they are; else as met.
    fn sorted(&self) -> Renumbering {
        let mut order: Vec<usize> = (0..self.ids.len()).collect();
        let values: Option<Vec<i64>> = self.ids.iter().map(|id| id.parse().ok()).collect();
        if let Some(values) = values {
            order.sort_by_key(|&old| values[old]);
        }
        let mut new_of_old = vec![0; order.len()];
        for (new, &old) in order.iter().enumerate() {
            new_of_old[old] = new as u32;
        }
        Renumbering { order, new_of_old }
    }
}

struct Renumbering {
    /// Old numbers in their new order.
    order: Vec<usize>,
    new_of_old: Vec<u32>,
}

/// `events` is sorted by user and time; of equal events at one time the first stays.
fn without_repetitions(events: &[Interaction]) -> Vec<Interaction> {
    let mut kept = Vec::with_capacity(events.len());
    for moment in events.chunk_by(|one, next| (one.user, one.time) == (next.user, next.time)) {
        let mut met = HashSet::new();
        kept.extend(moment.iter().copied().filter(|event| moment.len() == 1 || met.insert((event.item, event.kind))));
    }
    kept
}

fn bare_item(id: &str) -> DatasetItem {
    let item =
        Item { id: id.to_owned(), title: None, brand: None, categories: Vec::new(), price: None, eligible: true };
    DatasetItem { item, text: None, embedding: None }
}
