//! `reg4rec bundle show|verify DIR`.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use reg4rec::artifact;

#[derive(Debug, Subcommand)]
pub enum Bundle {
    /// What the bundle says of itself; only its manifest is read
    Show(Which),
    /// Reads all of it and holds every file against the manifest
    Verify(Which),
}

#[derive(Debug, Args)]
pub struct Which {
    /// The bundle's directory
    dir: PathBuf,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Bundle {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Bundle::Show(which) => tell(&artifact::show(&which.dir)?, which.json),
            Bundle::Verify(which) => tell(&artifact::verify(&which.dir)?, which.json),
        }
    }
}

fn tell<T: Serialize + Display>(report: &T, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}
