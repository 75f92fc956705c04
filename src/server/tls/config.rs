//! Settings of TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// Section `[server.tls]` of the settings; `src/config/defaults.toml` says what each is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of the server's certificate and those that lead from it to its root. Empty: no TLS.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the roots that callers' certificates must come from. Empty: none is asked for.
    pub client_ca: PathBuf,
    /// Whether the admin port speaks TLS too.
    pub admin: bool,
    /// How often the files are read, in milliseconds.
    pub reload_ms: u64,
}

impl TlsConfig {
    /// Whether connections are encrypted.
    pub fn is_on(&self) -> bool {
        set(&self.certificate)
    }

    /// Whether callers must show a certificate.
    pub fn is_mutual(&self) -> bool {
        set(&self.client_ca)
    }

    /// Says of each value that is wrong: key, value, what was expected.
    pub(in crate::server) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let shown = |path: &Path| path.display().to_string();
        if set(&self.certificate) != set(&self.key) {
            problems.push(format!(
                "server.tls.certificate is {:?} and server.tls.key is {:?}, expected both or neither",
                shown(&self.certificate),
                shown(&self.key)
            ));
        }
        if set(&self.client_ca) && !self.is_on() {
            let given = shown(&self.client_ca);
            problems.push(format!("server.tls.client_ca is {given:?}, expected a server.tls.certificate beside it"));
        }
        if !(100..=86_400_000).contains(&self.reload_ms) {
            problems.push(format!("server.tls.reload_ms is {}, expected 100 to 86400000", self.reload_ms));
        }
        problems
    }

    pub(super) fn reload(&self) -> Duration {
        Duration::from_millis(self.reload_ms)
    }
}

fn set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}
