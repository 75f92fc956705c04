//! From a recipe of a network to a running, warm engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::batch::{Worker, lane};
use crate::catalog::Index;
use crate::decode::{DecodeSettings, Decoder, PathModel};
use crate::domain::{Violation, panic_text};

use super::growth::Growths;
use super::handle::{DecodeRequest, Decoded, EngineHandle};
use super::metrics::EngineMetrics;
use super::{EngineConfig, Quiet, Turns, thread, warmup};

/// Why an engine did not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Its settings are wrong; every wrong field is named.
    #[error("engine settings: {0:?}")]
    Config(Vec<Violation>),
    /// No thread was to be had.
    #[error("engine thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The threads that share its work were not to be had.
    #[error("engine threads: {0}")]
    Threads(#[from] ThreadPoolBuildError),
    /// The network could not be built.
    #[error("network: {0}")]
    Build(String),
    /// The network was built but does not work with the index.
    #[error("warm-up: {0}")]
    WarmUp(String),
    /// Building or warming up ended in a panic.
    #[error("the engine's thread panicked while it started")]
    Panicked,
}

/// What an engine is made of, but for the network.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Its lane in the metrics and the name of its thread; from a closed list, as the names of variants are.
    pub name: String,
    /// What is decoded over.
    pub index: Arc<Index>,
    /// How the warm-up searches: as most requests will.
    pub settings: DecodeSettings,
    /// Batches and warm-up.
    pub config: EngineConfig,
    /// Where it counts.
    pub metrics: EngineMetrics,
    /// The device that it shares with other engines.
    pub turns: Turns,
    /// Where the network is built and warmed up while others serve; none: in the engine's own thread.
    pub quiet: Option<Quiet>,
}

impl Engine {
    /// Builds the network and warms it up, in the quiet thread where there is one, and lets requests into a thread of its own,
    /// one of a pool that shares its work: it takes back what none of the others has begun, and never waits for one to wake.
    /// Resolves when the engine is warm, or with the reason why it will not be; then the thread has ended. When the future
    /// is dropped, the thread ends after its warm-up.
    pub async fn start<M, E>(
        self,
        build: impl FnOnce() -> Result<M, E> + Send + 'static,
    ) -> Result<EngineHandle, EngineError>
    where
        M: PathModel + Send,
        E: std::fmt::Display,
    {
        self.config.validate().map_err(EngineError::Config)?;
        let (submitter, worker) = lane(&self.name, self.config.batch, &self.turns, &self.metrics.batch);
        let (warm, warmed) = oneshot::channel();
        let (alive, watched) = watch::channel(true);
        let name = self.name.clone();
        let growths = Arc::<Growths>::default();
        let waiting = Arc::clone(&growths);
        let named = name.clone();
        let pool = ThreadPoolBuilder::new().thread_name(move |at| format!("engine-{named}-{at}")).build()?;
        let thread = std::thread::Builder::new().name(format!("engine-{name}")).spawn(move || {
            let life = || pool.install(|| self.live(build, warm, worker, &waiting));
            let ended = catch_unwind(AssertUnwindSafe(life));
            if let Err(panic) = ended {
                tracing::error!(engine = %self.name, panic = panic_text(panic.as_ref()), "engine stopped");
            }
            alive.send_replace(false);
        })?;
        let handle = EngineHandle::new(name, submitter, watched, growths, thread);
        match warmed.await {
            Ok(Ok(())) => Ok(handle),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(EngineError::Panicked),
        }
    }

    /// The whole life of the thread. The worker is dropped before it ends, so that nobody waits in vain.
    fn live<M: PathModel + Send, E: std::fmt::Display>(
        &self,
        build: impl FnOnce() -> Result<M, E> + Send,
        warm: oneshot::Sender<Result<(), EngineError>>,
        worker: Worker<DecodeRequest, Decoded>,
        growths: &Growths,
    ) {
        let started = Instant::now();
        let made = match &self.quiet {
            Some(quiet) => quiet.run(|| self.warm_model(build)),
            None => self.warm_model(build),
        };
        match made {
            Ok((mut model, mut decoder)) => {
                tracing::info!(engine = %self.name, seconds = started.elapsed().as_secs_f64(), "engine warm");
                // Whoever started it may have gone; then the lane is closed and the loop ends at once.
                drop(warm.send(Ok(())));
                thread::run(&worker, &mut model, &mut decoder, Arc::clone(&self.index), growths, &self.metrics);
            }
            Err(error) => drop(warm.send(Err(error))),
        }
    }

    fn warm_model<M: PathModel, E: std::fmt::Display>(
        &self,
        build: impl FnOnce() -> Result<M, E>,
    ) -> Result<(M, Decoder), EngineError> {
        let mut model = build().map_err(|error| EngineError::Build(error.to_string()))?;
        let mut decoder = Decoder::default();
        warmup::warm_up(&mut model, &mut decoder, &self.index, &self.settings, &self.config)
            .map_err(|error| EngineError::WarmUp(error.to_string()))?;
        Ok((model, decoder))
    }
}
