//! Settings of the sidecar, section by section.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::drift::DriftConfig;
use super::gate::GateConfig;
use super::increment::IncrementConfig;
use super::tune::TuneConfig;
use crate::artifact::BundleRegistry;
use crate::domain::Violation;

/// The compiled-in defaults; they say what each key is for.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// The settings of `reg4rec-trainer sidecar`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SidecarConfig {
    /// The registry.
    pub registry: PathBuf,
    /// The variant that is refreshed.
    pub variant: String,
    /// The event log.
    pub events: PathBuf,
    /// State and unfinished work.
    pub work: PathBuf,
    /// What was before the log; empty: nothing.
    pub data: PathBuf,
    /// Items that may be new; empty: none.
    pub items: PathBuf,
    /// A server's log of changed items, in which others may be new; empty: none.
    pub catalogue: PathBuf,
    /// Versions kept; 2 to 10,000.
    pub keep_versions: usize,
    /// The page's address.
    pub listen: SocketAddr,
    /// When a cycle begins.
    pub trigger: TriggerConfig,
    /// What is learnt from and what is held out.
    pub increment: IncrementConfig,
    /// How it is learnt.
    pub tune: TuneConfig,
    /// What is published.
    pub gate: GateConfig,
    /// When a fine-tune is not enough any more.
    pub drift: DriftConfig,
}

/// When a cycle begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerConfig {
    /// How often the log is looked at, in milliseconds; 10 to 3,600,000.
    pub poll_ms: u64,
    /// New events that begin a cycle at once; at least 1.
    pub events: u64,
    /// Seconds after the last cycle when fewer are enough; at least 1.
    pub interval_s: u64,
    /// How many those are; at least 1.
    pub fewest_events: u64,
    /// Seconds to wait after a failure.
    pub retry_s: u64,
}

impl TriggerConfig {
    /// Whether a cycle is to begin: `fresh` events are new, and the last cycle ended `since` ago.
    pub fn is_due(&self, fresh: u64, since: Duration) -> bool {
        fresh >= self.events || (fresh >= self.fewest_events && since.as_secs() >= self.interval_s)
    }

    fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        if !(10..=3_600_000).contains(&self.poll_ms) {
            wrong.push(Violation::new("poll_ms", format!("{}: expected 10 to 3600000", self.poll_ms)));
        }
        for (field, value) in
            [("events", self.events), ("interval_s", self.interval_s), ("fewest_events", self.fewest_events)]
        {
            if value == 0 {
                wrong.push(Violation::new(field, "0: expected at least 1"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

impl SidecarConfig {
    /// The defaults with `file` over them, checked.
    ///
    /// # Errors
    /// Names the file that cannot be read, the key that is unknown, or every value that is out of range.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{}", file.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        use ::config::{Config, File, FileFormat};
        let layers = [DEFAULTS, text].map(|text| File::from_str(text, FileFormat::Toml));
        let [defaults, file] = layers;
        let config: Self = Config::builder().add_source(defaults).add_source(file).build()?.try_deserialize()?;
        let problems = config.problems();
        ensure!(problems.is_empty(), "settings: {}", problems.join("; "));
        Ok(config)
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, path, wanted) in [
            ("registry", &self.registry, "a directory of bundles"),
            ("events", &self.events, "the directory of a server's event log"),
            ("work", &self.work, "a directory for the sidecar's state"),
        ] {
            if path.as_os_str().is_empty() {
                problems.push(format!("{key} is empty, expected {wanted}"));
            }
        }
        if let Err(error) = BundleRegistry::check_variant(&self.variant) {
            problems.push(format!("variant is {}", error.reason));
        }
        if !(2..=10_000).contains(&self.keep_versions) {
            problems.push(format!("keep_versions is {}, expected 2 to 10000", self.keep_versions));
        }
        for (section, outcome) in [
            ("trigger", self.trigger.validate()),
            ("increment", self.increment.validate()),
            ("tune", self.tune.validate()),
            ("gate", self.gate.validate()),
            ("drift", self.drift.validate()),
        ] {
            let wrong = outcome.err().unwrap_or_default();
            problems.extend(wrong.iter().map(|wrong| format!("{section}.{} is {}", wrong.field, wrong.description)));
        }
        problems
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const REQUIRED: &str = "registry = \"r\"\nevents = \"e\"\nwork = \"w\"\n";

    fn refused(text: &str) -> String {
        format!("{:#}", SidecarConfig::parse(text).unwrap_err())
    }

    #[test]
    fn a_file_with_the_three_paths_is_enough_and_its_keys_win() {
        let config = SidecarConfig::parse(REQUIRED).unwrap();
        assert_eq!((config.variant.as_str(), config.keep_versions, config.tune.epochs), ("default", 5, 3));
        let changed = SidecarConfig::parse(&format!("{REQUIRED}[gate]\nmargin = 0.5\n")).unwrap();
        assert_eq!((changed.gate.margin, changed.gate.fewest_users), (0.5, config.gate.fewest_users));
    }

    #[test]
    fn what_is_missing_unknown_or_out_of_range_is_named() {
        let told = refused("");
        for key in ["registry is empty", "events is empty", "work is empty"] {
            assert!(told.contains(key), "{told}");
        }
        for (text, named) in [
            ("regstry = \"r\"", "regstry"),
            ("[gate]\nmargn = 1", "margn"),
            ("variant = \"../x\"", "variant is variant: \"../x\""),
            ("keep_versions = 1", "keep_versions is 1, expected 2 to 10000"),
            ("[trigger]\nevents = 0", "trigger.events is 0: expected at least 1"),
            ("[increment]\nheld_out_share = 1.0", "increment.held_out_share is 1: expected above 0, at most 0.5"),
            ("[tune]\nlearning_rate = 2.0", "tune.learning_rate is 2: expected above 0, below 1"),
            ("[gate]\nmargin = -0.1", "gate.margin is -0.1: expected 0 to 1"),
            ("[drift]\nmax_unknown_share = 7.0", "drift.max_unknown_share is 7: expected 0 to 1"),
        ] {
            let all = if text.starts_with('[') { format!("{REQUIRED}{text}") } else { format!("{text}\n{REQUIRED}") };
            let told = refused(&all);
            assert!(told.contains(named), "{text}: {told}");
        }
    }

    #[test]
    fn a_cycle_is_due_by_volume_or_by_schedule() {
        let trigger = TriggerConfig { poll_ms: 10, events: 100, interval_s: 60, fewest_events: 10, retry_s: 1 };
        for (fresh, seconds, due) in [(99, 59, false), (100, 0, true), (9, 600, false), (10, 60, true), (10, 59, false)]
        {
            assert_eq!(trigger.is_due(fresh, Duration::from_secs(seconds)), due, "{fresh} after {seconds} s");
        }
    }
}
