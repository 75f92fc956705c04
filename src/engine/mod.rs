//! The one thread that owns a network: jobs in, paths out.
//!
//! [`Engine::start`] builds the network, warms it up, and answers an [`EngineHandle`]. Engines of one device run their
//! batches in [`Turns`]. Handles send jobs through a `batch` lane; the thread decodes all that wait in one call. Dropping the
//! last handle ends the thread and joins it. A panic inside the thread ends the engine, never the process: those who
//! wait are told, and [`EngineHandle::stopped`] resolves.

mod config;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod device_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod fake;
mod growth;
mod handle;
mod metrics;
mod quiet;
mod start;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod thread;
mod timed;
mod warmup;

// Words of its own requests and answers, so that whoever asks an engine need not know how it decodes.
pub use crate::batch::Turns;
pub use crate::decode::{Bias, DecodeSettings, Limits, Outcome, Placement, Ranked};
pub use config::EngineConfig;
pub use growth::Growth;
pub use handle::{DecodeRequest, EngineAnswer, EngineHandle};
pub use metrics::EngineMetrics;
pub use quiet::Quiet;
pub use start::{Engine, EngineError};
