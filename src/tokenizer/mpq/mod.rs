//! MPQ, mixture-of-experts parallel quantisation: an expert and a codebook each for M independent tokens.

pub(super) mod codec;
pub(super) mod config;
#[cfg(feature = "train")]
pub(super) mod fit;
pub(super) mod network;
#[cfg(feature = "train")]
mod objective;
