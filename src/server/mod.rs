//! The two ports: gRPC for callers (recommendations, events, health, reflection); pages and gRPC for those who run the
//! service.
//!
//! A connection begins in [`tls`]. A call passes [`front`] (deadline, bound, counters) and [`access`] (key, role, quota), is checked and encoded in [`service`], and is answered by
//! whatever [`Recommends`]. What an operator asks comes to [`operate`], on the admin port only. [`Server`] takes its
//! listeners and its stop signal as arguments, so that a test owns them.

mod access;
mod admin;
mod catalogue;
mod config;
mod desk;
mod door;
mod events;
mod front;
mod health;
mod lasting;
mod log_filter;
mod memory;
mod metrics;
mod operate;
mod run;
mod service;
mod stream;
mod tls;
mod variant_messages;
mod web;

pub use access::{KeyConfig, KeyHash, NewKey, Role, is_name};
pub use config::ServerConfig;
pub use desk::{Phase, Recommends};
pub use log_filter::LogFilter;
pub use run::{Opener, Server, ServerError};
pub use tls::{TlsConfig, TlsError};
