//! The stages of one bundle, from its directory to a warm variant that answers as promised.

use std::fmt::Display;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use prometheus::Registry;
use thiserror::Error;

use crate::artifact::{self, Golden, LoadedBundle, Manifest, WarmupShape};
use crate::engine::{DecodeSettings, Engine, EngineConfig, EngineError, EngineHandle, EngineMetrics, Quiet, Turns};
use crate::recommend::{Newcomers, Variant};

use super::available::available;
use super::device::{Device, Place, Weights};
use super::metrics::ReloadMetrics;
use super::newcomers::BundleNewcomers;
use super::refusal::{Refusal, ReloadStage};
use super::{golden, memory};

/// Loads bundles. All engines of a process count into the same series, so there is one loader.
#[derive(Debug, Clone)]
pub struct Loader {
    place: Place,
    engine: EngineConfig,
    /// Memory that must stay free, in bytes.
    reserve: u64,
    engines: EngineMetrics,
    pub(super) metrics: ReloadMetrics,
    turns: Turns,
    quiet: Quiet,
}

/// How a bundle is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nobody is served yet: by every core.
    Alone,
    /// Others serve meanwhile: by one thread that gives way to them.
    Beside,
}

/// Why there is no loader.
#[derive(Debug, Error)]
pub enum LoaderError {
    /// Its metrics are registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// There is no thread to load by.
    #[error("thread: {0}")]
    Thread(#[from] rayon::ThreadPoolBuildError),
}

/// A variant that passed every stage and serves nobody yet.
#[derive(Debug)]
pub struct Candidate {
    /// Ready to serve.
    pub variant: Variant,
    /// The requests that it answered as promised.
    pub golden: Vec<Golden>,
}

impl Loader {
    /// A loader for `place`. A bundle that would leave less than `reserve` bytes of memory is refused.
    ///
    /// # Errors
    /// When its metrics are registered already, or there is no thread to load by.
    pub fn new(place: Place, engine: EngineConfig, reserve: u64, registry: &Registry) -> Result<Self, LoaderError> {
        let (engines, metrics) = (EngineMetrics::new(registry)?, ReloadMetrics::new(registry)?);
        let turns = Turns::new(if engine.at_once > 0 { engine.at_once } else { place.batches_at_once() });
        Ok(Self { place, engine, reserve, engines, metrics, turns, quiet: Quiet::new()? })
    }

    /// Takes the bundle in `dir` through every stage, to serve as `name`.
    ///
    /// # Errors
    /// The first stage that it does not pass, and why.
    pub async fn load(&self, name: &str, dir: &Path, pace: Pace) -> Result<Candidate, Refusal> {
        let quiet = (pace == Pace::Beside).then_some(&self.quiet);
        let show = |dir: &Path| artifact::show(dir).map(|view| view.manifest);
        let manifest = self.stage(ReloadStage::Verify, read(dir, quiet, show)).await?;
        let fits = async { memory::check(&manifest, available(), self.reserve) };
        self.stage(ReloadStage::Memory, fits).await?;
        let bundle = self.stage(ReloadStage::Verify, read(dir, quiet, artifact::load)).await?;
        let settings: DecodeSettings = self.stage(ReloadStage::Verify, async { bundle.manifest.decode_as() }).await?;
        let LoadedBundle { manifest, index, weights, codebooks, golden, warmup, weight_facts, .. } = bundle;
        let index = Arc::new(index);
        let learnt = Arc::clone(&index);
        let newcomers = move |_: &Path| Ok::<_, String>(BundleNewcomers::new(&codebooks, learnt));
        let newcomers = self.stage(ReloadStage::Load, read(dir, quiet, newcomers)).await?;
        let newcomers = newcomers.inspect_err(|reason| {
            tracing::info!(variant = name, reason, "the bundle gives no tokens to items that come later");
        });
        let engine = Engine {
            name: name.to_owned(),
            index: Arc::clone(&index),
            settings: settings.clone(),
            config: warm_shapes(&self.engine, &warmup, manifest.network.max_history),
            metrics: self.engines.clone(),
            turns: self.turns.clone(),
            // A GPU's network is built by the thread that uses it.
            quiet: quiet.filter(|_| self.place.device == Device::Cpu).cloned(),
        };
        let weights = Weights { network: manifest.network.clone(), facts: weight_facts, bytes: weights };
        let engine = self.start(engine, weights).await?;
        self.stage(ReloadStage::Golden, golden::check(&engine, &index, &golden, self.place.tolerance())).await?;
        let variant = Variant {
            name: name.to_owned(),
            engine,
            index,
            newcomers: newcomers.ok().map(|newcomers| Arc::new(newcomers) as Arc<dyn Newcomers>),
            created: created(&manifest),
            directory: dir.to_owned(),
            max_history: manifest.network.max_history,
            bundle_name: manifest.name,
            bundle_version: manifest.version,
            settings,
        };
        Ok(Candidate { variant, golden })
    }

