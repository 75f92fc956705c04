//! The person's tool: asks a running server, looks into bundles, and says who gets which arm.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

mod ask;
mod bundle;
mod experiment;
mod page;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Asks a running server, looks into bundles, and says who gets which arm.
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
    /// Looks into a bundle's directory
    #[command(subcommand)]
    Bundle(bundle::Bundle),
    /// Works out who gets which arm
    #[command(subcommand)]
    Experiment(experiment::Experiment),
}

fn main() -> ExitCode {
    let outcome = match Tool::parse().command {
        Command::Ask(ask) => ask.run(),
        Command::Bundle(bundle) => bundle.run(),
        Command::Experiment(experiment) => experiment.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reg4rec: {error:#}");
            ExitCode::FAILURE
        }
    }
}
