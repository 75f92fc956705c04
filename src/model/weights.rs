//! A network's weights as safetensors bytes: numbers and shapes only, nothing that runs.

use burn::tensor::backend::Backend;
use burn_store::{ModuleSnapshot, SafetensorsStore};
use thiserror::Error;

use super::config::NetworkConfig;
use super::network::Network;
use crate::domain::Violation;

/// Why weights could not be written or do not fit a network.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// The sizes are not those of any network.
    #[error("network sizes: {}", .0.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.description)).collect::<Vec<_>>().join("; "))]
    Config(Vec<Violation>),
    /// The bytes are not safetensors, or cannot be made.
    #[error("safetensors: {0}")]
    Format(String),
    /// Tensors are missing, left over, or of another shape than the sizes say.
    #[error("weights do not fit the network: {0}")]
    Fit(String),
}

/// All weights of `network` as safetensors bytes.
pub fn save_weights<B: Backend>(network: &Network<B>) -> Result<Vec<u8>, WeightsError> {
    // Without the store's own metadata, which is written in another order each time: equal weights are equal bytes.
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata();
    network.save_into(&mut store).map_err(|error| WeightsError::Format(error.to_string()))?;
    store.get_bytes().map_err(|error| WeightsError::Format(error.to_string()))
}

/// A network of the sizes `config` with the weights in `bytes`. Every tensor must be there, with its shape.
pub fn load_weights<B: Backend>(
    config: &NetworkConfig,
    bytes: Vec<u8>,
    device: &B::Device,
) -> Result<Network<B>, WeightsError> {
    config.validate().map_err(WeightsError::Config)?;
    let mut network = config.init::<B>(device);
    let mut store = SafetensorsStore::from_bytes(Some(bytes)).validate(false).allow_partial(true);
    let result = network.load_from(&mut store).map_err(|error| WeightsError::Format(error.to_string()))?;
    let mut faults: Vec<String> = result.errors.iter().map(|error| error.to_string()).collect();
    faults.extend(result.missing.iter().map(|(name, _)| format!("{name} is missing")));
    faults.extend(result.unused.iter().map(|name| format!("{name} is not part of the network")));
    if faults.is_empty() { Ok(network) } else { Err(WeightsError::Fit(faults.join("; "))) }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::model::scorer::tests::tiny;

    #[test]
    fn load_of_save_is_the_same_network() {
        let (config, device) = (tiny(), Default::default());
        let network = config.init::<Flex>(&device);
        let bytes = save_weights(&network).unwrap();
        let again = load_weights::<Flex>(&config, bytes.clone(), &device).unwrap();
        assert_eq!(bytes, save_weights(&again).unwrap());
        assert_eq!(network.tokens().into_data(), again.tokens().into_data());
        assert_eq!(network.residuals().into_data(), again.residuals().into_data());
    }

    #[test]
    fn weights_of_other_sizes_are_refused_by_name() {
        let (config, device) = (tiny(), Default::default());
        let bytes = save_weights(&config.init::<Flex>(&device)).unwrap();
        let wider = NetworkConfig { categories: config.categories + 1, ..config };
        let error = load_weights::<Flex>(&wider, bytes, &device).unwrap_err().to_string();
        assert!(error.contains("category_head"), "{error}");
    }

    #[test]
    fn truncated_weights_are_refused() {
        let (config, device) = (tiny(), Default::default());
        let mut bytes = save_weights(&config.init::<Flex>(&device)).unwrap();
        bytes.truncate(bytes.len() / 2);
        assert!(load_weights::<Flex>(&config, bytes, &device).is_err());
    }
}
