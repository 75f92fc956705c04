//! A loaded bundle with decode settings, the target of traffic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog::Index;
use crate::domain::{DecodeOverrides, Failure, Violation};
use crate::engine::DecodeSettings;
use crate::engine::EngineHandle;

use super::cold::Popularity;

/// What it takes to serve one variant.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The name that requests and arms use; from a closed list, because metrics carry it.
    pub name: String,
    /// The engine that holds its network; warm.
    pub engine: EngineHandle,
    /// Its items; the same index that the engine searches.
    pub index: Arc<Index>,
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
    pub(super) popularity: Popularity,
}

impl Loaded {
    /// Names the wrong settings of a variant that cannot take requests.
    pub(super) fn new(variant: Variant) -> Result<Self, Vec<Violation>> {
        variant.settings.validate().map_err(|wrong| within(wrong, "settings"))?;
        if variant.max_history == 0 {
            return Err(vec![Violation::new("max_history", "0: expected at least 1")]);
        }
        let popularity = Popularity::of(&variant.index);
        Ok(Self { variant, popularity })
    }

    /// The settings of one request.
    pub(super) fn settings(&self, overrides: &DecodeOverrides) -> Result<DecodeSettings, Failure> {
        let settings = self.variant.settings.with(overrides);
        settings.validate().map_err(|wrong| Failure::Invalid(within(wrong, "decode")))?;
        Ok(settings)
    }

    pub(super) fn view(&self, default: &str) -> VariantView {
        let Variant { name, engine, index, bundle_name, bundle_version, settings, created, directory, .. } =
            &self.variant;
        VariantView {
            name: name.clone(),
            default: name == default,
            alive: engine.alive(),
            bundle_name: bundle_name.clone(),
            bundle_version: bundle_version.clone(),
            created: *created,
            directory: directory.clone(),
            index_version: index.version().to_owned(),
            items: index.len(),
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
