//! `reg4rec reload-tls`: lets a server read its certificates again now, through its admin port.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use tonic::{Response, Status};

use reg4rec::wire::client::AdminServiceClient;
use reg4rec::wire::v1;

use super::{channel, page};

#[derive(Debug, Args)]
pub struct ReloadTls {
    /// The server's admin port
    #[arg(long, value_name = "ADDR", default_value = channel::ADMIN)]
    admin: String,
    #[command(flatten)]
    access: channel::Access,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl ReloadTls {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(self.ask())? {
            Ok(told) if self.json => println!("{}", json!({ "changed": told.changed })),
            Ok(told) => println!("{}", if told.changed { "new certificates are taken" } else { "nothing has changed" }),
            Err(status) => return Ok(page::refused(&status, self.json)),
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(&self) -> anyhow::Result<Result<v1::ReloadTlsResponse, Status>> {
        let mut server = AdminServiceClient::new(channel::to_operator(&self.admin, &self.access).await?);
        Ok(server.reload_tls(v1::ReloadTlsRequest {}).await.map(Response::into_inner))
    }
}
