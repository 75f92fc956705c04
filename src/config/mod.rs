//! One struct of every part's settings. What is wrong is refused, by key, value and what was expected; nothing is
//! corrected or only warned about.

mod layers;

use std::path::PathBuf;

use serde::Deserialize;
use thiserror::Error;

use crate::catalog::CatalogueConfig;
use crate::domain::Violation;
use crate::engine::EngineConfig;
use crate::events::EventsConfig;
use crate::experiment::ExperimentsConfig;
use crate::history::HistoryConfig;
use crate::recommend::RecommendConfig;
use crate::rollout::{Device, Place, Precision, RegistryConfig};
use crate::server::ServerConfig;

pub use layers::{DEFAULTS, Layers, read};

/// The settings of `reg4rec-server`; `defaults.toml` beside this file says what each is for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The two ports.
    pub server: ServerConfig,
    /// What is served.
    pub bundle: BundleConfig,
    /// Or what a registry says is served.
    pub registry: RegistryConfig,
    /// What holds for every request.
    pub recommend: RecommendConfig,
    /// The stored histories.
    pub history: HistoryConfig,
    /// The event log.
    pub events: EventsConfig,
    /// Changes of the items while they serve.
    pub catalogue: CatalogueConfig,
    /// Batches and warm-up.
    pub engine: EngineConfig,
    /// Who gets which arm.
    pub experiments: ExperimentsConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// Section `[bundle]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleConfig {
    /// The bundle's directory; empty: the demo.
    pub path: PathBuf,
    /// A data set's directory whose events fill the histories at start; empty: none.
    pub histories: PathBuf,
    /// The name of the variant that serves it.
    pub variant: String,
    /// Where the network runs.
    pub device: Device,
    /// What it computes with there.
    pub precision: Precision,
}

impl BundleConfig {
    /// Where the network runs, and with what.
    pub fn place(&self) -> Place {
        Place { device: self.device, precision: self.precision }
    }
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Directives of tracing's filter.
    pub filter: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the settings are refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read or is no TOML.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// An environment variable of ours names no key.
    #[error("{name}: {reason}, expected REG4REC__SECTION__KEY")]
    Variable {
        /// The variable.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A key is unknown, missing, or of the wrong type; the message names it.
    #[error("settings: {0}")]
    Shape(String),
    /// Values are out of range, one sentence each.
    #[error("settings: {}", .0.join("; "))]
    Values(Vec<String>),
}

impl From<config::ConfigError> for ConfigError {
    fn from(error: config::ConfigError) -> Self {
        // As text, not as a source: whoever prints the chain would tell it twice.
        Self::Shape(error.to_string())
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        let mut problems = self.server.problems();
        let name = &self.bundle.variant;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(legal) {
            problems.push(format!("bundle.variant is {name:?}, expected 1 to 64 of A-Z a-z 0-9 - _ ."));
        }
        problems.extend(self.bundle.place().validate().err());
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.filter) {
            problems.push(format!("log.filter is {:?}, expected filter directives: {error}", self.log.filter));
        }
        if self.registry.is_set() && !self.bundle.path.as_os_str().is_empty() {
            let (bundle, registry) = (self.bundle.path.display(), &self.registry.path);
            problems
                .push(format!("bundle.path is {bundle} and registry.path is {registry}, expected only one of them"));
        }
        problems.extend(named("registry", self.registry.validate()));
        problems.extend(named("recommend", self.recommend.validate()));
        problems.extend(named("history", self.history.validate()));
        problems.extend(named("events", self.events.validate()));
        problems.extend(named("catalogue", self.catalogue.validate()));
        problems.extend(named("engine", self.engine.validate()));
        problems.extend(named("experiments", self.experiments.validate()));
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Values(problems)) }
    }
}

