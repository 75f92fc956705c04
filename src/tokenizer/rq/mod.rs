//! RQ-VAE, the residual-quantised autoencoder of TIGER (Rajput et al. 2023): every level quantises what the levels before
//! it left over, so later tokens mean something only after earlier ones.

#[cfg(feature = "train")]
mod choices;
pub(super) mod codec;
pub(super) mod config;
#[cfg(feature = "train")]
pub(super) mod fit;
pub(super) mod network;
mod residual;
