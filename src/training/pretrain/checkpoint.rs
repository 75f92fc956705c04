//! Where a run stands after an epoch, on disk: whole or not at all, so that a killed run goes on from the last epoch.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::AutodiffModule;
use burn::optim::Optimizer;
use burn::record::{BinFileRecorder, FullPrecisionSettings, Recorder};
use burn::tensor::backend::AutodiffBackend;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::learner::EpochReport;

/// A run's state beside its weights and its optimizer's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint<R = EpochReport> {
    /// What the run was started with, as JSON text: data fingerprint, sizes, settings. As text, because a number that is
    /// read back may differ in its last bit.
    pub run: String,
    /// Epochs done (rounds, of post-training), with their losses and scores.
    pub reports: Vec<R>,
    /// The epoch, counted from zero, with the best validation NDCG@10.
    pub best_epoch: usize,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The content.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

const CURRENT: &str = "checkpoint";
const STATE: &str = "state.json";
const BEST: &str = "best.safetensors";

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io { path: path.to_owned(), source }
}

impl<R: Serialize + DeserializeOwned> Checkpoint<R> {
    /// Writes the checkpoint beside the one before it, then takes its place.
    pub fn save<B, M, O>(
        &self,
        directory: &Path,
        network: &M,
        optimizer: &O,
        best: &[u8],
    ) -> Result<(), CheckpointError>
    where
        B: AutodiffBackend,
        M: AutodiffModule<B>,
        O: Optimizer<M, B>,
    {
        let (next, old, current) = (directory.join("next"), directory.join("old"), directory.join(CURRENT));
        for stale in [&next, &old] {
            if stale.exists() {
                fs::remove_dir_all(stale).map_err(io(stale))?;
            }
        }
        fs::create_dir_all(&next).map_err(io(&next))?;
        let recorder = BinFileRecorder::<FullPrecisionSettings>::new();
        let content = |path: &Path, error: &dyn std::fmt::Display| CheckpointError::Content {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        Recorder::<B>::record(&recorder, network.clone().into_record(), next.join("network"))
            .map_err(|error| content(&next.join("network"), &error))?;
        Recorder::<B>::record(&recorder, optimizer.to_record(), next.join("optimizer"))
            .map_err(|error| content(&next.join("optimizer"), &error))?;
        fs::write(next.join(BEST), best).map_err(io(&next))?;
        let state = serde_json::to_vec_pretty(self).map_err(|error| content(&next.join(STATE), &error))?;
        fs::write(next.join(STATE), state).map_err(io(&next))?;
        for name in ["network.bin", "optimizer.bin", BEST, STATE] {
            let path = next.join(name);
            fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io(&path))?;
        }
        if current.exists() {
            fs::rename(&current, &old).map_err(io(&current))?;
        }
        fs::rename(&next, &current).map_err(io(&next))?;
        if old.exists() {
            fs::remove_dir_all(&old).map_err(io(&old))?;
        }
        Ok(())
    }

    /// The state of the last whole checkpoint and the best weights so far; none when there is no checkpoint.
    pub fn find(directory: &Path) -> Result<Option<(Self, Vec<u8>, PathBuf)>, CheckpointError> {
        // Killed between the two renames, the last whole checkpoint still has the name `old`.
        let Some(found) =
            [CURRENT, "old"].map(|name| directory.join(name)).into_iter().find(|path| path.join(STATE).exists())
        else {
            return Ok(None);
        };
        let path = found.join(STATE);
        let state = fs::read(&path).map_err(io(&path))?;
        let state = serde_json::from_slice(&state)
            .map_err(|error| CheckpointError::Content { path, reason: error.to_string() })?;
        let path = found.join(BEST);
        let best = fs::read(&path).map_err(io(&path))?;
        Ok(Some((state, best, found)))
    }

    /// Network and optimizer of the checkpoint at `found`.
    pub fn load<B, M, O>(found: &Path, network: M, optimizer: O, device: &B::Device) -> Result<(M, O), CheckpointError>
    where
        B: AutodiffBackend,
        M: AutodiffModule<B>,
        O: Optimizer<M, B>,
    {
        let recorder = BinFileRecorder::<FullPrecisionSettings>::new();
        let content = |name: &str, error: &dyn std::fmt::Display| CheckpointError::Content {
            path: found.join(name),
            reason: error.to_string(),
        };
        let record = Recorder::<B>::load(&recorder, found.join("network"), device)
            .map_err(|error| content("network", &error))?;
        let network = network.load_record(record);
        let record = Recorder::<B>::load(&recorder, found.join("optimizer"), device)
            .map_err(|error| content("optimizer", &error))?;
        Ok((network, optimizer.load_record(record)))
    }
}
