//! Certificates and key, read from their files, and read again when these change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::TlsMetrics;
use super::config::TlsConfig;

/// What both ports speak: gRPC and gRPC-web; pages and gRPC-web.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why certificates are refused.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("server.tls.{setting}: {}: {reason}", file.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The files do not belong together.
    #[error("server.tls: {0}")]
    Together(String),
}

/// What connections are encrypted with from now on. Those that are open keep what they began with.
pub(in crate::server) struct Identity {
    files: TlsConfig,
    current: ArcSwap<ServerConfig>,
    /// The digest of what was read last, taken or refused.
    seen: Mutex<[u8; 32]>,
    metrics: TlsMetrics,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the files; none when the settings name none.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(config: &TlsConfig, metrics: TlsMetrics) -> Result<Option<Arc<Self>>, TlsError> {
        if !config.is_on() {
            return Ok(None);
        }
        let files = Files::read(config)?;
        let (current, seen) = (ArcSwap::from_pointee(files.server(config)?), Mutex::new(files.digest()));
        Ok(Some(Arc::new(Self { files: config.clone(), current, seen, metrics })))
    }

    /// What a new connection is encrypted with.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again. True when they have changed and are taken. Not for an async task.
    ///
    /// # Errors
    /// When they are refused; those before go on.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(&mut seen, true)
    }

    /// Looks for changes until it is dropped. What is refused is told once, not at every look.
    pub async fn follow(self: Arc<Self>) {
        let mut looks = tokio::time::interval(self.files.reload());
        loop {
            looks.tick().await;
            let identity = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || {
                let mut seen = identity.seen.lock().unwrap_or_else(PoisonError::into_inner);
                identity.take(&mut seen, false)
            });
            match look.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!(%error, "new certificates are refused; those before go on"),
                Err(error) => tracing::error!(%error, "looking for new certificates failed"),
            }
        }
    }

    /// `again`: tells also of a refusal that was told before.
    fn take(&self, seen: &mut [u8; 32], again: bool) -> Result<bool, TlsError> {
        let outcome = Files::read(&self.files).map(|files| (files.digest(), files));
        let digest = outcome.as_ref().map_or_else(|error| Sha256::digest(error.to_string()).into(), |(one, _)| *one);
        if digest == *seen && !again {
            return Ok(false);
        }
        let changed = std::mem::replace(seen, digest) != digest;
        let server = outcome.and_then(|(_, files)| files.server(&self.files));
        self.metrics.reloaded(server.is_ok(), changed);
        let server = server?;
        if changed {
            self.current.store(Arc::new(server));
            tracing::info!(certificate = %self.files.certificate.display(), "new certificates are taken");
        }
        Ok(changed)
    }
}

/// The bytes of the files.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    /// Empty: callers need no certificate.
    client_ca: Vec<u8>,
}

impl Files {
    fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: bytes("certificate", &config.certificate)?,
            key: bytes("key", &config.key)?,
            client_ca: if config.is_mutual() { bytes("client_ca", &config.client_ca)? } else { Vec::new() },
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.certificate, &self.key, &self.client_ca] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn server(&self, config: &TlsConfig) -> Result<ServerConfig, TlsError> {
        let chain = certificates("certificate", &config.certificate, &self.certificate)?;
        // Of a key that cannot be read nothing is told but that.
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| file("key", &config.key, "holds no private key in PEM"))?;
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let together = |error: &dyn std::error::Error| TlsError::Together(error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| together(&error))?;
        let builder = if config.is_mutual() {
            let mut roots = RootCertStore::empty();
            for root in certificates("client_ca", &config.client_ca, &self.client_ca)? {
                roots.add(root).map_err(|error| file("client_ca", &config.client_ca, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| file("client_ca", &config.client_ca, error))?)
        } else {
            builder.with_no_client_auth()
        };
        let mut server = builder.with_single_cert(chain, key).map_err(|error| together(&error))?;
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(server)
    }
}

fn bytes(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| file(setting, path, error))
}

fn certificates(setting: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| file(setting, path, error))?;
    if read.is_empty() {
        return Err(file(setting, path, "holds no certificate in PEM"));
    }
    Ok(read)
}

fn file(setting: &'static str, path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File { setting, file: path.to_owned(), reason: reason.to_string() }
}
