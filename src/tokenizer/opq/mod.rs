//! OPQ, optimised product quantisation (Ge et al. 2013): rows are reduced and rotated so that M sub-spaces, each with its
//! own codebook, lose as little as they can.

pub(super) mod codec;
pub(super) mod config;
#[cfg(feature = "train")]
pub(super) mod fit;
