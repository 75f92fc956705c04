//! The layers: defaults < file < environment < flags, each a table that overrides the one before it key by key.

use std::path::Path;

use config::builder::DefaultState;
use config::{ConfigBuilder, Environment, File, FileFormat};

use super::{Config, ConfigError};

/// The compiled-in defaults.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Variables of this prefix are settings: `REG4REC__SERVER__LISTEN` is `server.listen`.
const PREFIX: &str = "REG4REC";

/// What overrides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Layers<'a> {
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// Environment variables; those without our prefix are left alone.
    pub environment: Vec<(String, String)>,
    /// Keys and values of the flags that were given, as in `("server.listen", "127.0.0.1:0")`.
    pub flags: Vec<(&'static str, String)>,
}

/// Reads the layers and checks every value.
///
/// # Errors
/// Says which file cannot be read, which key is unknown, or which value is wrong and what was expected.
pub fn read(layers: &Layers<'_>) -> Result<Config, ConfigError> {
    let mut builder = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some(path) = layers.file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.to_owned(), reason: error.to_string() })?;
        // Read on its own first, so that an error names the file and not some key of the merged whole.
        toml::from_str::<toml::Table>(&text)
            .map_err(|error| ConfigError::File { path: path.to_owned(), reason: error.to_string() })?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let settings = with_flags(builder.add_source(environment(layers)), layers)?.build()?;
    let config: Config = settings.try_deserialize()?;
    config.check()?;
    Ok(config)
}

fn environment(layers: &Layers<'_>) -> Environment {
    let ours = layers.environment.iter().filter(|(key, _)| key.starts_with("REG4REC__")).cloned().collect();
    Environment::with_prefix(PREFIX)
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
        .list_separator(",")
        .with_list_parse_key("engine.warmup_batches")
        .with_list_parse_key("engine.warmup_histories")
        .source(Some(ours))
}

fn with_flags(
    mut builder: ConfigBuilder<DefaultState>,
    layers: &Layers<'_>,
) -> Result<ConfigBuilder<DefaultState>, ConfigError> {
    for (key, value) in &layers.flags {
        builder = builder.set_override(key, value.clone())?;
    }
    Ok(builder)
}
