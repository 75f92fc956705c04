//! Where networks run, and with what numbers; chosen once, by starting the engine on it.

#[cfg(feature = "gpu")]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use burn::tensor::DType;
use serde::Deserialize;

use crate::artifact::{self, TensorFacts};
use crate::engine::{Engine, EngineError, EngineHandle};
use crate::model::{CpuScorer, NetworkConfig};
#[cfg(feature = "gpu")]
use crate::model::{DeviceScorer, Kernels, NetworkScorer};

/// Where the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
    /// Any GPU with a Vulkan driver.
    Vulkan,
}

/// What encoder and decoder compute with. Items are scored, and tokens refined, in fp32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// [`Precision::Bf16`] on `cuda`, [`Precision::Fp32`] elsewhere.
    Auto,
    /// 32 bits.
    Fp32,
    /// 16 bits, of which 8 are the exponent's.
    Bf16,
}

/// A device and what it computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub device: Device,
    /// With what.
    pub precision: Precision,
}

/// A network that is not on a device yet.
pub(super) struct Weights {
    pub(super) network: NetworkConfig,
    pub(super) facts: TensorFacts,
    pub(super) bytes: Vec<u8>,
}

impl Device {
    /// As settings say it.
    #[cfg(feature = "gpu")]
    fn name(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
            Device::Vulkan => "vulkan",
        }
    }
}

impl Place {
    /// Refuses a precision that the device does not have.
    ///
    /// # Errors
    /// A sentence that names both.
    pub fn validate(self) -> Result<(), String> {
        if self.precision == Precision::Bf16 && self.device == Device::Cpu {
            return Err("bundle.precision is bf16 where bundle.device is cpu, expected fp32 or auto".to_owned());
        }
        Ok(())
    }

    fn is_bf16(self) -> bool {
        self.precision == Precision::Bf16 || (self.precision == Precision::Auto && self.device == Device::Cuda)
    }

    /// How far scores may be, in nats, from those that a bundle promises, which were computed in fp32. Measured on two
    /// catalogues: half of them are within .004 of each other in bf16, 99 of 100 within .016, the furthest .11.
    pub(super) fn tolerance(self) -> f32 {
        if self.is_bf16() { 0.15 } else { 0.0 }
    }

    /// How many batches run on it at once where no setting says. A CPU shares its cores out by itself, and a small batch is
    /// better off beside a large one than behind it; a GPU runs one after the other anyhow.
    pub(super) fn batches_at_once(self) -> usize {
        match self.device {
            Device::Cpu => std::thread::available_parallelism().map_or(1, usize::from),
            Device::Cuda | Device::Vulkan => 1,
        }
    }

    /// Builds the network on this device and warms it up. `built` is called between the two.
    pub(super) async fn start(
        self,
        engine: Engine,
        weights: Weights,
        built: impl FnOnce() + Send + 'static,
    ) -> Result<EngineHandle, EngineError> {
        match self.device {
            Device::Cpu => start_on_cpu(engine, weights, built).await,
            #[cfg(feature = "cuda")]
            Device::Cuda => start_on::<burn::backend::Cuda>(self, engine, weights, built).await,
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => Err(lacking("cuda")),
            #[cfg(feature = "vulkan")]
            Device::Vulkan => start_on::<burn::backend::Vulkan>(self, engine, weights, built).await,
            #[cfg(not(feature = "vulkan"))]
            Device::Vulkan => Err(lacking("vulkan")),
        }
    }
}

#[cfg(not(all(feature = "cuda", feature = "vulkan")))]
fn lacking(device: &str) -> EngineError {
    let reason = format!("bundle.device is {device}, but this build lacks the feature `{device}`; expected cpu");
    EngineError::Build(reason)
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

/// The network and the catalogue on a GPU.
#[cfg(feature = "gpu")]
async fn start_on<B: Kernels>(
    place: Place,
    engine: Engine,
    weights: Weights,
    built: impl FnOnce() + Send + 'static,
) -> Result<EngineHandle, EngineError> {
    let index = Arc::clone(&engine.index);
    let build = move || -> Result<DeviceScorer<B>, String> {
        let Weights { network, facts, bytes } = weights;
        let device = B::Device::default();
        // What a driver lacks, burn's device says by a panic.
        let answers = catch_unwind(AssertUnwindSafe(|| B::sync(&device)));
        if !matches!(answers, Ok(Ok(()))) {
            let name = place.device.name();
            return Err(format!("bundle.device is {name}, and no such device answers; expected one with its driver"));
        }
        if place.is_bf16() && !B::supports_dtype(&device, DType::BF16) {
            return Err("bundle.precision is bf16, which this device cannot compute with; expected fp32".to_owned());
        }
        let loaded =
            artifact::build_network::<B>(&network, facts, bytes, &device).map_err(|error| error.to_string())?;
        let scorer = NetworkScorer::new(loaded, network, index.codes(), device).map_err(|error| error.to_string())?;
        let scorer = if place.is_bf16() { scorer.with_precision(DType::BF16) } else { scorer };
        built();
        Ok(DeviceScorer::new(scorer, index.codes()))
    };
    engine.start(build).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_for_gpus() {
        let place = |device, precision| Place { device, precision };
        assert!(place(Device::Cpu, Precision::Bf16).validate().unwrap_err().contains("expected fp32 or auto"));
        for device in [Device::Cpu, Device::Cuda, Device::Vulkan] {
            for precision in [Precision::Auto, Precision::Fp32] {
                assert_eq!(place(device, precision).validate(), Ok(()));
            }
        }
        let halved = |device, precision| place(device, precision).is_bf16();
        assert!(halved(Device::Cuda, Precision::Auto) && halved(Device::Vulkan, Precision::Bf16));
        assert!(!halved(Device::Vulkan, Precision::Auto) && !halved(Device::Cuda, Precision::Fp32));
        assert_eq!(place(Device::Cpu, Precision::Auto).tolerance(), 0.0);
    }
}
