//! What is asked of the service and what it answers, in words of our own; `wire` maps them to bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Assignment, Event, EventKind, ForcedArm, Path};

/// One request for recommendations, every field checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecommendRequest {
    /// The caller's id for this request, echoed; made up when empty.
    pub request_id: String,
    /// Whose history to use when none is sent. Empty: none.
    pub user_id: String,
    /// Oldest first. When not empty it is used instead of the stored history.
    pub history: Vec<Event>,
    /// How many items; 1 to 1000.
    pub k: usize,
    /// What may be answered.
    pub filter: Filter,
    /// Whether to tell the path of every item.
    pub explain: bool,
    /// The variant to answer with. Empty: the default one.
    pub variant: String,
    /// Settings of this request's decode, where they differ from the variant's.
    pub decode: DecodeOverrides,
    /// What to show more or less of.
    pub steering: Steering,
    /// Free attributes, for eligibility of experiments.
    pub attributes: BTreeMap<String, String>,
    /// How long it may take from when it was read, if that is less than its call may.
    pub timeout: Option<Duration>,
    /// The arm of an experiment that the caller asks for. None: arms are drawn.
    pub forced: Option<ForcedArm>,
}

/// Which items may be answered. The default lets every eligible item pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Item ids to leave out. Unknown ids are allowed: they exclude nothing.
    pub exclude_items: Vec<String>,
    /// When not empty: only items that have one of these among their categories, at any level.
    pub include_categories: Vec<String>,
    /// No items that have one of these among their categories.
    pub exclude_categories: Vec<String>,
    /// When not empty: only items of these brands.
    pub include_brands: Vec<String>,
    /// No items of these brands.
    pub exclude_brands: Vec<String>,
    /// Lowest price, inclusive; items without a price do not pass.
    pub min_price: Option<f32>,
    /// Highest price, inclusive; items without a price do not pass.
    pub max_price: Option<f32>,
    /// Leave out the items of the history.
    pub exclude_seen: bool,
}

/// What to show more or less of: nats added to the scores of items, and how many of a category at most. The default adds and
/// limits nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Steering {
    /// Categories at any level; every item that has one gets this on top. Unknown names move nothing.
    pub categories: Vec<(String, f32)>,
    /// Items; an item like one of them gets this on top, in the proportion of the tokens that they share. Unknown ids
    /// move nothing.
    pub likes: Vec<(String, f32)>,
    /// Most items with the same first category; at least 1. None: any number.
    pub max_per_category: Option<usize>,
    /// Categories at any level, and how many items of each an answer may hold.
    pub limits: Vec<(String, usize)>,
}

/// What ranks the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The beam search over token paths.
    #[default]
    Beam,
    /// The scorer alone: s(i) of every candidate, no decoder.
    Exact,
    /// The scorer's best items, ranked anew by the probability of each along its own path.
    Draft,
}

/// Decode settings that a request may set for itself; none keeps the variant's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DecodeOverrides {
    /// Live paths kept a step; 1 to 1000.
    pub beam: Option<usize>,
    /// CORP's threshold in nats; 0 to ln 2.
    pub theta: Option<f32>,
    /// Whether CORP prunes.
    pub corp: Option<bool>,
    /// Step on to the last codebook.
    pub full_path: Option<bool>,
    /// What ranks the items.
    pub engine: Option<Engine>,
}

impl DecodeOverrides {
    /// These, and where they say nothing what `other` says.
    pub fn or(self, other: Self) -> Self {
        Self {
            beam: self.beam.or(other.beam),
            theta: self.theta.or(other.theta),
            corp: self.corp.or(other.corp),
            full_path: self.full_path.or(other.full_path),
            engine: self.engine.or(other.engine),
        }
    }
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct RecommendAnswer {
    /// As asked, or made up.
    pub request_id: String,
    /// Best first, each item once.
    pub items: Vec<Recommendation>,
    /// The variant that answered.
    pub variant: String,
    /// Name and version of its bundle.
    pub bundle_version: String,
    /// Version of its index.
    pub index_version: String,
    /// What experiments said of the request: those that gave it an arm, or else one that did not.
    pub assignments: Vec<Assignment>,
    /// No usable history: answered from the prior.
    pub cold_start: bool,
    /// The stored history could not be read: answered as if there were none.
    pub history_missed: bool,
    /// Answered with less than the configured effort, or without the stored history.
    pub degraded: bool,
    /// Fewer than k items were eligible.
    pub short: bool,
    /// How long each stage took, in the order of the stages.
    pub timings: Vec<(Stage, Duration)>,
}

/// A stage of the online sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Reading the history and resolving it to the bundle's items.
    History,
    /// Waiting for a batch.
    Queue,
    /// The encoder.
    Encode,
    /// The decoder's passes and the search between them.
    Search,
    /// Turning item numbers into answers.
    Resolve,
    /// All of it.
    Total,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 6] =
        [Stage::History, Stage::Queue, Stage::Encode, Stage::Search, Stage::Resolve, Stage::Total];

    /// The name in metrics and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Stage::History => "history",
            Stage::Queue => "queue",
            Stage::Encode => "encode",
            Stage::Search => "search",
            Stage::Resolve => "resolve",
            Stage::Total => "total",
        }
    }
}

/// One recommended item.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// The owner's id.
    pub item_id: String,
    /// Natural logarithm of p(item | history) over the eligible catalogue, as the search found it.
    pub score: f32,
    /// The item's title.
    pub title: Option<String>,
    /// Coarse to fine.
    pub categories: Vec<String>,
    /// How the item was reached; only when asked to explain.
    pub path: Option<NamedPath>,
}

/// A path with its categories by name, for people and for the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedPath {
    /// The path.
    pub path: Path,
    /// For each step, the names of its beliefs' categories, in the same order.
    pub category_names: Vec<Vec<String>>,
    /// For each event that was looked at most, its item's id and its kind, in the same order.
    pub event_names: Vec<(String, EventKind)>,
    /// All of it in a line, for people.
    pub reason: String,
}
