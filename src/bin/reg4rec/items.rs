//! `reg4rec items`: makes, changes, removes and shows the items of a running server.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;

use reg4rec::wire::client::CatalogServiceClient;
use reg4rec::wire::v1;

use super::{channel, page};

/// Items of one request.
const AT_ONCE: usize = 1000;

type Keeper = CatalogServiceClient<channel::Line>;

#[derive(Debug, Args)]
pub struct Items {
    #[command(subcommand)]
    what: What,
    /// The server
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    server: String,
    #[command(flatten)]
    access: channel::Access,
    /// How long each call may take, in milliseconds
    #[arg(long, global = true, value_name = "MS", default_value_t = 5000)]
    timeout: u64,
    /// Print one JSON object and nothing else
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Makes items, or makes them anew, from a file of JSON objects, one a line
    Upsert {
        /// Lines as {"item_id": "a", "title": "Red hat", "text": "…", "brand": "…", "categories": ["Hats"], "price": 3.5,
        /// "eligible": true, "embedding": […]}, of which only item_id is needed; - is standard input
        file: PathBuf,
    },
    /// Takes items away
    Remove {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Says whether items may be recommended
    Eligibility {
        /// Whether they may
        may: May,
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Shows an item
    Get {
        /// Its id
        id: String,
    },
    /// Lists all items by id
    List {
        /// Stop after so many
        #[arg(long, value_name = "N")]
        most: Option<usize>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum May {
    On,
    Off,
}

/// A line of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    item_id: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    brand: String,
    #[serde(default)]
    categories: Vec<String>,
    price: Option<f32>,
    eligible: Option<bool>,
    #[serde(default)]
    embedding: Vec<f32>,
}

impl Items {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(self.ask())? {
            Ok(told) if self.json => println!("{told}"),
            Ok(told) => show(&told),
            Err(status) => return Ok(page::refused(&status, self.json)),
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(&self) -> anyhow::Result<Result<Value, Status>> {
        let read = match &self.what {
            What::Upsert { file } => read(file)?,
            _ => Vec::new(),
        };
        let patience = Duration::from_millis(self.timeout);
        let mut keeper = Keeper::new(channel::to_server(&self.server, &self.access, patience).await?);
        Ok(match &self.what {
            What::Upsert { .. } => self.upsert(&mut keeper, read).await,
            What::Remove { ids } => self.remove(&mut keeper, ids).await,
            What::Eligibility { may, ids } => self.set(&mut keeper, matches!(may, May::On), ids).await,
            What::Get { id } => self.get(&mut keeper, id).await,
            What::List { most } => self.list(&mut keeper, most.unwrap_or(usize::MAX)).await,
        })
    }

    async fn upsert(&self, keeper: &mut Keeper, items: Vec<v1::CatalogItem>) -> Result<Value, Status> {
        let (mut added, mut changed, mut version) = (0, 0, String::new());
        for items in items.chunks(AT_ONCE) {
            let sent = v1::UpsertItemsRequest { items: items.to_vec() };
            let told = keeper.upsert_items(self.request(sent)).await?.into_inner();
            (added, changed, version) = (added + told.added, changed + told.changed, told.index_version);
        }
        Ok(json!({ "added": added, "changed": changed, "index_version": version }))
    }

    async fn remove(&self, keeper: &mut Keeper, ids: &[String]) -> Result<Value, Status> {
        let sent = v1::RemoveItemsRequest { item_ids: ids.iter().map(|id| id.clone().into_bytes()).collect() };
        let told = keeper.remove_items(self.request(sent)).await?.into_inner();
        let (removed, unknown) = (told.removed, told.unknown_item_ids);
        Ok(json!({ "removed": removed, "unknown_item_ids": unknown, "index_version": told.index_version }))
    }

    async fn set(&self, keeper: &mut Keeper, eligible: bool, ids: &[String]) -> Result<Value, Status> {
        let item = |id: &String| v1::ItemEligibility { item_id: id.clone().into_bytes(), eligible };
        let sent = v1::SetEligibilityRequest { items: ids.iter().map(item).collect() };
        let told = keeper.set_eligibility(self.request(sent)).await?.into_inner();
        let (changed, unknown) = (told.changed, told.unknown_item_ids);
        Ok(json!({ "changed": changed, "unknown_item_ids": unknown, "index_version": told.index_version }))
    }

    async fn get(&self, keeper: &mut Keeper, id: &str) -> Result<Value, Status> {
        let sent = v1::GetItemRequest { item_id: id.as_bytes().to_vec() };
        let told = keeper.get_item(self.request(sent)).await?.into_inner();
        Ok(told.item.map(item).unwrap_or_default())
    }

    async fn list(&self, keeper: &mut Keeper, most: usize) -> Result<Value, Status> {
        let (mut items, mut page_token) = (Vec::new(), Vec::new());
        while items.len() < most {
            let page_size = AT_ONCE.min(most - items.len()) as u32;
            let sent = v1::ListItemsRequest { page_size, page_token };
            let page = keeper.list_items(self.request(sent)).await?.into_inner();
            items.extend(page.items.into_iter().map(item));
            page_token = page.next_page_token.into_bytes();
            if page_token.is_empty() {
                break;
            }
        }
        Ok(json!({ "items": items }))
    }

    fn request<T>(&self, sent: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(sent);
        request.set_timeout(Duration::from_millis(self.timeout));
        request
    }
}

fn read(file: &PathBuf) -> anyhow::Result<Vec<v1::CatalogItem>> {
    let name = file.display();
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("{name}"))?;
    }
    let mut items = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).with_context(|| format!("{name}, line {}", at + 1))?;
        items.push(v1::CatalogItem {
            item_id: line.item_id.into(),
            title: line.title.into(),
            text: line.text.into(),
            brand: line.brand.into(),
            categories: line.categories.into_iter().map(Into::into).collect(),
            price: line.price,
            eligible: line.eligible,
            embedding: line.embedding,
        });
    }
    ensure!(!items.is_empty(), "{name}: no items, expected a JSON object a line");
    Ok(items)
}

fn item(item: v1::StoredItem) -> Value {
    json!({
        "item_id": item.item_id,
        "title": item.title,
        "text": item.text,
        "brand": item.brand,
        "categories": item.categories,
        "price": item.price,
        "eligible": item.eligible,
        "embedding_width": item.embedding_width,
        "tokens": item.tokens,
        "changed": item.changed.map(|time| time.seconds),
        "learnt": item.learnt,
    })
}

/// Items a line each, anything else field by field.
fn show(told: &Value) {
    if let Some(items) = told.get("items").and_then(Value::as_array) {
        for item in items {
            let eligible = if item["eligible"] == true { "" } else { "  (not eligible)" };
            let text = |field: &str| item[field].as_str().unwrap_or_default();
            println!("{:24}  {}{eligible}", text("item_id"), text("title"));
        }
    } else if let Some(fields) = told.as_object() {
        fields.iter().for_each(|(field, value)| println!("{field:18}{value}"));
    }
}