/// The problems of one section, under their whole keys.
fn named(section: &str, outcome: Result<(), Vec<Violation>>) -> Vec<String> {
    let sentence = |wrong: Violation| format!("{section}.{} is {}", wrong.field, wrong.description);
    outcome.err().unwrap_or_default().into_iter().map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn refused(layers: &Layers<'_>) -> String {
        read(layers).unwrap_err().to_string()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn environment(key: &str, value: &str) -> Vec<(String, String)> {
        vec![(key.to_owned(), value.to_owned())]
    }

    #[test]
    fn the_defaults_alone_are_a_configuration() {
        let config = read(&Layers::default()).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:50051");
        assert_eq!(config.server.admin.to_string(), "127.0.0.1:9100");
        assert_eq!((config.bundle.device, config.bundle.variant.as_str()), (Device::Cpu, "default"));
    }

    #[test]
    fn the_file_of_defaults_and_the_parts_agree() {
        let config = read(&Layers::default()).unwrap();
        assert_eq!(config.recommend, RecommendConfig::default());
        assert_eq!(config.history, HistoryConfig::default());
        assert_eq!(config.engine, EngineConfig::default());
        assert_eq!(config.catalogue, CatalogueConfig::default());
        assert_eq!(config.registry, RegistryConfig::default());
        assert_eq!(config.experiments, ExperimentsConfig::default());
        // And it names every key, so that it is the whole documentation.
        let table: toml::Table = DEFAULTS.parse().unwrap();
        for (section, default) in [
            ("recommend", toml::Table::try_from(config.recommend).unwrap()),
            ("history", toml::Table::try_from(config.history).unwrap()),
            ("engine", toml::Table::try_from(config.engine).unwrap()),
            ("catalogue", toml::Table::try_from(config.catalogue).unwrap()),
            ("registry", toml::Table::try_from(config.registry).unwrap()),
        ] {
            assert_eq!(table[section].as_table().unwrap(), &default, "{section}");
        }
    }

    #[test]
    fn lists_and_nested_keys_come_from_the_environment() {
        let layers = Layers {
            environment: vec![
                ("REG4REC__ENGINE__WARMUP_BATCHES".into(), "[4]".into()),
                ("REG4REC__ENGINE__BATCH__MAX_BATCH".into(), "16".into()),
            ],
            ..Layers::default()
        };
        let engine = read(&layers).unwrap().engine;
        assert_eq!((engine.warmup_batches, engine.batch.max_batch), (vec![4], 16));
    }

    #[test]
    fn flags_override_the_environment_overrides_the_file_overrides_the_defaults() {
        let file = file("[server]\nmax_inflight = 2\ndrain_limit_ms = 20\ndrain_lag_ms = 200\n");
        let layers = Layers {
            file: Some(file.path()),
            environment: vec![
                ("REG4REC__SERVER__DRAIN_LIMIT_MS".into(), "30".into()),
                ("REG4REC__SERVER__DRAIN_LAG_MS".into(), "300".into()),
                ("REG4REC_DATA".into(), "/data".into()),
            ],
            flags: vec![("server.drain_lag_ms", "400".into())],
        };
        let server = read(&layers).unwrap().server;
        let read = (server.max_streams_per_connection, server.max_inflight, server.drain_limit_ms, server.drain_lag_ms);
        assert_eq!(read, (1024, 2, 30, 400));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for text in ["[server]\nlisen = \"127.0.0.1:1\"\n", "lisen = 1\n", "[lisen]\nkey = 1\n"] {
            let file = file(text);
            let error = refused(&Layers { file: Some(file.path()), ..Layers::default() });
            assert!(error.contains("lisen"), "{error}");
        }
        let error = refused(&Layers { environment: environment("REG4REC__SERVER__LISEN", "1"), ..Layers::default() });
        assert!(error.contains("lisen"), "{error}");
        for name in ["REG4REC__", "REG4REC__SERVER____LISTEN", "REG4REC__A B"] {
            let error = refused(&Layers { environment: environment(name, "1"), ..Layers::default() });
            assert!(error.contains("REG4REC__") || error.contains("unknown field"), "{name}: {error}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_key() {
        let layers = Layers { environment: environment("REG4REC__SERVER__MAX_INFLIGHT", "many"), ..Layers::default() };
        let error = refused(&layers);
        assert!(error.contains("max_inflight") && error.contains("many"), "{error}");
        let layers = Layers { flags: vec![("bundle.precision", "bf16".into())], ..Layers::default() };
        assert!(refused(&layers).contains("bundle.precision is bf16 where bundle.device is cpu"));
        let layers = Layers { flags: vec![("bundle.device", "tpu".into())], ..Layers::default() };
        let error = refused(&layers);
        assert!(error.contains("device") && error.contains("tpu"), "{error}");
    }

    #[test]
    fn every_value_out_of_range_is_named_with_what_was_expected() {
        let file = file(
            "[server]\nmax_inflight = 0\ndeadline_margin_ms = 1\n[bundle]\nvariant = \"a b\"\n[history]\nmax_users = 0\n",
        );
        let error = refused(&Layers { file: Some(file.path()), ..Layers::default() });
        assert!(error.contains("server.max_inflight is 0, expected 1 to 1000000"), "{error}");
        assert!(error.contains("server.deadline_margin_ms is 1, expected 2 to 1000"), "{error}");
        assert!(error.contains("bundle.variant is \"a b\""), "{error}");
        assert!(error.contains("history.max_users is 0: expected 1 to 1000000000"), "{error}");
    }

    #[test]
    fn a_registry_and_a_bundle_at_once_are_refused_and_so_are_names_that_are_none() {
        let one =
            file("[registry]\npath = \"r\"\nvariants = [\"a\", \"..\", \"a\"]\npoll_ms = 1\n[bundle]\npath = \"b\"\n");
        let error = refused(&Layers { file: Some(one.path()), ..Layers::default() });
        for part in [
            "bundle.path is b and registry.path is r, expected only one of them",
            "registry.variants[1] is variant: \"..\"",
            "registry.variants[2] is \"a\": expected each name once",
            "registry.default is \"default\": expected one of [\"a\", \"..\", \"a\"]",
            "registry.poll_ms is 1: expected 50 to 3600000",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }

    #[test]
    fn the_experiment_that_the_file_of_defaults_shows_is_a_valid_one() {
        // Every line of the example, without the comment sign.
        let example = DEFAULTS.lines().skip_while(|line| !line.starts_with("#   [[experiments.experiment]]"));
        let example = example.take_while(|line| line.starts_with("#   "));
        let text: String = example.map(|line| format!("{}\n", &line[4..])).collect();
        let file = file(&text);
        let experiments = read(&Layers { file: Some(file.path()), ..Layers::default() }).unwrap().experiments;
        let one = &experiments.experiment[0];
        assert_eq!((one.key.as_str(), one.arms.len(), one.eligibility.len()), ("wider-beam", 2, 2));
        assert_eq!((one.coverage, one.namespace, one.arms[1].decode.beam), (0.1, [0.0, 0.5], Some(40)));
        assert!(one.start < one.end);
    }

    #[test]
    fn wrong_keys_and_files_of_tls_are_named_and_no_hash_is_shown() {
        let one = file(
            "[server]\nkey = [{ name = \"a b\", hash = \"deadbeef\", roles = [] },\n{ name = \"c\", hash = \"deadbeef\", \
             roles = [\"admin\"], burst = 3 }, { name = \"c\", hash = \"x\", roles = [\"events\"], requests_per_second = 0.0 }]\n\
             [server.tls]\ncertificate = \"c.pem\"\nreload_ms = 1\n",
        );
        let error = refused(&Layers { file: Some(one.path()), ..Layers::default() });
        for part in [
            "server.key[0].name is \"a b\", expected 1 to 64",
            "server.key[0].hash is no hash, expected sha256:SALT:HASH",
            "server.key[0].roles is empty, expected some of recommend, events, catalogue, admin",
            "server.key[1].burst is 3, expected requests_per_second beside it",
            "server.key[2].name is \"c\" again",
            "server.key[2].requests_per_second is 0, expected 0.001 to 1e9",
            "server.tls.certificate is \"c.pem\" and server.tls.key is \"\", expected both or neither",
            "server.tls.reload_ms is 1, expected 100 to 86400000",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        assert!(!error.contains("deadbeef"), "{error}");
        let one = file("[server]\nkey = [{ name = \"a\", hash = \"deadbeef\", roles = [\"king\"] }]\n");
        let error = refused(&Layers { file: Some(one.path()), ..Layers::default() });
        assert!(error.contains("king") && !error.contains("deadbeef"), "{error}");
    }

    #[test]
    fn only_a_port_that_strangers_reach_without_keys_gives_a_notice() {
        let server = |listen: &str| {
            let layers = Layers { flags: vec![("server.listen", listen.into())], ..Layers::default() };
            read(&layers).unwrap().server
        };
        assert_eq!(server("127.0.0.1:0").notice(), None);
        assert_eq!(server("[::1]:0").notice(), None);
        let told = server("0.0.0.0:0").notice().unwrap();
        assert!(told.starts_with("server.listen can be reached") && told.contains("server.key"), "{told}");
    }

    #[test]
    fn what_is_wrong_with_an_experiment_is_named_and_its_token_never_shown() {
        let with = |line: &str| {
            file(&format!("[[experiments.experiment]]\nkey = \"k\"\narms = [{{ name = \"a\" }}]\n{line}\n"))
        };
        for (line, named) in [
            ("armz = 1", "armz"),
            ("hash_version = 3", "3 is no hash version, expected 1 or 2"),
            ("start = \"soon\"", "\"soon\" is no time, expected one as 2026-01-31T00:00:00Z"),
            ("coverage = 1.5", "experiments.experiment[0].coverage is 1.5: expected 0 to 1"),
            ("arms = []", "arms"),
        ] {
            let file = with(line);
            let error = refused(&Layers { file: Some(file.path()), ..Layers::default() });
            assert!(error.contains(named), "{line}: {error}");
        }
        // A time may also be one of TOML's own.
        let file = with("end = 2026-02-01T00:00:00Z");
        let end = read(&Layers { file: Some(file.path()), ..Layers::default() }).unwrap().experiments.experiment[0].end;
        assert_eq!(end.map(i64::from), Some(1_769_904_000));
        let token = environment("REG4REC__EXPERIMENTS__FORCE_TOKEN", "0123456789abcdef");
        let config = read(&Layers { environment: token, ..Layers::default() }).unwrap();
        assert!(!config.experiments.force_token.is_empty() && !format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn a_file_that_is_not_there_or_no_toml_is_named() {
        let error = refused(&Layers { file: Some(std::path::Path::new("/nowhere/at-all.toml")), ..Layers::default() });
        assert!(error.starts_with("/nowhere/at-all.toml: "), "{error}");
        let file = file("[server\n");
        let error = refused(&Layers { file: Some(file.path()), ..Layers::default() });
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}
