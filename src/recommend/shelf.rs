//! What is loaded: under each name the variant that serves and the one before it, and which name is the default.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::variant::{Loaded, VariantView};

/// All loaded variants. Requests see one shelf from their start to their end; a change makes a new one.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    default: String,
    slots: BTreeMap<String, Slot>,
}

/// One name.
#[derive(Debug, Clone)]
struct Slot {
    current: Arc<Loaded>,
    /// Whole and warm, so that going back is a swap.
    previous: Option<Arc<Loaded>>,
}

/// What may be shown of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotView {
    /// What serves.
    pub current: VariantView,
    /// What served before and is still loaded.
    pub previous: Option<VariantView>,
}

/// Why a slot cannot go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoWayBack {
    /// No variant of this name is loaded.
    Unknown,
    /// Nothing served before it, or its engine has stopped.
    NoPrevious,
}

impl Shelf {
    pub(super) fn new(default: String) -> Self {
        Self { default, slots: BTreeMap::new() }
    }

    pub(super) fn default_name(&self) -> &str {
        &self.default
    }

    /// The variant of this name, or the default where the name is empty.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Loaded>> {
        let name = if name.is_empty() { &self.default } else { name };
        self.slots.get(name).map(|slot| &slot.current)
    }

    /// All that serve, by name.
    pub(super) fn serving(&self) -> impl Iterator<Item = &Arc<Loaded>> {
        self.slots.values().map(|slot| &slot.current)
    }

    /// All that are loaded: those that serve, and those that they would go back to.
    pub(super) fn loaded(&self) -> impl Iterator<Item = &Arc<Loaded>> {
        self.slots.values().flat_map(|slot| std::iter::once(&slot.current).chain(&slot.previous))
    }

    /// Lets `loaded` serve under its name. What it replaces becomes the previous one; what was previous is handed out.
    pub(super) fn put(&mut self, loaded: Arc<Loaded>) -> Option<Arc<Loaded>> {
        let name = loaded.variant.name.clone();
        let replaced = self.slots.remove(&name);
        let (previous, evicted) = replaced.map_or((None, None), |slot| (Some(slot.current), slot.previous));
        self.slots.insert(name, Slot { current: loaded, previous });
        evicted
    }

    /// Lets the previous one serve again; what served becomes the previous one.
    pub(super) fn go_back(&mut self, name: &str) -> Result<(), NoWayBack> {
        let slot = self.slots.get_mut(name).ok_or(NoWayBack::Unknown)?;
        let previous = slot.previous.as_mut().filter(|previous| previous.variant.engine.alive());
        let previous = previous.ok_or(NoWayBack::NoPrevious)?;
        std::mem::swap(previous, &mut slot.current);
        Ok(())
    }

    /// Makes `name` the default. False when no such variant is loaded.
    pub(super) fn make_default(&mut self, name: &str) -> bool {
        let known = self.slots.contains_key(name);
        if known {
            name.clone_into(&mut self.default);
        }
        known
    }

    pub(super) fn views(&self) -> Vec<SlotView> {
        let view = |loaded: &Arc<Loaded>| loaded.view(&self.default);
        let slot = |slot: &Slot| SlotView { current: view(&slot.current), previous: slot.previous.as_ref().map(view) };
        self.slots.values().map(slot).collect()
    }
}
