//! The two ports: gRPC for callers (recommendations, events, health, reflection), HTTP for those who run the service.
//!
//! A call passes [`front`] (deadline, bound, counters), is checked and encoded in [`service`], and is answered by
//! whatever [`Recommends`]. [`Server`] takes its listeners and its stop signal as arguments, so that a test owns them.

mod admin;
mod config;
mod desk;
mod events;
mod front;
mod metrics;
mod run;
mod service;

pub use config::ServerConfig;
pub use desk::{Phase, Recommends};
pub use run::{Opener, Server, ServerError};
