//! `reg4rec ask`: one request to a running server.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use reg4rec::wire::client::RecommendationServiceClient;
use reg4rec::wire::v1;

use super::{channel, page};

#[derive(Debug, Args)]
pub struct Ask {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    server: String,
    #[command(flatten)]
    access: channel::Access,
    /// Whose stored history to use
    #[arg(long, required_unless_present = "history")]
    user: Option<String>,
    /// Item ids, oldest first; used instead of a stored history
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',')]
    history: Vec<String>,
    /// How many items
    #[arg(short, default_value_t = 10)]
    k: u32,
    /// Tell the path behind every item
    #[arg(long)]
    explain: bool,
    /// Leave out the items of the history
    #[arg(long)]
    exclude_seen: bool,
    /// Leave out these items
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',')]
    exclude: Vec<String>,
    /// Only items of these categories
    #[arg(long, value_name = "NAME")]
    category: Vec<String>,
    /// No items of these categories
    #[arg(long, value_name = "NAME")]
    without_category: Vec<String>,
    /// An attribute of the request, for experiments
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, String)>,
    /// More of a category (below 0: less), in nats
    #[arg(long, value_name = "NAME=NATS", value_parser = weight)]
    boost: Vec<(String, f32)>,
    /// More of what is like an item (below 0: less), in nats
    #[arg(long, value_name = "ID=NATS", value_parser = weight)]
    like: Vec<(String, f32)>,
    /// At most so many items of one first category
    #[arg(long, value_name = "N")]
    max_per_category: Option<u32>,
    /// At most so many items of a category
    #[arg(long, value_name = "NAME=N", value_parser = limit)]
    limit: Vec<(String, u32)>,
    /// The variant to ask [default: the server's]
    #[arg(long)]
    variant: Option<String>,
    /// How long to wait, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    timeout: u64,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Ask {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(self.ask())? {
            Ok(answer) if self.json => println!("{}", page::answer_json(&answer)),
            Ok(answer) => print!("{}", page::answer(&answer)),
            Err(status) => return Ok(page::refused(&status, self.json)),
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(&self) -> anyhow::Result<Result<v1::RecommendResponse, tonic::Status>> {
        let patience = Duration::from_millis(self.timeout);
        let channel = channel::to_server(&self.server, &self.access, patience).await?;
        let mut request = tonic::Request::new(self.request());
        request.set_timeout(patience);
        let mut client = RecommendationServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(client.recommend(request).await.map(tonic::Response::into_inner))
    }

    fn request(&self) -> v1::RecommendRequest {
        let bytes = |names: &[String]| names.iter().map(|name| name.clone().into_bytes()).collect();
        let event = |id: &String| v1::Event { item_id: id.clone().into_bytes(), ..v1::Event::default() };
        let entry = |(name, value): &(String, String)| v1::recommend_request::AttributesEntry {
            key: name.clone().into_bytes(),
            value: value.clone().into_bytes(),
        };
        let filter = v1::Filter {
            exclude_items: bytes(&self.exclude),
            include_categories: bytes(&self.category),
            exclude_categories: bytes(&self.without_category),
            exclude_seen: self.exclude_seen,
            ..v1::Filter::default()
        };
        let category = |(name, weight): &(String, f32)| v1::CategoryWeight {
            category: name.clone().into_bytes(),
            weight: *weight,
        };
        let like = |(id, weight): &(String, f32)| v1::Likeness { item_id: id.clone().into_bytes(), weight: *weight };
        let limit =
            |(name, most): &(String, u32)| v1::CategoryLimit { category: name.clone().into_bytes(), most: *most };
        let steering = v1::Steering {
            categories: self.boost.iter().map(category).collect(),
            likes: self.like.iter().map(like).collect(),
            max_per_category: self.max_per_category,
            limits: self.limit.iter().map(limit).collect(),
        };
        v1::RecommendRequest {
            steering: Some(steering),
            user_id: self.user.clone().unwrap_or_default().into_bytes(),
            history: self.history.iter().map(event).collect(),
            k: Some(self.k),
            filter: Some(filter),
            explain: self.explain,
            variant: self.variant.clone().unwrap_or_default().into_bytes(),
            attributes: self.attribute.iter().map(entry).collect(),
            ..v1::RecommendRequest::default()
        }
    }
}

/// A name may hold `=` itself: the last one counts.
fn weight(text: &str) -> Result<(String, f32), String> {
    let named = text.rsplit_once('=').and_then(|(name, nats)| Some((name.to_owned(), nats.trim().parse().ok()?)));
    named.ok_or_else(|| format!("{text:?}, expected NAME=NATS as in Hair=0.7"))
}

fn limit(text: &str) -> Result<(String, u32), String> {
    let named = text.rsplit_once('=').and_then(|(name, most)| Some((name.to_owned(), most.trim().parse().ok()?)));
    named.ok_or_else(|| format!("{text:?}, expected NAME=N as in Hair=3"))
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let named = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    named.ok_or_else(|| "expected NAME=VALUE".to_owned())
}
