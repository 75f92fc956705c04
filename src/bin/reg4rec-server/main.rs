//! The server's process: settings, sockets, bundle, drain. It only wires.

mod flags;
mod histories;
mod load;

use std::io::IsTerminal;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use reg4rec::config::{self, Config, Layers, LogConfig, LogFormat};
use reg4rec::recommend::Recommender;
use reg4rec::server::{Opener, Server};

use flags::Flags;

// glibc's allocator gives freed tensors back to the system and faults their pages in again at the next batch.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let outcome = settings(&flags).and_then(|config| {
        log(&config.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(serve(config));
        // A bundle that is still being loaded must not hold up the end.
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reg4rec-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn settings(flags: &Flags) -> anyhow::Result<Config> {
    let environment =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let layers = Layers { file: flags.config.as_deref(), environment: environment.collect(), flags: flags.settings() };
    Ok(config::read(&layers)?)
}

fn log(config: &LogConfig) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("log: {error}"))
}

/// Binds, says so, loads the bundle beside the running server, and serves until told to stop or until the bundle or its
/// engine fails.
async fn serve(config: Config) -> anyhow::Result<()> {
    let bundle = load::place(&config.bundle.path)?;
    let public = bind(config.server.listen).await?;
    let admin = bind(config.server.admin).await?;
    let address = public.local_addr()?;
    say(&format!("gRPC   http://{address}"));
    say(&format!("admin  http://{}", admin.local_addr()?));
    say(&format!("loading {} …", bundle.display()));

    let registry = Registry::new();
    let (server, opener) = Server::new(
        config.server.clone(),
        config.recommend.max_deadline(),
        registry.clone(),
        vec![config.bundle.variant.clone()],
    )?;
    let (failed, failure) = oneshot::channel();
    let opening = tokio::spawn(async move {
        let error = match load::load(&config, bundle, &registry).await {
            Ok((recommender, example)) => {
                say(&format!("ready. Ask:\n  {} ask --server http://{address} {example} --explain", tool()));
                open(&opener, recommender).await
            }
            Err(error) => error,
        };
        // Nobody listens any more when the server is draining already.
        drop(failed.send(error));
    });
    let mut outcome = Ok(());
    let stop = async {
        tokio::select! {
            told = told_to_stop() => outcome = told,
            Ok(error) = failure => outcome = Err(error),
        }
    };
    server.run(public, admin, stop).await?;
    opening.abort();
    outcome
}

/// How to start the person's tool from where this was started: it may be built beside the server, not built yet, or
/// installed.
fn tool() -> String {
    let beside = std::env::current_exe().ok().map(|server| server.with_file_name("reg4rec"));
    match beside.filter(|tool| tool.is_file()) {
        Some(tool) => {
            let here = std::env::current_dir().unwrap_or_default();
            tool.strip_prefix(here).unwrap_or(&tool).display().to_string()
        }
        None if std::env::var_os("CARGO").is_some() => "cargo run --release --bin reg4rec --".to_owned(),
        None => "reg4rec".to_owned(),
    }
}

/// Opens the server; resolves with an error when an engine stops.
async fn open(opener: &Opener<Recommender>, recommender: Recommender) -> anyhow::Error {
    opener.open(recommender.clone());
    let variant = recommender.engine_stopped().await;
    anyhow::anyhow!("the engine of variant {variant:?} stopped; the log says why")
}

/// Tells the person who started it. Nobody may be reading: that is no reason to stop.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
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
