//! The sidecar: watches the event log of a server and refreshes the bundle that it serves.
//!
//! A cycle: read the log, learn what is new from the weights of the current bundle, compare both on the newest events, pass
//! the gate, publish to the registry; servers pull. The sidecar keeps no copy of any event: each cycle reads the log anew, so
//! that whoever is forgotten there is forgotten here. What it must remember stands in its work directory ([`WorkPlace`]),
//! and up to where a bundle has learnt stands in the bundle; so it may be killed at any point.

mod candidate;
mod catalogue;
mod compare;
mod config;
mod cycle;
mod drift;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod fixtures;
mod gate;
mod golden;
mod increment;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod increment_tests;
mod metrics;
mod page;
mod replay;
mod slates;
mod state;
mod tune;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};

use anyhow::{Context, bail};
use clap::Args;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use catalogue::Catalogue;
pub use compare::{Exam, Quality};
pub use config::{DEFAULTS, SidecarConfig, TriggerConfig};
pub use cycle::{Ended, Outcome, Sidecar};
pub use drift::{Drift, DriftConfig};
pub use gate::{Compared, GateConfig, Verdict};
pub use increment::{Bounds, Counts, Increment, IncrementConfig};
pub use metrics::SidecarMetrics;
pub use replay::{Replay, Told};
pub use slates::{Slate, slates};
pub use state::{Plan, State, WorkPlace};
pub use tune::{Start, TuneConfig};

use page::Page;

/// `sidecar`: refresh a registry's bundle from an event log.
#[derive(Debug, Clone, Args)]
pub struct SidecarArgs {
    /// The settings; `--defaults` prints them all with what they are for
    #[arg(long, value_name = "FILE", required_unless_present = "defaults")]
    pub config: Option<PathBuf>,
    /// One cycle now, whatever is due, and no page; or the end of the one that was killed
    #[arg(long)]
    pub once: bool,
    /// With --once: print one JSON object and nothing else
    #[arg(long, requires = "once")]
    pub json: bool,
    /// Print the settings' file of defaults
    #[arg(long, conflicts_with_all = ["config", "once"])]
    pub defaults: bool,
}

/// Runs the sidecar until it is told to stop, or one cycle; answers what is to be printed.
///
/// # Errors
/// Settings that are wrong, a lease that another trainer has, a port that is taken; with `--once` also a cycle's.
pub fn run(args: &SidecarArgs) -> anyhow::Result<String> {
    let Some(file) = &args.config else { return Ok(DEFAULTS.to_owned()) };
    let config = SidecarConfig::read(file)?;
    let registry = Registry::new();
    let sidecar = Sidecar::open(config, SidecarMetrics::new(&registry)?)?;
    if args.once {
        let outcome = sidecar.cycle()?;
        return Ok(if args.json { serde_json::to_string(&outcome)? } else { outcome.to_string() });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(sidecar, registry))?;
    Ok("stopped".to_owned())
}

/// Watches the log on a thread of its own, and serves the page, until told to stop. A cycle is then left as it is: whoever
/// starts next goes on with it.
async fn serve(sidecar: Sidecar, registry: Registry) -> anyhow::Result<()> {
    let address = sidecar.config.listen;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    say(&format!("admin  http://{}", listener.local_addr()?));
    let ready = Arc::new(AtomicBool::new(true));
    let routes = Page { registry, ready: Arc::clone(&ready) }.routes();
    let (alive, ended) = oneshot::channel::<()>();
    let (_running, stop) = mpsc::channel();
    std::thread::Builder::new().name("sidecar".into()).spawn(move || {
        // Dropped when the thread ends, which only a panic does while this runs.
        let _alive = alive;
        watch::watch(&sidecar, &ready, &stop);
    })?;
    tokio::select! {
        served = axum::serve(listener, routes) => served.context("the page")?,
        _ = ended => bail!("the sidecar's thread ended; its log says why"),
        told = told_to_stop() => told?,
    }
    Ok(())
}

/// Tells the person who started it. Nobody may be reading: that is no reason to stop.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// SIGTERM or Ctrl-C.
async fn told_to_stop() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => {}
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}
