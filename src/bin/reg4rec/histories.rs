//! `reg4rec histories load`: a Parquet file of events into the history store of a server's settings.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use prometheus::Registry;
use serde_json::json;

use reg4rec::config::{self, Layers};
use reg4rec::events::ForgottenUsers;
use reg4rec::history::{Histories, StoreKind, load_table};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes every event of a Parquet file (columns user_id, item_id, time, and optionally kind and value) into the store
    Load(Load),
}

#[derive(Debug, Args)]
pub struct Load {
    /// The file
    file: PathBuf,
    /// The settings of a server: its [history] says which store; of an embedded one no server may have the file open
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Command::Load(Load { file, config, json }) = self;
        let environment =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let layers = Layers { file: Some(&config), environment: environment.collect(), flags: Vec::new() };
        let settings = config::read(&layers)?;
        let history = settings.history;
        ensure!(history.store != StoreKind::Memory, "history.store is \"memory\", expected \"embedded\" or \"redis\"");
        let runtime = tokio::runtime::Runtime::new()?;
        let within = runtime.enter();
        let histories = Histories::open(&history, &Registry::new()).context("history")?;
        let began = std::time::Instant::now();
        let log = settings.events.path;
        let forgotten =
            if log.as_os_str().is_empty() { ForgottenUsers::default() } else { ForgottenUsers::read(&log)? };
        let left_out = |user: &str| forgotten.contains(user);
        let events = load_table(&file, histories.store().as_ref(), runtime.handle(), &left_out)?;
        drop(within);
        let seconds = began.elapsed().as_secs_f64();
        if json {
            println!("{}", json!({ "events": events, "seconds": seconds }));
        } else {
            println!("{events} events in {seconds:.2} s");
        }
        Ok(ExitCode::SUCCESS)
    }
}
