//! `reg4rec follow`: a NATS stream of events into the files of an event log, as for a sidecar trainer on a machine of its
//! own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;
use prometheus::Registry;
use serde_json::json;

use reg4rec::config::{self, Layers};
use reg4rec::events::{EventLog, EventStream, EventsConfig};

use super::events::Nobody;

#[derive(Debug, Args)]
pub struct Follow {
    /// The settings of a server: its [events.nats] says which stream
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The directory of the log, which nobody else may be writing; the stream remembers how far it has got
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// End when the log holds what the stream does
    #[arg(long)]
    once: bool,
    /// Print one JSON object and nothing else; for --once
    #[arg(long, requires = "once")]
    json: bool,
}

impl Follow {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let environment =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let layers = Layers { file: Some(&self.config), environment: environment.collect(), flags: Vec::new() };
        let settings = config::read(&layers)?.events;
        ensure!(settings.nats.is_set(), "{}: events.nats.url is empty", self.config.display());
        let settings = EventsConfig { path: self.log, ..settings };
        let (log, _) = EventLog::open(&settings, &Registry::new(), Box::new(Nobody)).context("--log")?;
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            let stream = EventStream::connect(&settings.nats, &Registry::new()).await?;
            if self.once {
                let messages = stream.copy(&log).await?;
                match self.json {
                    true => println!("{}", json!({ "messages": messages })),
                    false => println!("{messages} messages"),
                }
                return anyhow::Ok(());
            }
            let log = Arc::new(log);
            let follow = stream.follow(Arc::downgrade(&log));
            tokio::select! {
                () = follow => {}
                told = tokio::signal::ctrl_c() => told?,
            }
            Ok(())
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
