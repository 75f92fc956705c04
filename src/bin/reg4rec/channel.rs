//! Ways to a running server.

use std::time::Duration;

use anyhow::Context;
use tonic::transport::{Channel, Endpoint};

/// Where the admin port listens unless a server's settings say otherwise.
pub const ADMIN: &str = "127.0.0.1:9100";
/// How long the admin port may take to be reached.
const REACHED: Duration = Duration::from_secs(10);

/// To the public port, given as `--server`.
pub async fn to_server(url: &str, patience: Duration) -> anyhow::Result<Channel> {
    connect("--server", url, "a URL as http://127.0.0.1:50051", url, patience).await
}

/// To the admin port, given as `--admin`, with or without a scheme.
pub async fn to_operator(admin: &str) -> anyhow::Result<Channel> {
    let url = if admin.contains("://") { admin.to_owned() } else { format!("http://{admin}") };
    connect("--admin", admin, &format!("an address as {ADMIN}"), &url, REACHED).await
}

async fn connect(flag: &str, given: &str, expected: &str, url: &str, patience: Duration) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("{flag} {given:?}: expected {expected}"))?
        .connect_timeout(patience);
    endpoint.connect().await.with_context(|| format!("cannot reach {given}"))
}
