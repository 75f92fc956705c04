//! The online sentence: request -> arm -> variant -> history -> candidates -> batch -> engine -> items -> answer.
//!
//! [`Recommender::recommend`] tells it, a line a stage; the other files are its words.

mod age;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod arm_tests;
mod cache;
mod catalogue;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod catalogue_tests;
mod cold;
mod config;
mod door;
mod events;
mod feed;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod feed_tests;
mod known;
mod ladder;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod ladder_tests;
mod live;
mod metrics;
mod name;
mod newcomers;
mod recommender;
mod shadow;
mod shelf;
mod steering;
mod stopwatch;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod variant;

pub use cache::CacheConfig;
pub use catalogue::{Catalogue, CatalogueError};
pub use config::RecommendConfig;
pub use events::Recorder;
pub use newcomers::{Newcomers, Place};
pub use recommender::{Recommender, RecommenderError};
pub use shelf::{NoWayBack, SlotView};
pub use variant::{Variant, VariantView};
