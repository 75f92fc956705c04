//! The server's process: settings, sockets, bundle, drain. It only wires.

mod flags;
mod histories;
mod load;
mod log;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use reg4rec::config::{self, Config, Layers};
use reg4rec::recommend::Recommender;
use reg4rec::rollout::Rollout;
use reg4rec::server::{LogFilter, Opener, Server};

use flags::Flags;
use load::{Ready, Source};

// glibc's allocator gives freed tensors back to the system and faults their pages in again at the next batch.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let outcome = settings(&flags).and_then(|config| {
        let filter = log::start(&config.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(serve(config, filter));
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

/// Binds, says so, loads what is to be served beside the running server, and serves until told to stop, or until the
/// first bundle or an engine fails.
async fn serve(config: Config, filter: LogFilter) -> anyhow::Result<()> {
    let source = Source::of(&config)?;
    let registry = Registry::new();
    let names = source.names(&config);
    let (server, opener) =
        Server::new(config.server.clone(), config.recommend.max_deadline(), registry.clone(), names)?;
    let public = bind(config.server.listen).await?;
    let admin = bind(config.server.admin).await?;
    let tls = &config.server.tls;
    let scheme = |encrypted: bool| if encrypted { "https" } else { "http" };
    let address = format!("{}://{}", scheme(tls.is_on()), public.local_addr()?);
    say(&format!("gRPC   {address}"));
    say(&format!("admin  {}://{}", scheme(tls.is_on() && tls.admin), admin.local_addr()?));
    if let Some(notice) = config.server.notice() {
        say(&format!("notice {notice}"));
    }
    say(&format!("loading {} …", source.place()));
    let server = server.with_log_filter(filter);
    let (failed, failure) = oneshot::channel();
    let mut opening = tokio::spawn(async move {
        match load::load(&config, source, &registry).await {
            Ok(Ready { recommender, rollout, example }) => {
                open(&opener, recommender.clone(), rollout.clone());
                say(&format!("ready. Ask:\n  {} ask --server {address} {example} --explain", tool()));
                tokio::join!(rollout.follow(config.registry.poll()), recommender.tend_catalogue());
            }
            // Nobody listens any more when the server is draining already.
            Err(error) => drop(failed.send(error)),
        }
    });
    let mut outcome = Ok(());
    let stop = async {
        tokio::select! {
            told = told_to_stop() => outcome = told,
            Ok(error) = failure => outcome = Err(error),
            // Without what is to be served there is nothing to wait for.
            Err(panic) = &mut opening => outcome = Err(anyhow::anyhow!("loading, or following the registry: {panic}")),
        }
    };
    let served = server.run(public, admin, stop).await;
    opening.abort();
    outcome.and(served.map_err(Into::into))
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

/// Opens the server for callers and operators.
fn open(opener: &Opener<Recommender>, recommender: Recommender, rollout: Rollout) {
    opener.operate(rollout);
    opener.open(recommender);
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
