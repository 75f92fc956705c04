//! From a bundle's directory to a recommender that is warm and has answered its golden requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use burn::tensor::backend::Backend;
use prometheus::Registry;

use reg4rec::artifact::{self, Golden, LoadedBundle};
use reg4rec::catalog::Index;
use reg4rec::config::{Config, Device};
use reg4rec::decode::DecodeSettings;
use reg4rec::domain::{Filter, HistoryEntry};
use reg4rec::engine::{DecodeRequest, Engine, EngineConfig, EngineHandle, EngineMetrics};
use reg4rec::history::HistoryStore;
use reg4rec::model::{self, NetworkConfig, NetworkScorer};
use reg4rec::recommend::{Recommender, Variant};

use crate::histories;

/// The bundle that is served when none is named.
const DEMO: &str = "model-artifacts/demo";
/// How long one golden request may take; it runs alone on a warm engine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the bundle stands: as configured, or the demo in the working directory, or above the executable.
pub fn place(configured: &Path) -> anyhow::Result<PathBuf> {
    if !configured.as_os_str().is_empty() {
        return Ok(configured.to_owned());
    }
    let executable = std::env::current_exe().context("the executable's own place")?;
    let above = executable.ancestors().skip(1).map(|dir| dir.join(DEMO));
    let found = std::iter::once(PathBuf::from(DEMO)).chain(above).find(|dir| dir.is_dir());
    found.with_context(|| {
        format!(
            "no bundle given (--bundle DIR), and no {DEMO} in the working directory or above {}",
            executable.display()
        )
    })
}

/// Loads and verifies the bundle, starts its engine, and holds it against its golden answers. With it comes the part of
/// a command line that asks for something the bundle knows.
pub async fn load(config: &Config, dir: PathBuf, registry: &Registry) -> anyhow::Result<(Recommender, String)> {
    let shown = dir.display().to_string();
    let bundle = tokio::task::spawn_blocking(move || artifact::load(&dir)).await?;
    let bundle = bundle.with_context(|| format!("bundle {shown}"))?;
    let settings: DecodeSettings = bundle.manifest.decode_as()?;
    let LoadedBundle { manifest, index, weights, golden, warmup, .. } = bundle;
    let (index, network) = (Arc::new(index), manifest.network);
    let max_history = network.max_history;
    let engine = Engine {
        name: config.bundle.variant.clone(),
        index: Arc::clone(&index),
        settings: settings.clone(),
        config: warm_shapes(&config.engine, &warmup, max_history),
        metrics: EngineMetrics::new(registry)?,
    };
    let engine = start(config.bundle.device, engine, network, weights).await?;
    for (at, golden) in golden.iter().enumerate() {
        check(&engine, &index, golden).await.with_context(|| format!("golden request {at} of bundle {shown}"))?;
    }
    let variant = Variant {
        name: config.bundle.variant.clone(),
        engine,
        index: Arc::clone(&index),
        bundle_name: manifest.name,
        bundle_version: manifest.version,
        settings,
        max_history,
    };
    let histories = Arc::new(HistoryStore::new(config.history, registry)?);
    histories::fill(&histories, &config.bundle.histories).await?;
    let default = config.bundle.variant.clone();
    let recommender = Recommender::new(vec![variant], default, histories, config.recommend, registry)?;
    recommender.set_experiments(&config.experiments)?;
    Ok((recommender, example(&index, &golden)))
}

async fn start(
    device: Device,
    engine: Engine,
    network: NetworkConfig,
    weights: Vec<u8>,
) -> anyhow::Result<EngineHandle> {
    match device {
        Device::Cpu => start_on::<burn::backend::Flex>(engine, network, weights).await,
        #[cfg(feature = "cuda")]
        Device::Cuda => start_on::<burn::backend::Cuda>(engine, network, weights).await,
        #[cfg(not(feature = "cuda"))]
        Device::Cuda => bail!("bundle.device is cuda, but this build lacks the feature `cuda`; expected cpu"),
    }
}

async fn start_on<B: Backend>(
    engine: Engine,
    network: NetworkConfig,
    weights: Vec<u8>,
) -> anyhow::Result<EngineHandle> {
    let index = Arc::clone(&engine.index);
    let build = move || -> anyhow::Result<NetworkScorer<B>> {
        let device = B::Device::default();
        let loaded = model::load_weights::<B>(&network, weights, &device)?;
        Ok(NetworkScorer::new(loaded, network, index.codes(), device)?)
    };
    Ok(engine.start(build).await?)
}

/// The configured shapes and the bundle's, no history longer than the network reads.
fn warm_shapes(config: &EngineConfig, warmup: &[artifact::WarmupShape], longest: usize) -> EngineConfig {
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

/// Holds the engine against one golden request.
async fn check(engine: &EngineHandle, index: &Index, golden: &Golden) -> anyhow::Result<()> {
    let known = |event: &artifact::GoldenEvent| {
        let item = index.number(&event.item_id)?;
        Some(HistoryEntry { item, kind: event.kind, time: event.time })
    };
    let history: Vec<HistoryEntry> = golden.history.iter().filter_map(known).collect();
    ensure!(history.len() == golden.history.len(), "an event's item is not in the index");
    let seen: Vec<_> = history.iter().filter(|_| golden.exclude_seen).map(|entry| entry.item).collect();
    let request = DecodeRequest {
        history,
        k: golden.k,
        root: index.root(&Filter::default(), &seen),
        settings: serde_json::from_value(golden.settings.clone()).context("settings")?,
        explain: false,
        deadline: Instant::now() + PATIENCE,
    };
    let outcome = engine.decode(request).await?.outcome;
    let found: Vec<_> =
        outcome.items.iter().map(|ranked| (index.item(ranked.item).item.id.as_str(), ranked.score)).collect();
    match golden.mismatch(&found) {
        None => Ok(()),
        Some(difference) => bail!("{difference}"),
    }
}

/// `--history A,B,C` with items that the bundle knows.
fn example(index: &Index, golden: &[Golden]) -> String {
    let known: Vec<&str> = match golden.first() {
        Some(golden) => golden.history.iter().rev().take(3).rev().map(|event| event.item_id.as_str()).collect(),
        None => index.items().iter().take(3).map(|row| row.item.id.as_str()).collect(),
    };
    format!("--history {}", known.join(","))
}
