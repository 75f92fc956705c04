//! The person's tool: asks a running server, and looks into bundles.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

mod ask;
mod bundle;
mod page;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Asks a running server, and looks into bundles.
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
}

fn main() -> ExitCode {
    let outcome = match Tool::parse().command {
        Command::Ask(ask) => ask.run(),
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
