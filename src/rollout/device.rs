//! Where networks run; chosen once, by starting the engine on it.

use std::sync::Arc;

#[cfg(feature = "cuda")]
use burn::tensor::backend::Backend;
use serde::Deserialize;

use crate::artifact::{self, TensorFacts};
use crate::engine::{Engine, EngineError, EngineHandle};
#[cfg(feature = "cuda")]
use crate::model::NetworkScorer;
use crate::model::{CpuScorer, NetworkConfig};

/// Where the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// A network that is not on a device yet.
pub(super) struct Weights {
    pub(super) network: NetworkConfig,
    pub(super) facts: TensorFacts,
    pub(super) bytes: Vec<u8>,
}

impl Device {
    /// How many batches run on it at once where no setting says. A CPU shares its cores out by itself, and a small batch is
    /// better off beside a large one than behind it; a GPU runs one after the other anyhow.
    pub(super) fn batches_at_once(self) -> usize {
        match self {
            Device::Cpu => std::thread::available_parallelism().map_or(1, usize::from),
            Device::Cuda => 1,
        }
    }

    /// Builds the network on this device and warms it up. `built` is called between the two.
    pub(super) async fn start(
        self,
        engine: Engine,
        weights: Weights,
        built: impl FnOnce() + Send + 'static,
    ) -> Result<EngineHandle, EngineError> {
        match self {
            Device::Cpu => start_on_cpu(engine, weights, built).await,
            #[cfg(feature = "cuda")]
            Device::Cuda => start_on::<burn::backend::Cuda>(engine, weights, built).await,
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => {
                let reason = "bundle.device is cuda, but this build lacks the feature `cuda`; expected cpu";
                Err(EngineError::Build(reason.to_owned()))
            }
        }
    }
}

/// The network in the CPU's own form; burn's is dropped as soon as it is read.
async fn start_on_cpu(
    engine: Engine,
    weights: Weights,
    built: impl FnOnce() + Send + 'static,
) -> Result<EngineHandle, EngineError> {
    let index = Arc::clone(&engine.index);
    let build = move || -> Result<CpuScorer, String> {
        let Weights { network, facts, bytes } = weights;
        let device = Default::default();
        let loaded = artifact::build_network::<burn::backend::Flex>(&network, facts, bytes, &device)
            .map_err(|error| error.to_string())?;
        let scorer = CpuScorer::new(&loaded, network, index.codes()).map_err(|error| error.to_string())?;
        built();
        Ok(scorer)
    };
    engine.start(build).await
}

#[cfg(feature = "cuda")]
async fn start_on<B: Backend>(
    engine: Engine,
    weights: Weights,
    built: impl FnOnce() + Send + 'static,
) -> Result<EngineHandle, EngineError> {
    let index = Arc::clone(&engine.index);
    let build = move || -> Result<NetworkScorer<B>, String> {
        let Weights { network, facts, bytes } = weights;
        let device = B::Device::default();
        let loaded =
            artifact::build_network::<B>(&network, facts, bytes, &device).map_err(|error| error.to_string())?;
        let scorer = NetworkScorer::new(loaded, network, index.codes(), device).map_err(|error| error.to_string())?;
        built();
        Ok(scorer)
    };
    engine.start(build).await
}
