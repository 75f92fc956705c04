//! Item features and quantisers: feature vector to code.
//!
//! [`features`] turns what is known of the items into standardised rows, `fit` (feature `train`) learns a [`Tokenizer`]
//! from them by the chosen [`Quantiser`] and gives every item its code, and [`Tokenizer::tokenize`] gives later items
//! theirs.

#[cfg(feature = "train")]
mod assign;
mod behaviour;
#[cfg(feature = "train")]
mod codebook_learning;
mod diagnostics;
mod encoders;
mod error;
mod feature_config;
mod feature_model;
mod features;
#[cfg(test)]
mod features_tests;
#[cfg(feature = "train")]
mod fit;
#[cfg(all(test, feature = "train"))]
mod fit_tests;
#[cfg(test)]
mod fixtures;
#[cfg(feature = "train")]
mod learning;
mod likeness;
mod matrix;
#[cfg(feature = "train")]
mod measure;
mod mpq;
mod nearest;
mod opq;
mod quantiser;
#[cfg(all(test, feature = "train"))]
mod quantisers_tests;
mod random;
mod ranges;
mod rq;
mod saved;
mod sparse;
mod svd;
mod tensors;
mod terms;
mod tokenize;

pub use diagnostics::Diagnostics;
pub use error::TokenizerError;
pub use feature_config::{BlockConfig, FeatureConfig, Modality};
pub use feature_model::FeatureModel;
pub use features::{FeatureBlock, FeatureTable, ItemSource, features};
#[cfg(feature = "train")]
pub use fit::{FitProgress, Fitted, LossParts, fit};
pub use likeness::Likeness;
pub use mpq::config::{CodebookUpdate, MpqConfig, Orthogonality};
pub use opq::config::OpqConfig;
pub use quantiser::Quantiser;
pub use rq::config::RqConfig;
pub use tokenize::Tokenizer;
