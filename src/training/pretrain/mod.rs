//! Pre-training: the scorer over the whole catalogue, the path decoder over what each path still allows.

mod batches;
mod catalogue_loss;
mod checkpoint;
mod config;
mod item_tower;
mod kernels;
mod learner;
mod path_loss;
mod token_loss;
mod validation;

pub use batches::{Batch, Batches, TrainingSet};
pub use catalogue_loss::{CatalogueLoss, catalogue_loss};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use config::{Objective, PretrainConfig};
pub use item_tower::{ItemFeatures, ItemTower, ItemVectors};
pub use kernels::Kernels;
pub(in crate::training) use kernels::softmax_rows;
pub(in crate::training) use learner::read;
pub use learner::{EpochReport, Lesson, Losses, PretrainError, Pretrained, Progress, pretrain};
pub use path_loss::{Candidates, PathContext, PathLoss, PathTargets, path_loss};
pub use validation::{HeldOut, ValidationScores, validate};
