//! The bundle: everything that serving needs from training, in one directory.
//!
//! | file | what it holds |
//! |---|---|
//! | `manifest.json` | [`Manifest`]: what the bundle is, and size and hash of every other file |
//! | `weights.safetensors` | the network's tensors |
//! | `codebooks.safetensors` | the tokenizer's tensors |
//! | `items.parquet` | the items, their codes, categories and priors |
//! | `golden.json` | some requests with the answers expected ([`Golden`]) |
//! | `warmup.json` | the shapes to run before the first request ([`WarmupShape`]) |
//!
//! Beside them a large bundle's directory holds its index as it was last built (`items.index`), which no manifest lists.
//!
//! A [`BundleRegistry`] keeps bundles by variant and version and points at the one to serve; a [`Lease`] of it is the
//! right to publish there. A [`RemoteRegistry`] is the same in an object store, mirrored into a directory.
//! [`publish()`] writes one whole or not at all; [`load()`] believes nothing that it has not checked; [`verify()`] and
//! [`show()`] tell a person. No file holds anything that can execute.

mod error;
mod golden;
mod items;
mod lease;
mod load;
mod manifest;
mod publish;
mod registry;
mod remote;
mod report;
mod retention;
#[cfg(test)]
mod sample;
mod saved_index;
mod store;
mod tensors;

pub use error::BundleError;
pub use golden::{Golden, GoldenAnswer, GoldenEvent, WarmupShape};
pub use lease::{Holder, Lease, LeaseError};
pub use load::{LoadedBundle, build_network, load};
pub use manifest::{DataFacts, FileFacts, MANIFEST_FILE, Manifest, SCHEMA_VERSION, TokenizerFacts};
pub use publish::{BundleParts, check_target, publish};
pub use registry::{BundleRegistry, FileMark};
pub use remote::{ObjectMark, RemoteError, RemotePointer, RemoteRegistry};
pub use report::{BundleView, VerifyReport, show, verify};
pub use store::RegistryPlace;
pub use tensors::{Tensor, TensorFacts, pack_tensors, tensors};
