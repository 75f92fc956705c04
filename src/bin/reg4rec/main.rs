//! The person's tool: asks and operates a running server, tells it what users did, looks into bundles and event logs,
//! and says who gets which arm of an experiment and what came of it.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

mod ask;
mod bundle;
mod channel;
mod events;
mod experiment;
mod experiments;
mod follow;
mod histories;
mod items;
mod key;
mod load;
mod page;
mod picture;
mod reload_tls;
mod report;
mod variants;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Asks, measures and operates a running server, tells it what users did, makes keys, looks into bundles and event logs,
/// and says who gets which arm of an experiment and what came of it.
#[derive(Debug, Parser)]
#[command(version)]
struct Tool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks a server for recommendations
    Ask(ask::Ask),
    /// Tells a server what a user did
    Record(events::Record),
    /// What an event log holds
    Events(events::Events),
    /// Removes what is stored of a user, by a running server or from its log's files
    Forget(events::Forget),
    /// Writes a NATS stream of events into the files of an event log
    Follow(follow::Follow),
    /// Fills a store of histories
    #[command(subcommand)]
    Histories(histories::Command),
    /// Makes, changes, removes and shows the items of a running server
    Items(items::Items),
    /// Looks into a bundle's directory, or publishes it to a registry
    #[command(subcommand)]
    Bundle(bundle::Bundle),
    /// Lists a server's variants, and changes them
    Variants(variants::Variants),
    /// Measures how much a server answers, and how fast
    Load(load::Load),
    /// Lets a server read its certificates again now
    ReloadTls(reload_tls::ReloadTls),
    /// Makes keys for callers
    #[command(subcommand)]
    Key(key::Key),
    /// Works out who gets which arm, or what came of it; tells and sets the experiments of a server
    #[command(subcommand)]
    Experiment(experiment::Experiment),
}

fn main() -> ExitCode {
    let outcome = match Tool::parse().command {
        Command::Ask(ask) => ask.run(),
        Command::Record(record) => record.run(),
        Command::Events(events) => events.run(),
        Command::Forget(forget) => forget.run(),
        Command::Follow(follow) => follow.run(),
        Command::Histories(histories) => histories.run(),
        Command::Items(items) => items.run(),
        Command::Bundle(bundle) => bundle.run(),
        Command::Variants(variants) => variants.run(),
        Command::Experiment(experiment) => experiment.run(),
        Command::Load(load) => load.run(),
        Command::ReloadTls(reload) => reload.run(),
        Command::Key(key) => key.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reg4rec: {error:#}");
            ExitCode::FAILURE
        }
    }
}
