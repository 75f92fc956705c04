//! What the service does as seen from outside, a file a behaviour. One binary: each would link burn and tonic again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod admin;
mod bad_input;
mod batch_call;
mod browser;
mod bundle;
mod catalogue;
mod deadline;
mod events;
mod experiments;
mod fake;
#[path = "../faults/mod.rs"]
mod faults;
mod foreign;
mod h2load;
mod life;
mod load;
mod nats;
mod noise;
mod noise_kept;
#[cfg(feature = "object-store")]
mod object_store;
mod operated;
mod outcomes;
mod outside;
mod process;
mod refused;
mod reload;
mod sidecar;
mod steering;
mod stores;
mod stream;
mod tls;
mod training;
mod web;
