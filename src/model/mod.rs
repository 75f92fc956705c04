//! The network on burn: what reads a history, scores items, and writes a token path.
//!
//! burn's network is the definition, trains, and serves on GPUs ([`NetworkScorer`]); on CPUs the same weights serve in a form of
//! our own ([`CpuScorer`]), which a test holds equal.
//!
//! One encoder position per history event; a scorer, the dot product of its state with an item's vector, normalised
//! over the catalogue; a decoder that reads the path so far and refines the scores of the items it still allows; a category
//! head on every decoder state.

mod attention;
mod block;
mod config;
mod cpu;
#[cfg(any(feature = "gpu", test))]
mod device;
mod network;
mod placed;
mod probe;
mod scorer;
mod token_sums;
mod weights;

pub use attention::{Attention, AttentionConfig, KeysValues};
pub use block::{DecoderBlock, EncoderBlock, FeedForward};
pub use config::NetworkConfig;
pub use cpu::CpuScorer;
#[cfg(any(feature = "gpu", test))]
pub use device::{DeviceScorer, Kernels, Opened, Paths, Roots, Tables};
pub use network::{EncoderBatch, Network};
pub use probe::{Heard, Listener};
pub use scorer::{NetworkScorer, ScorerError, encoder_batch, flat_codes};
pub use token_sums::token_sums;
pub use weights::{WeightsError, load_weights, save_weights};
