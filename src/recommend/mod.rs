//! The online sentence: request -> arm -> variant -> history -> candidates -> batch -> engine -> items -> answer.
//!
//! [`Recommender::recommend`] tells it, a line a stage; the other files are its words.

mod age;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod arm_tests;
mod cache;
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
mod metrics;
mod name;
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
pub use config::RecommendConfig;
pub use events::Recorder;
pub use recommender::{Recommender, RecommenderError};
pub use shelf::{NoWayBack, SlotView};
pub use variant::{Variant, VariantView};
