//! `reg4rec record`, `events` and `forget`: what users did, told to a running server or read from its log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use prometheus::Registry;
use serde_json::json;

use reg4rec::domain::{EventKind, Forgotten, UserEvent};
use reg4rec::events::{EventLog, EventsConfig, Follower, Logged, Record as Entry, read_records};
use reg4rec::wire::client::{AdminServiceClient, EventServiceClient};
use reg4rec::wire::v1;

use super::{channel, page};

#[derive(Debug, Args)]
pub struct Record {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    server: String,
    #[command(flatten)]
    access: channel::Access,
    /// Who did it
    #[arg(long)]
    user: String,
    /// The items it was done to, in order
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',', required = true)]
    item: Vec<String>,
    /// What was done
    #[arg(long, default_value = "view", value_parser = kinds())]
    kind: EventKind,
    /// The rating, or the amount paid
    #[arg(long, allow_negative_numbers = true)]
    value: Option<f32>,
    /// The event's id, so that it counts once however often it is sent; for one item
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// The request_id of the answer that it follows from, so that a report of an experiment counts it
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// How long to wait, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    timeout: u64,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Record {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(
            self.event_id.is_none() || self.item.len() == 1,
            "--event-id names one event, but --item has {}; expected one item",
            self.item.len()
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(self.send())? {
            Ok(told) if self.json => {
                println!("{}", json!({ "recorded": told.recorded, "duplicates": told.duplicates }));
            }
            Ok(told) => println!("{} recorded, {} known before", told.recorded, told.duplicates),
            Err(status) => return Ok(page::refused(&status, self.json)),
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn send(&self) -> anyhow::Result<Result<v1::RecordResponse, tonic::Status>> {
        let patience = Duration::from_millis(self.timeout);
        let channel = channel::to_server(&self.server, &self.access, patience).await?;
        let mut request =
            tonic::Request::new(v1::RecordRequest { events: self.item.iter().map(|id| self.event(id)).collect() });
        request.set_timeout(patience);
        Ok(EventServiceClient::new(channel).record(request).await.map(tonic::Response::into_inner))
    }

    fn event(&self, item: &str) -> v1::UserEvent {
        let event = v1::Event {
            item_id: item.as_bytes().to_vec(),
            kind: v1::EventKind::from(self.kind).into(),
            value: self.value,
            event_id: self.event_id.clone().unwrap_or_default().into_bytes(),
            request_id: self.request_id.clone().unwrap_or_default().into_bytes(),
            ..v1::Event::default()
        };
        v1::UserEvent { user_id: self.user.clone().into_bytes(), event: Some(event) }
    }
}

/// What may be recorded, by name.
fn kinds() -> impl TypedValueParser<Value = EventKind> {
    let names = PossibleValuesParser::new(EventKind::ALL.map(EventKind::name));
    names.try_map(|name| EventKind::named(&name).ok_or("no kind of events is called so"))
}

#[derive(Debug, Args)]
pub struct Events {
    /// The log's directory; a server may be writing it
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// Print the events of this user, a JSON object a line, instead of the sums
    #[arg(long)]
    user: Option<String>,
    /// Print the sums as one JSON object
    #[arg(long, conflicts_with = "user")]
    json: bool,
}

impl Events {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (mut users, mut kinds) = (BTreeSet::new(), BTreeMap::<&str, u64>::new());
        let (mut events, mut exposures, mut span) = (0u64, 0u64, None::<(i64, i64)>);
        let segments = read_records(&self.log, &mut |record| {
            let Entry::Event(logged) = record else {
                exposures += 1;
                return;
            };
            let UserEvent { user_id, event, event_id, request_id } = logged.event;
            if let Some(user) = &self.user {
                if *user == user_id {
                    let (time, value) = (event.time, event.value);
                    let line = json!({
                        "sequence": logged.sequence, "arrived_ms": logged.arrived_ms, "item_id": event.item_id,
                        "kind": event.kind, "time": time, "value": value, "event_id": event_id, "request_id": request_id,
                    });
                    println!("{line}");
                }
                return;
            }
            events += 1;
            users.insert(user_id);
            *kinds.entry(event.kind.name()).or_default() += 1;
            let (first, last) = span.unwrap_or((event.time, event.time));
            span = Some((first.min(event.time), last.max(event.time)));
        })?;
        if self.user.is_some() {
            return Ok(ExitCode::SUCCESS);
        }
        let (first, last) = span.unzip();
        if self.json {
            let sums = json!({
                "segments": segments, "events": events, "users": users.len(), "kinds": kinds, "first": first, "last": last,
                "exposures": exposures,
            });
            println!("{sums}");
        } else {
            println!("{events} events of {} users in {segments} files", users.len());
            kinds.iter().for_each(|(kind, count)| println!("{kind:>10} {count}"));
            println!("{exposures} exposures: answers of experiments' arms");
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub struct Forget {
    /// Whose history and events to remove
    #[arg(long)]
    user: String,
    /// The admin port of a running server [default: 127.0.0.1:9100]
    #[arg(long, value_name = "ADDR", conflicts_with = "log")]
    admin: Option<String>,
    #[command(flatten)]
    access: channel::Access,
    /// The directory of an event log instead; nobody may be writing it. (A server or `follow` that shares a stream with the
    /// one that is asked hears of it, and needs no asking)
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

/// Follows nothing: this process keeps no histories.
pub struct Nobody;

impl Follower for Nobody {
    fn recorded(&mut self, _logged: &Logged) {}

    fn forgotten(&mut self, _user: &str) {}
}

impl Forget {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = match &self.log {
            Some(log) => Ok(runtime.block_on(from_files(log, self.user.clone()))?),
            None => runtime.block_on(self.by_server())?,
        };
        match (outcome, self.json) {
            (Ok(gone), true) => println!(
                "{}",
                json!({
                    "history_events": gone.history_events, "logged_events": gone.logged_events,
                    "logged_exposures": gone.logged_exposures, "files": gone.files,
                })
            ),
            (Ok(gone), false) => println!(
                "{} events are gone from the history, {} events and {} exposures from the log; {} of its files were written anew",
                gone.history_events, gone.logged_events, gone.logged_exposures, gone.files
            ),
            (Err(status), json) => return Ok(page::refused(&status, json)),
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn by_server(&self) -> anyhow::Result<Result<v1::ForgetUserResponse, tonic::Status>> {
        let channel = channel::to_operator(self.admin.as_deref().unwrap_or(channel::ADMIN), &self.access).await?;
        let asked = v1::ForgetUserRequest { user_id: self.user.clone() };
        Ok(AdminServiceClient::new(channel).forget_user(asked).await.map(tonic::Response::into_inner))
    }
}

async fn from_files(log: &Path, user: String) -> anyhow::Result<v1::ForgetUserResponse> {
    ensure!(log.is_dir(), "--log {}: expected the directory of an event log", log.display());
    let config = EventsConfig { path: log.to_owned(), ..EventsConfig::default() };
    let (log, _) = EventLog::open(&config, &Registry::new(), Box::new(Nobody))?;
    let gone = log.forget(user).await?;
    let Forgotten { logged_events, logged_exposures, files, .. } = gone;
    Ok(v1::ForgetUserResponse { history_events: 0, logged_events, logged_exposures, files: files as u64 })
}
