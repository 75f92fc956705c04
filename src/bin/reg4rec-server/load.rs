//! From the settings to a recommender that is warm, and the rollout that may change it.

use std::path::{Display, Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use prometheus::Registry;

use reg4rec::artifact::{Golden, RegistryPlace};
use reg4rec::catalog::Index;
use reg4rec::config::Config;
use reg4rec::events::EventStream;
use reg4rec::experiment::ExperimentBook;
use reg4rec::history::Histories;
use reg4rec::recommend::{Catalogue, CatalogueError, Recommender, Recorder};
use reg4rec::rollout::{self, Candidate, Loader, Pace, Pointers, Rollout};

use crate::histories;

/// The bundle that is served when none is named.
const DEMO: &str = "model-artifacts/demo";

/// Where what is served comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// One bundle, as the only variant.
    Bundle(PathBuf),
    /// Whatever the registry there points at.
    Registry(RegistryPlace),
}

/// All that is needed to open.
pub struct Ready {
    pub recommender: Recommender,
    pub rollout: Rollout,
    /// The part of a command line that asks for something the bundle knows.
    pub example: String,
}

impl Source {
    /// The configured registry or bundle; else the demo in the working directory, or above the executable.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        if let Some(place) = config.registry.place().map_err(anyhow::Error::msg)? {
            return Ok(Source::Registry(place));
        }
        if !config.bundle.path.as_os_str().is_empty() {
            return Ok(Source::Bundle(config.bundle.path.clone()));
        }
        let executable = std::env::current_exe().context("the executable's own place")?;
        let above = executable.ancestors().skip(1).map(|dir| dir.join(DEMO));
        let found = std::iter::once(PathBuf::from(DEMO)).chain(above).find(|dir| dir.is_dir());
        found.map(Source::Bundle).with_context(|| {
            format!(
                "no bundle given (--bundle DIR or --registry DIR), and no {DEMO} in the working directory or above {}",
                executable.display()
            )
        })
    }

    /// Its directory, or its URL.
    pub fn place(&self) -> Display<'_> {
        match self {
            Source::Bundle(path) | Source::Registry(RegistryPlace::Directory(path)) => path.display(),
            Source::Registry(RegistryPlace::Url(url)) => Path::new(url).display(),
        }
    }

    /// The names under which variants are served, the default one first.
    pub fn names(&self, config: &Config) -> Vec<String> {
        match self {
            Source::Bundle(_) => vec![config.bundle.variant.clone()],
            Source::Registry(_) => {
                let default = &config.registry.default;
                let others = config.registry.variants.iter().filter(|name| *name != default);
                std::iter::once(default).chain(others).cloned().collect()
            }
        }
    }
}

/// Takes the default variant's bundle through every stage and fills the histories. A bundle that is refused is an error;
/// a registry is waited for until it points at one that is not.
pub async fn load(config: &Config, source: Source, registry: &Registry) -> anyhow::Result<Ready> {
    let names = source.names(config);
    let default = names.first().context("no variant is configured")?.clone();
    let loader = Loader::new(config.bundle.place(), config.engine.clone(), config.registry.memory_reserve(), registry)?;
    let (candidate, pointers) = match source {
        Source::Bundle(dir) => {
            let loaded = loader.load(&default, &dir, Pace::Alone).await;
            (loaded.with_context(|| format!("bundle {}", dir.display()))?, None)
        }
        Source::Registry(place) => {
            let pointers = Arc::new(Pointers::open(&place, &config.registry.cache, &loader).context("registry.path")?);
            (rollout::first(&loader, &pointers, &default, config.registry.poll()).await, Some(pointers))
        }
    };
    let Candidate { variant, golden } = candidate;
    let example = example(&variant.index, &golden);
    let (settings, of_histories) = (config.history.clone(), registry.clone());
    let opened = tokio::task::spawn_blocking(move || Histories::open(&settings, &of_histories)).await?;
    let histories = opened.context("history")?;
    histories::fill(&histories, &config.bundle.histories, &config.events.path).await?;
    let recorder = open_log(config, &histories, registry).await?;
    let recommender = Recommender::new(vec![variant], default, histories, config.recommend, registry)?;
    let book = ExperimentBook::open(&config.experiments).context("experiments.path")?;
    tracing::info!(version = book.version(), "experiments are read");
    recommender.run_book(book)?;
    if let Some(recorder) = recorder {
        recommender.record_with(recorder);
    }
    open_catalogue(config, &recommender, registry).await?;
    let rollout = Rollout::new(recommender.clone(), loader, pointers, names);
    Ok(Ready { recommender, rollout, example })
}

/// Reads the event log into the histories, and opens it for more.
async fn open_log(config: &Config, histories: &Histories, registry: &Registry) -> anyhow::Result<Option<Recorder>> {
    let of_stream = registry;
    let (settings, histories, registry) = (config.events.clone(), histories.clone(), registry.clone());
    let opened = tokio::task::spawn_blocking(move || Recorder::open(&settings, histories, &registry)).await?;
    let Some((recorder, opened)) = opened.context("events.path")? else { return Ok(None) };
    tracing::info!(?opened, "the event log is open");
    let nats = &config.events.nats;
    if !nats.is_set() {
        return Ok(Some(recorder));
    }
    let stream = EventStream::connect(nats, of_stream).await?;
    Ok(Some(recorder.through(stream)))
}

/// Reads what was said of items, and lets more be said.
async fn open_catalogue(config: &Config, recommender: &Recommender, registry: &Registry) -> anyhow::Result<()> {
    let (settings, recommender, registry) = (config.catalogue.clone(), recommender.clone(), registry.clone());
    let opened = tokio::task::spawn_blocking(move || -> Result<(), CatalogueError> {
        if let Some(catalogue) = Catalogue::open(&settings, &registry)? {
            recommender.open_catalogue(catalogue);
        }
        Ok(())
    });
    opened.await?.context("catalogue.path")
}

/// `--history A,B,C` with items that the bundle knows.
fn example(index: &Index, golden: &[Golden]) -> String {
    let known: Vec<&str> = match golden.first() {
        Some(golden) => golden.history.iter().rev().take(3).rev().map(|event| event.item_id.as_str()).collect(),
        None => (0..index.len().min(3) as u32).map(|item| index.id(item)).collect(),
    };
    format!("--history {}", known.join(","))
}
