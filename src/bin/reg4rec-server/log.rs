//! The process's log, with directives that can be changed while it runs.

use std::io::IsTerminal;

use reg4rec::config::{LogConfig, LogFormat};
use reg4rec::server::LogFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

/// Starts the log on standard error. What it answers changes the directives.
pub fn start(config: &LogConfig) -> anyhow::Result<LogFilter> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let (started, filter) = match config.format {
        LogFormat::Text => {
            let lines = lines.with_filter_reloading();
            let filter = reloading(&config.filter, lines.reload_handle());
            (lines.try_init(), filter)
        }
        LogFormat::Json => {
            let lines = lines.json().with_filter_reloading();
            let filter = reloading(&config.filter, lines.reload_handle());
            (lines.try_init(), filter)
        }
    };
    started.map_err(|error| anyhow::anyhow!("log: {error}"))?;
    Ok(filter)
}

fn reloading<S: 'static>(directives: &str, handle: Handle<EnvFilter, S>) -> LogFilter {
    LogFilter::new(directives, move |directives| {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    })
}
