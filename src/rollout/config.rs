//! Settings of the registry that a server follows.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::artifact::{BundleRegistry, RegistryPlace};
use crate::domain::Violation;

/// Section `[registry]` of the settings; `src/config/defaults.toml` says what each is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// The registry's directory or URL; empty: none, one bundle is served.
    pub path: String,
    /// Where the bundles of a registry at a URL are kept; a directory.
    pub cache: PathBuf,
    /// How often the pointers are read, in milliseconds; 50 to 3,600,000.
    pub poll_ms: u64,
    /// The variants that are served, each the name of a directory in the registry; 1 to 64.
    pub variants: Vec<String>,
    /// The one of them for requests that name none.
    pub default: String,
    /// Memory that must stay free when a bundle is loaded beside the one that serves, in MiB.
    pub memory_reserve_mb: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            path: String::new(),
            cache: PathBuf::new(),
            poll_ms: 1000,
            variants: vec!["default".to_owned()],
            default: "default".to_owned(),
            memory_reserve_mb: 64,
        }
    }
}

impl RegistryConfig {
    /// Names every field that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        match self.place() {
            Err(reason) => wrong.push(Violation::new("path", reason)),
            Ok(Some(RegistryPlace::Url(url))) if self.cache.as_os_str().is_empty() => {
                wrong.push(Violation::new("cache", format!("empty: expected a directory for what comes from {url}")));
            }
            Ok(_) => {}
        }
        if !(50..=3_600_000).contains(&self.poll_ms) {
            wrong.push(Violation::new("poll_ms", format!("{}: expected 50 to 3600000", self.poll_ms)));
        }
        if !(1..=64).contains(&self.variants.len()) {
            wrong.push(Violation::new("variants", format!("{} names: expected 1 to 64", self.variants.len())));
        }
        for (at, name) in self.variants.iter().enumerate() {
            let field = format!("variants[{at}]");
            if let Err(error) = BundleRegistry::check_variant(name) {
                wrong.push(Violation::new(field, error.reason));
            } else if self.variants[..at].contains(name) {
                wrong.push(Violation::new(field, format!("{name:?}: expected each name once")));
            }
        }
        if !self.variants.contains(&self.default) {
            let expected = format!("{:?}: expected one of {:?}", self.default, self.variants);
            wrong.push(Violation::new("default", expected));
        }
        if self.memory_reserve_mb > 1 << 30 {
            let expected = format!("{}: expected 0 to {}", self.memory_reserve_mb, 1 << 30);
            wrong.push(Violation::new("memory_reserve_mb", expected));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Whether there is a registry at all.
    pub fn is_set(&self) -> bool {
        !self.path.is_empty()
    }

    /// Where it is; none where there is none.
    ///
    /// # Errors
    /// A URL that names no registry.
    pub fn place(&self) -> Result<Option<RegistryPlace>, String> {
        if self.is_set() { RegistryPlace::parse(&self.path).map(Some) } else { Ok(None) }
    }

    /// How often the pointers are read.
    pub fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    /// The reserve, in bytes.
    pub fn memory_reserve(&self) -> u64 {
        self.memory_reserve_mb << 20
    }
}
