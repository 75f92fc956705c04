//! Post-training (PARS with MSRA, design 3.5): paths are sampled, rewarded by what the user did next, and the path model
//! moves towards those that earn more than their group, without leaving the network it began from.

mod adaptive;
mod catalogue;
mod command;
mod config;
mod learner;
mod objective;
mod reward;
mod sample;
mod step;
#[cfg(test)]
mod tests;

pub use adaptive::RewardModel;
pub use catalogue::{Catalogue, Measured, Roots};
pub use command::{PostTrainArgs, run};
pub(in crate::training) use command::{told_post_training, without_corp};
pub use config::{KindWeights, PostTrainConfig};
pub use learner::{PostTrained, PostTraining, RoundReport, post_train};
pub use objective::{Objective, objective};
pub use reward::{Judge, RewardWeights, Rewards, Sampled, advantages};
pub use sample::{Encoded, Rollout, sample};

/// Why post-training gave no weights: the same things as in pre-training.
pub type PostTrainError = super::pretrain::PretrainError;
