//! The command line: the last and strongest layer of the settings.

use std::path::PathBuf;

use clap::Parser;

/// Serves recommendations over gRPC.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Flags {
    /// The bundle to serve [default: model-artifacts/demo]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// A registry of bundles to follow, instead of one bundle: a directory, or the URL of an object store
    #[arg(long, value_name = "DIR|URL", conflicts_with = "bundle")]
    registry: Option<String>,
    /// The directory for bundles of a registry at a URL
    #[arg(long, value_name = "DIR")]
    registry_cache: Option<PathBuf>,
    /// A data set, or a Parquet file of events, that fills the users' histories at start
    #[arg(long, value_name = "DIR")]
    histories: Option<PathBuf>,
    /// Where gRPC listens; port 0 for any [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where the admin page listens; port 0 for any [default: 127.0.0.1:9100]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A TOML file of settings; the environment (REG4REC__SECTION__KEY) and flags override it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the network runs: cpu, cuda or vulkan [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
}

impl Flags {
    /// The settings that were given as flags.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        [
            ("bundle.path", text(&self.bundle)),
            ("registry.path", self.registry.clone()),
            ("registry.cache", text(&self.registry_cache)),
            ("bundle.histories", text(&self.histories)),
            ("server.listen", self.listen.clone()),
            ("server.admin", self.admin.clone()),
            ("bundle.device", self.device.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}
