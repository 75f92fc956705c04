//! From a bundle to a variant that serves, stage by stage, and back again.
//!
//! [`Loader`] tells the stages in one function: verify -> memory -> load -> warm up -> golden answers. [`Rollout`] swaps
//! what passed them all into the recommender, keeps what it replaced for a rollback, and follows the pointers of a
//! registry, which a mirror brings near where it is an object store. A failure at any stage leaves what serves serving, and says stage and reason.

mod available;
mod config;
mod device;
mod golden;
mod loader;
mod memory;
mod metrics;
mod mirror;
mod newcomers;
mod pointers;
mod refusal;
mod swap;

pub use config::RegistryConfig;
pub use device::{Device, Place, Precision};
pub use loader::{Candidate, Loader, LoaderError, Pace};
pub use pointers::Pointers;
pub use refusal::{Refusal, Refused, ReloadStage};
pub use swap::{Rollout, VariantState, first};