    /// Runs one stage, notes how long it took, and names it in the refusal.
    async fn stage<T, E: Display>(
        &self,
        stage: ReloadStage,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Refusal> {
        let began = Instant::now();
        let outcome = work.await;
        self.metrics.took(stage, began.elapsed());
        outcome.map_err(|reason| Refusal::new(stage, reason))
    }

    /// Loading and warming up, which the engine's thread does in one go.
    async fn start(&self, engine: Engine, weights: Weights) -> Result<EngineHandle, Refusal> {
        let began = Instant::now();
        let built: Arc<OnceLock<Instant>> = Arc::default();
        let note = Arc::clone(&built);
        let note_built = move || {
            note.get_or_init(Instant::now);
        };
        let outcome = self.place.start(engine, weights, note_built).await;
        let built = built.get().copied();
        self.metrics.took(ReloadStage::Load, built.map_or_else(|| began.elapsed(), |built| built - began));
        if let Some(built) = built {
            self.metrics.took(ReloadStage::WarmUp, built.elapsed());
        }
        outcome.map_err(|error| match (&error, built) {
            (EngineError::WarmUp(_) | EngineError::Panicked, Some(_)) => Refusal::new(ReloadStage::WarmUp, error),
            _ => Refusal::new(ReloadStage::Load, error),
        })
    }
}

/// Reads files on a thread that may wait for them, by the quiet one where others are served.
async fn read<T: Send + 'static, E: Display + Send + 'static>(
    dir: &Path,
    quiet: Option<&Quiet>,
    read: impl FnOnce(&Path) -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    let (dir, quiet) = (dir.to_owned(), quiet.cloned());
    let outcome = tokio::task::spawn_blocking(move || match quiet {
        Some(quiet) => quiet.run(|| read(&dir)),
        None => read(&dir),
    });
    let outcome = outcome.await;
    outcome.map_err(|error| format!("its reader ended: {error}"))?.map_err(|error| error.to_string())
}

/// The configured shapes and the bundle's, no history longer than the network reads.
fn warm_shapes(config: &EngineConfig, warmup: &[WarmupShape], longest: usize) -> EngineConfig {
    let mut shapes = config.clone();
    shapes.warmup_batches.extend(warmup.iter().map(|shape| shape.batch));
    shapes.warmup_histories.extend(warmup.iter().map(|shape| shape.history));
    for length in &mut shapes.warmup_histories {
        *length = (*length).min(longest);
    }
    for lengths in [&mut shapes.warmup_batches, &mut shapes.warmup_histories] {
        lengths.sort_unstable();
        lengths.dedup();
    }
    shapes
}

/// When the bundle was published. The manifest was checked to say so, and a time before 1970 counts as 1970.
fn created(manifest: &Manifest) -> SystemTime {
    let seconds = manifest.created_at().map_or(0, |created| created.unix_timestamp());
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
