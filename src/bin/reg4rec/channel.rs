//! Ways to a running server: plain or over TLS, with a key where one is needed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// Where the admin port listens unless a server's settings say otherwise.
pub const ADMIN: &str = "127.0.0.1:9100";
/// How long the admin port may take to be reached.
const REACHED: Duration = Duration::from_secs(10);
/// The variable that holds the key where no file is named.
const KEY: &str = "REG4REC_API_KEY";

/// A connection that says its key.
pub type Line = InterceptedService<Channel, ApiKey>;

/// What lets this tool in.
#[derive(Debug, Clone, Default, Args)]
pub struct Access {
    /// A file with the key that lets this in [default: the environment's REG4REC_API_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// A PEM file of the roots to trust, for a URL as https://… [default: those built in: none]
    #[arg(long, global = true, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// A PEM file of the certificate to show, where the server asks for one
    #[arg(long, global = true, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// A PEM file of its private key
    #[arg(long, global = true, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The name that the server's certificate must hold [default: the one in the URL]
    #[arg(long, global = true, value_name = "NAME")]
    tls_name: Option<String>,
}

/// Says the key with every call; none where there is none.
#[derive(Clone)]
pub struct ApiKey(Option<MetadataValue<Ascii>>);

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

impl Access {
    fn key(&self) -> anyhow::Result<ApiKey> {
        let key = match &self.api_key_file {
            Some(file) => Some(text(file, "--api-key-file")?),
            None => std::env::var(KEY).ok(),
        };
        let Some(key) = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()) else {
            return Ok(ApiKey(None));
        };
        // What is wrong with it is not told: it is a secret.
        let value = MetadataValue::try_from(format!("Bearer {key}")).ok().context("the key is no key: not ASCII")?;
        let mut value = value;
        value.set_sensitive(true);
        Ok(ApiKey(Some(value)))
    }

    fn is_tls(&self) -> bool {
        self.tls_ca.is_some() || self.tls_cert.is_some()
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &self.tls_ca {
            tls = tls.ca_certificate(Certificate::from_pem(text(ca, "--tls-ca")?));
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            tls = tls.identity(Identity::from_pem(text(certificate, "--tls-cert")?, text(key, "--tls-key")?));
        }
        if let Some(name) = &self.tls_name {
            tls = tls.domain_name(name);
        }
        Ok(tls)
    }
}

fn text(file: &Path, flag: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{flag} {}", file.display()))
}

/// To the public port, given as `--server`.
pub async fn to_server(url: &str, access: &Access, patience: Duration) -> anyhow::Result<Line> {
    connect("--server", url, "a URL as http://127.0.0.1:50051", url, access, patience).await
}

/// To the admin port, given as `--admin`, with or without a scheme.
pub async fn to_operator(admin: &str, access: &Access) -> anyhow::Result<Line> {
    let scheme = if access.is_tls() { "https" } else { "http" };
    let url = if admin.contains("://") { admin.to_owned() } else { format!("{scheme}://{admin}") };
    connect("--admin", admin, &format!("an address as {ADMIN}"), &url, access, REACHED).await
}

async fn connect(
    flag: &str,
    given: &str,
    expected: &str,
    url: &str,
    access: &Access,
    patience: Duration,
) -> anyhow::Result<Line> {
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("{flag} {given:?}: expected {expected}"))?
        .connect_timeout(patience);
    let encrypted = endpoint.uri().scheme_str() == Some("https");
    ensure!(encrypted || !access.is_tls(), "{flag} {given:?}: certificates are given, expected a URL as https://…");
    if encrypted {
        endpoint = endpoint.tls_config(access.tls()?).context("TLS")?;
    }
    let channel = endpoint.connect().await.with_context(|| format!("cannot reach {given}"))?;
    Ok(InterceptedService::new(channel, access.key()?))
}
