//! The person's tool: asks a running server, tells it what users did, and looks into bundles and event logs.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

mod ask;
mod bundle;
mod events;
mod page;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Asks a running server, tells it what users did, and looks into bundles and event logs.
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
    /// Takes a user's events out of the log of a server that is not running
    Forget(events::Forget),
    /// Looks into a bundle's directory
    #[command(subcommand)]
    Bundle(bundle::Bundle),
}

fn main() -> ExitCode {
    let outcome = match Tool::parse().command {
        Command::Ask(ask) => ask.run(),
        Command::Record(record) => record.run(),
        Command::Events(events) => events.run(),
        Command::Forget(forget) => forget.run(),
        Command::Bundle(bundle) => bundle.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reg4rec: {error:#}");
            ExitCode::FAILURE
        }
    }
}
