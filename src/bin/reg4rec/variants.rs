//! `reg4rec variants`: what a server serves, and how to change it, through its admin port.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tonic::{Response, Status};

use reg4rec::wire::client::AdminServiceClient;
use reg4rec::wire::v1;

use super::{channel, page};

#[derive(Debug, Args)]
pub struct Variants {
    /// The server's admin port
    #[arg(long, global = true, value_name = "ADDR", default_value = channel::ADMIN)]
    admin: String,
    #[command(flatten)]
    access: channel::Access,
    /// Print one JSON object and nothing else
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    change: Option<Change>,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Loads a bundle of the registry and lets it serve; the registry's pointer stays
    Load {
        /// The variant that is to serve it
        variant: String,
        /// Its directory, from the registry's own: VARIANT/VERSION
        bundle: String,
    },
    /// Makes a variant the default, or with a version points the registry at that version and serves it
    Promote {
        variant: String,
        /// A version of the variant in the registry
        #[arg(long)]
        version: Option<String>,
    },
    /// Lets the bundle before serve again
    Rollback { variant: String },
}

/// What was answered.
struct Told {
    variants: Vec<v1::Variant>,
    /// Whether the registry points at what serves now; only a rollback says so.
    pointed: Option<bool>,
}

impl Variants {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match (runtime.block_on(self.ask())?, self.json) {
            (Ok(told), true) => println!("{}", told.json(self.change.is_some())),
            (Ok(told), false) => print!("{}", told.page()),
            (Err(status), json) => return Ok(page::refused(&status, json)),
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(&self) -> anyhow::Result<Result<Told, Status>> {
        Ok(self.change(AdminServiceClient::new(channel::to_operator(&self.admin, &self.access).await?)).await)
    }

    async fn change(&self, mut server: AdminServiceClient<channel::Line>) -> Result<Told, Status> {
        let one = |variant: Option<v1::Variant>| Told { variants: variant.into_iter().collect(), pointed: None };
        match &self.change {
            None => {
                let listed = server.list_variants(v1::ListVariantsRequest {}).await.map(Response::into_inner)?;
                Ok(Told { variants: listed.variants, pointed: None })
            }
            Some(Change::Load { variant, bundle }) => {
                let asked = v1::LoadVariantRequest { variant: variant.clone(), bundle: bundle.clone() };
                Ok(one(server.load_variant(asked).await?.into_inner().variant))
            }
            Some(Change::Promote { variant, version }) => {
                let version = version.clone().unwrap_or_default();
                let asked = v1::PromoteRequest { variant: variant.clone(), version };
                Ok(one(server.promote(asked).await?.into_inner().variant))
            }
            Some(Change::Rollback { variant }) => {
                let asked = v1::RollbackRequest { variant: variant.clone() };
                let answer = server.rollback(asked).await?.into_inner();
                Ok(Told { pointed: Some(answer.pointed), ..one(answer.variant) })
            }
        }
    }
}

impl Told {
    /// A line a variant: `default  shop/3 of 12101 items, serving, default (before: shop/2)`.
    fn page(&self) -> String {
        let width = self.variants.iter().map(|variant| variant.name.len()).max().unwrap_or(0);
        let mut page: String = self.variants.iter().map(|variant| line(variant, width)).collect();
        if self.pointed == Some(false) {
            page.push_str("The registry does not point at it: a new start serves something else.\n");
        }
        page
    }

    /// A list has `variants`, a change the one `variant`.
    fn json(&self, changed: bool) -> Value {
        let mut variants: Vec<Value> = self.variants.iter().map(variant_json).collect();
        if !changed {
            return json!({"variants": variants});
        }
        let variant = variants.pop().unwrap_or_default();
        match self.pointed {
            Some(pointed) => json!({"variant": variant, "pointed": pointed}),
            None => json!({"variant": variant}),
        }
    }
}

fn line(variant: &v1::Variant, width: usize) -> String {
    let label = |bundle: &v1::Bundle| format!("{}/{}", bundle.name, bundle.version);
    let current = match &variant.current {
        Some(bundle) => format!("{} of {} items", label(bundle), bundle.items),
        None => "nothing loaded".to_owned(),
    };
    let serving = if variant.serving { ", serving" } else { ", not serving" };
    let default = if variant.default { ", default" } else { "" };
    let before = variant.previous.as_ref().map(|bundle| format!(" (before: {})", label(bundle)));
    let refused = variant.refused.as_ref().map(|refused| {
        format!("\n{:width$}  refused {}, stage {}: {}", "", refused.directory, refused.stage, refused.reason)
    });
    let (before, refused) = (before.unwrap_or_default(), refused.unwrap_or_default());
    format!("{:width$}  {current}{serving}{default}{before}{refused}\n", variant.name)
}

fn variant_json(variant: &v1::Variant) -> Value {
    let refused = variant
        .refused
        .as_ref()
        .map(|refused| json!({"directory": refused.directory, "stage": refused.stage, "reason": refused.reason}));
    json!({
        "name": variant.name,
        "default": variant.default,
        "serving": variant.serving,
        "current": variant.current.as_ref().map(bundle_json),
        "previous": variant.previous.as_ref().map(bundle_json),
        "refused": refused,
    })
}

fn bundle_json(bundle: &v1::Bundle) -> Value {
    json!({
        "name": bundle.name,
        "version": bundle.version,
        "index_version": bundle.index_version,
        "items": bundle.items,
        "directory": bundle.directory,
    })
}
