//! Why a bundle does not serve: the stage that it did not pass, and the reason.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use thiserror::Error;

/// What a bundle passes on its way, in this order; `Memory` is asked once the manifest is known, before the rest is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReloadStage {
    /// The pointer names a version.
    Find,
    /// Every file has come from the object store, with the size and hash of the manifest.
    Fetch,
    /// Schema version, hashes, every row and number.
    Verify,
    /// It fits beside what is loaded.
    Memory,
    /// The network is built with the weights; their shapes fit.
    Load,
    /// Every configured batch size and history length has run.
    WarmUp,
    /// The golden requests are answered as promised.
    Golden,
    /// It takes its place.
    Swap,
}

impl ReloadStage {
    /// All of them.
    pub const ALL: [ReloadStage; 8] = [
        ReloadStage::Find,
        ReloadStage::Fetch,
        ReloadStage::Verify,
        ReloadStage::Memory,
        ReloadStage::Load,
        ReloadStage::WarmUp,
        ReloadStage::Golden,
        ReloadStage::Swap,
    ];

    /// The name in metrics, logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            ReloadStage::Find => "find",
            ReloadStage::Fetch => "fetch",
            ReloadStage::Verify => "verify",
            ReloadStage::Memory => "memory",
            ReloadStage::Load => "load",
            ReloadStage::WarmUp => "warm_up",
            ReloadStage::Golden => "golden",
            ReloadStage::Swap => "swap",
        }
    }
}

/// A bundle was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("stage {}: {reason}", stage.name())]
pub struct Refusal {
    /// The stage that it did not pass.
    pub stage: ReloadStage,
    /// What was found and what was expected.
    pub reason: String,
}

impl Refusal {
    pub(super) fn new(stage: ReloadStage, reason: impl fmt::Display) -> Self {
        Self { stage, reason: reason.to_string() }
    }
}

/// A refusal that is remembered until a bundle of the variant is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was refused.
    pub directory: PathBuf,
    /// Why.
    pub refusal: Refusal,
    /// When.
    pub time: SystemTime,
}
