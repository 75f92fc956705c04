//! The online sentence: request -> arm -> variant -> history -> candidates -> batch -> engine -> items -> answer.
//!
//! [`Recommender::recommend`] tells it, a line a stage; the other files are its words.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod arm_tests;
mod cold;
mod config;
mod door;
mod known;
mod metrics;
mod name;
mod recommender;
mod stopwatch;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod variant;

pub use config::RecommendConfig;
pub use recommender::{Recommender, RecommenderError};
pub use variant::{Variant, VariantView};
