//! `reg4rec bundle show|verify DIR`, `reg4rec bundle publish`.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use reg4rec::artifact::{self, BundleRegistry, RegistryPlace, RemoteRegistry};

#[derive(Debug, Subcommand)]
pub enum Bundle {
    /// What the bundle says of itself; only its manifest is read
    Show(Which),
    /// Reads all of it and holds every file against the manifest
    Verify(Which),
    /// Copies it into a registry, verifies the copy, and points the variant at it; servers that follow take it from there
    Publish(Publish),
}

#[derive(Debug, Args)]
pub struct Publish {
    /// The bundle's directory
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// The registry: a directory, made when it is not there, or the URL of an object store
    #[arg(long, value_name = "DIR|URL")]
    registry: String,
    /// The variant that is to serve it
    #[arg(long, value_name = "NAME")]
    variant: String,
    /// The name of its version in the registry [default: as its manifest says]
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
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
            Bundle::Publish(publish) => publish.run(),
        }
    }
}

impl Publish {
    fn run(self) -> anyhow::Result<ExitCode> {
        let (from, version) = (&self.bundle, self.version.as_deref());
        let directory = match RegistryPlace::parse(&self.registry).map_err(anyhow::Error::msg)? {
            RegistryPlace::Directory(root) => {
                BundleRegistry::new(root).publish(from, &self.variant, version)?.display().to_string()
            }
            RegistryPlace::Url(url) => {
                // Nothing is fetched into it.
                let unused = std::env::temp_dir();
                let remote = RemoteRegistry::open(&url, &unused)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(remote.publish(from, &self.variant, version))?
            }
        };
        let published = Published { directory, variant: self.variant };
        tell(&published, self.json)
    }
}

/// What was published.
#[derive(Debug, Serialize)]
struct Published {
    /// Where it stands.
    directory: String,
    /// Who is to serve it.
    variant: String,
}

impl Display for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is what variant {} is to serve", self.directory, self.variant)
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
