//! Who may call what, and how often: keys as salted hashes, each with its roles and its quota.
//!
//! [`AccessLayer`] stands before the services of both ports. Without keys everybody may call everything: but by gRPC alone
//! ([`calls_only`]), which no web page may speak that was not allowed to.

mod clients;
mod config;
mod key;
mod layer;
mod quota;
mod role;
mod speech;

pub use config::KeyConfig;
pub use key::{KeyHash, NewKey, is_name};
pub use role::Role;

pub(super) use clients::{Caller, Clients};
pub(super) use layer::AccessLayer;
pub(super) use speech::calls_only;
