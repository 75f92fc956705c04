//! A loaded bundle with decode settings, the target of traffic.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::catalog::{Index, View};
use crate::domain::{DecodeOverrides, Failure, ItemNumber, Violation};
use crate::engine::DecodeSettings;
use crate::engine::EngineHandle;

use super::live::Live;
use super::newcomers::Newcomers;

/// What it takes to serve one variant.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The name that requests and arms use; from a closed list, because metrics carry it.
    pub name: String,
    /// The engine that holds its network; warm.
    pub engine: EngineHandle,
    /// The items that it has learnt; the index that the engine began with.
    pub index: Arc<Index>,
    /// Finds places for items that it has not learnt; none where the bundle's tokenizer cannot be read.
    pub newcomers: Option<Arc<dyn Newcomers>>,
    /// The bundle's name.
    pub bundle_name: String,
    /// The bundle's version, echoed in answers.
    pub bundle_version: String,
    /// When the bundle was published.
    pub created: SystemTime,
    /// Where the bundle was read from.
    pub directory: PathBuf,
    /// How it decodes, where a request does not say otherwise.
    pub settings: DecodeSettings,
    /// The longest history that its network reads.
    pub max_history: usize,
}

/// What may be shown of a variant.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantView {
    /// Its name.
    pub name: String,
    /// Whether requests that name no variant go here.
    pub default: bool,
    /// Whether its engine runs.
    pub alive: bool,
    /// The bundle's name.
    pub bundle_name: String,
    /// The bundle's version.
    pub bundle_version: String,
    /// When the bundle was published.
    pub created: SystemTime,
    /// Where the bundle was read from.
    pub directory: PathBuf,
    /// The index's version.
    pub index_version: String,
    /// Items in the index.
    pub items: usize,
    /// How it decodes.
    pub settings: DecodeSettings,
}

/// A variant that takes requests.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) variant: Variant,
    /// Its items as they are now.
    pub(super) live: ArcSwap<Live>,
    /// The learnt items in the order of their ids; made when it is first asked for.
    by_id: OnceLock<Vec<ItemNumber>>,
}

impl Loaded {
    /// Names the wrong settings of a variant that cannot take requests.
    pub(super) fn new(variant: Variant) -> Result<Self, Vec<Violation>> {
        variant.settings.validate().map_err(|wrong| within(wrong, "settings"))?;
        if variant.max_history == 0 {
            return Err(vec![Violation::new("max_history", "0: expected at least 1")]);
        }
        let live = ArcSwap::from_pointee(Live::of(View::of(Arc::clone(&variant.index))));
        Ok(Self { variant, live, by_id: OnceLock::new() })
    }

    /// The learnt items in the order of their ids.
    pub(super) fn by_id(&self) -> &[ItemNumber] {
        self.by_id.get_or_init(|| {
            let index = &self.variant.index;
            let mut numbers: Vec<ItemNumber> = (0..index.len() as ItemNumber).collect();
            numbers.sort_unstable_by(|&one, &other| index.item(one).item.id.cmp(&index.item(other).item.id));
            numbers
        })
    }

    /// The settings of one request.
    pub(super) fn settings(&self, overrides: &DecodeOverrides) -> Result<DecodeSettings, Failure> {
        let settings = self.variant.settings.with(overrides);
        settings.validate().map_err(|wrong| Failure::Invalid(within(wrong, "decode")))?;
        Ok(settings)
    }

    pub(super) fn view(&self, default: &str) -> VariantView {
        let Variant { name, engine, bundle_name, bundle_version, settings, created, directory, .. } = &self.variant;
        let live = self.live.load();
        VariantView {
            name: name.clone(),
            default: name == default,
            alive: engine.alive(),
            bundle_name: bundle_name.clone(),
            bundle_version: bundle_version.clone(),
            created: *created,
            directory: directory.clone(),
            index_version: live.view.version().to_owned(),
            items: live.view.index().len(),
            settings: settings.clone(),
        }
    }
}

fn within(mut wrong: Vec<Violation>, parent: &str) -> Vec<Violation> {
    for violation in &mut wrong {
        violation.field = format!("{parent}.{}", violation.field);
    }
    wrong
}
