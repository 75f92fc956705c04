//! Items come, change and go while the demo is served, and stay so after the server was killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use reg4rec::artifact;
use reg4rec::wire::client::CatalogServiceClient;
use reg4rec::wire::v1;

use crate::bundle::{self, DEMO};
use crate::fake::{Client, page_at};
use crate::operated::{Operated, channel, registry};
use crate::process::{Process, json};

type Shopkeeper = CatalogServiceClient<Channel>;

const ENGINES: [v1::Engine; 3] = [v1::Engine::Exact, v1::Engine::Beam, v1::Engine::Draft];

/// The demo with a catalogue that can be changed, and a cache of answers to be wrong.
struct Shop {
    process: Process,
    keeper: Shopkeeper,
    client: Client,
    /// Items that a golden user saw.
    history: Vec<v1::Event>,
}

impl Shop {
    async fn open(log: &Path) -> Self {
        let log = log.to_owned();
        let start = move || Process::start_with(Path::new(DEMO), |command| settings(command, &log));
        Self::around(tokio::task::spawn_blocking(start).await.unwrap()).await
    }

    async fn around(process: Process) -> Self {
        let to = channel(&process.public).await;
        let golden = artifact::load(Path::new(DEMO)).unwrap().golden.remove(0);
        let event =
            |event: &artifact::GoldenEvent| v1::Event { item_id: event.item_id.clone().into(), ..Default::default() };
        let history = golden.history.iter().map(event).collect();
        Self { process, keeper: Shopkeeper::new(to.clone()), client: Client::new(to), history }
    }

    /// The ids of the best `k` items.
    async fn answered(&mut self, k: u32, engine: v1::Engine, filter: Option<v1::Filter>) -> Vec<String> {
        let decode = Some(v1::DecodeOptions { engine: engine as i32, ..Default::default() });
        let history = self.history.clone();
        let request = v1::RecommendRequest { history, k: Some(k), filter, decode, ..Default::default() };
        let answer = self.client.recommend(request).await.unwrap().into_inner();
        answer.items.into_iter().map(|item| item.item_id).collect()
    }

    async fn upsert(&mut self, items: Vec<v1::CatalogItem>) -> v1::UpsertItemsResponse {
        self.keeper.upsert_items(v1::UpsertItemsRequest { items }).await.unwrap().into_inner()
    }

    async fn remove(&mut self, ids: &[&str]) -> v1::RemoveItemsResponse {
        let item_ids = ids.iter().map(|id| id.as_bytes().to_vec()).collect();
        self.keeper.remove_items(v1::RemoveItemsRequest { item_ids }).await.unwrap().into_inner()
    }

    async fn set(&mut self, id: &str, eligible: bool) {
        let items = vec![v1::ItemEligibility { item_id: id.into(), eligible }];
        self.keeper.set_eligibility(v1::SetEligibilityRequest { items }).await.unwrap();
    }

    async fn item(&mut self, id: &str) -> Result<v1::StoredItem, tonic::Status> {
        let found = self.keeper.get_item(v1::GetItemRequest { item_id: id.into() }).await?;
        Ok(found.into_inner().item.unwrap())
    }

    /// Every id that is listed, in the order of the pages.
    async fn listed(&mut self, page_size: u32) -> Vec<String> {
        let (mut ids, mut page_token) = (Vec::new(), Vec::new());
        loop {
            let page = v1::ListItemsRequest { page_size, page_token };
            let page = self.keeper.list_items(page).await.unwrap().into_inner();
            ids.extend(page.items.into_iter().map(|item| item.item_id));
            if page.next_page_token.is_empty() {
                return ids;
            }
            page_token = page.next_page_token.into_bytes();
        }
    }
}

fn settings(command: &mut Command, log: &Path) {
    command.env("REG4REC__CATALOGUE__PATH", log).env("REG4REC__CATALOGUE__FOLD_MS", "200");
    command.env("REG4REC__RECOMMEND__CACHE__ENTRIES", "1000");
}

/// An item of the same words as another.
fn twin(of: &v1::StoredItem, id: &str) -> v1::CatalogItem {
    v1::CatalogItem {
        item_id: id.into(),
        title: of.title.clone().into(),
        brand: of.brand.clone().into(),
        categories: of.categories.iter().map(|name| name.clone().into()).collect(),
        price: of.price,
        ..Default::default()
    }
}

fn of_brand(brand: &str) -> Option<v1::Filter> {
    Some(v1::Filter { include_brands: vec![brand.into()], ..Default::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_is_found_by_every_engine_as_soon_as_it_is_acknowledged_and_not_once_it_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(home.path()).await;
    let best = shop.answered(1, v1::Engine::Exact, None).await.remove(0);
    let best = shop.item(&best).await.unwrap();
    assert!(best.learnt && best.eligible && best.changed.is_none() && best.tokens.len() == 8, "{best:?}");
    for engine in ENGINES {
        assert!(shop.answered(10, engine, of_brand("Nobody")).await.is_empty(), "{engine:?}");
        assert!(shop.answered(30, engine, None).await.len() == 30, "{engine:?}");
    }

    let only = v1::CatalogItem { brand: "Nobody".into(), ..twin(&best, "only") };
    let changed = shop.upsert(vec![twin(&best, "twin"), only]).await;
    assert_eq!((changed.added, changed.changed), (2, 0));
    for engine in ENGINES {
        assert_eq!(shop.answered(10, engine, of_brand("Nobody")).await, ["only"], "{engine:?}");
        let found = shop.answered(30, engine, None).await;
        assert!(found.contains(&"twin".to_owned()), "an item alike the best one is not found by {engine:?}: {found:?}");
    }
    let told = shop.item("twin").await.unwrap();
    assert!(!told.learnt && told.changed.is_some() && told.tokens.len() == 8 && told.title == best.title, "{told:?}");
    // What a user did with it counts, too.
    shop.history = vec![v1::Event { item_id: "twin".into(), ..Default::default() }];
    assert_eq!(shop.answered(10, v1::Engine::Beam, None).await.len(), 10);

    shop.set(&best.item_id, false).await;
    let gone = shop.remove(&["twin", "nobody"]).await;
    assert_eq!((gone.removed, gone.unknown_item_ids), (1, vec!["nobody".to_owned()]));
    for engine in ENGINES {
        let found = shop.answered(1000, engine, None).await;
        assert!(!found.contains(&"twin".to_owned()) && !found.contains(&best.item_id), "{engine:?}");
    }
    let status = shop.item("twin").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.get_details_error_info().unwrap().reason, "UNKNOWN_ITEM");
    let (_, metrics) = page_at(shop.process.admin(), "/metrics").await;
    for line in [
        r#"reg4rec_catalogue_changes_total{kind="upsert"} 2"#,
        r#"reg4rec_index_items{variant="default"} 1202"#,
        r#"reg4rec_requests_total{code="NOT_FOUND",method="GetItem",variant="none"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains(r#"reg4rec_index_overlay_items{variant="default"} "#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_words_give_a_learnt_item_other_tokens_and_another_price_does_not() {
    let home = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(home.path()).await;
    let best = shop.answered(1, v1::Engine::Exact, None).await.remove(0);
    let best = shop.item(&best).await.unwrap();
    shop.upsert(vec![v1::CatalogItem { price: Some(1e6), ..twin(&best, &best.item_id) }]).await;
    let dear = Some(v1::Filter { price: Some(v1::PriceRange { min: Some(1e6), max: None }), ..Default::default() });
    for engine in ENGINES {
        let found = shop.answered(5, engine, dear.clone()).await;
        assert!(found.len() == 1 && found[0] == best.item_id, "{engine:?}: {found:?}");
    }
    let priced = shop.item(&best.item_id).await.unwrap();
    assert_eq!((priced.price, &priced.tokens, priced.learnt), (Some(1e6), &best.tokens, true));
    let text = b"lorem ipsum quantum chromodynamics".to_vec();
    shop.upsert(vec![v1::CatalogItem { text, ..twin(&best, &best.item_id) }]).await;
    let told = shop.item(&best.item_id).await.unwrap();
    assert!(told.tokens != best.tokens && told.learnt, "{told:?}");
    // The vector is still the learnt one, so it is still the best by the scorer alone.
    assert_eq!(shop.answered(1, v1::Engine::Exact, None).await, [best.item_id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_knows_after_its_start_all_that_it_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(home.path()).await;
    let best = shop.answered(1, v1::Engine::Exact, None).await.remove(0);
    let best = shop.item(&best).await.unwrap();
    shop.set(&best.item_id, false).await;
    let (mut keeper, of) = (shop.keeper.clone(), best.clone());
    let acknowledged = Arc::new(std::sync::Mutex::new(Vec::new()));
    let taken = Arc::clone(&acknowledged);
    let writing = tokio::spawn(async move {
        for at in 0.. {
            let id = format!("live-{at}");
            let item = v1::CatalogItem { brand: "Nobody".into(), ..twin(&of, &id) };
            let sent = keeper.upsert_items(v1::UpsertItemsRequest { items: vec![item] }).await;
            if sent.is_err() {
                return;
            }
            taken.lock().unwrap().push(id);
        }
    });
    while acknowledged.lock().unwrap().len() < 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shop.process.child.kill().unwrap();
    shop.process.child.wait().unwrap();
    writing.await.unwrap();
    let acknowledged: BTreeSet<String> = acknowledged.lock().unwrap().iter().cloned().collect();

    let mut shop = Shop::open(home.path()).await;
    let found: BTreeSet<String> = shop.answered(1000, v1::Engine::Beam, of_brand("Nobody")).await.into_iter().collect();
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are lost");
    // One more may have been written and not yet answered.
    assert!(found.len() <= acknowledged.len() + 1, "{found:?}");
    assert!(!shop.item(&best.item_id).await.unwrap().eligible);
    assert!(!shop.answered(1000, v1::Engine::Exact, None).await.contains(&best.item_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_holds_for_a_bundle_that_is_swapped_in_and_for_the_one_gone_back_to() {
    let (home, registry) = registry();
    registry.publish(Path::new(DEMO), "default", Some("v0")).unwrap();
    bundle::write_again(Path::new(DEMO), &registry.directory("default", "v1").unwrap(), "1");
    let log = home.path().join("catalogue");
    let server = Operated::follow(home, registry, |command| settings(command, &log)).await;
    let Operated { process, registry, home: _home } = server;
    let mut shop = Shop::around(process).await;
    let best = shop.answered(1, v1::Engine::Exact, None).await.remove(0);
    let best = shop.item(&best).await.unwrap();
    shop.upsert(vec![v1::CatalogItem { brand: "Nobody".into(), ..twin(&best, "only") }]).await;
    shop.remove(&[&best.item_id]).await;
    let before = shop.item("only").await.unwrap();

    registry.point("default", "v1").unwrap();
    let request = v1::RecommendRequest { history: shop.history.clone(), ..Default::default() };
    while shop.client.recommend(request.clone()).await.unwrap().into_inner().bundle_version != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for engine in ENGINES {
        assert_eq!(shop.answered(5, engine, of_brand("Nobody")).await, ["only"], "{engine:?}");
        assert!(!shop.answered(1000, engine, None).await.contains(&best.item_id), "{engine:?}");
    }
    assert_eq!(shop.item("only").await.unwrap(), before);
    shop.upsert(vec![v1::CatalogItem { brand: "Nobody".into(), ..twin(&best, "second") }]).await;
    let mut operator = crate::operated::Operator::new(channel(&shop.process.admin).await);
    operator.rollback(v1::RollbackRequest { variant: "default".into() }).await.unwrap();
    for engine in ENGINES {
        let mut found = shop.answered(5, engine, of_brand("Nobody")).await;
        found.sort();
        assert_eq!(found, ["only", "second"], "{engine:?}");
        assert!(!shop.answered(1000, engine, None).await.contains(&best.item_id), "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_has_every_lasting_item_once_while_others_come_and_go() {
    let home = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(home.path()).await;
    let known: BTreeSet<String> = shop.listed(1000).await.into_iter().collect();
    assert_eq!(known.len(), 1200);
    let stop = Arc::new(AtomicBool::new(false));
    let (mut keeper, stopped) = (shop.keeper.clone(), Arc::clone(&stop));
    let writing = tokio::spawn(async move {
        let mut at = 0;
        while !stopped.load(Ordering::Relaxed) {
            at += 1;
            // Before, among and behind those of the demo.
            let ids = ["0", "1005", "zz"].map(|start| format!("{start}-live-{}", at % 7).into_bytes());
            let item = |item_id: &Vec<u8>| v1::CatalogItem { item_id: item_id.clone(), ..Default::default() };
            let items = ids.iter().map(item).collect();
            keeper.upsert_items(v1::UpsertItemsRequest { items }).await.unwrap();
            keeper.remove_items(v1::RemoveItemsRequest { item_ids: ids.to_vec() }).await.unwrap();
        }
        at
    });
    for page in [7, 50, 400] {
        let listed = shop.listed(page).await;
        assert!(listed.is_sorted(), "out of order");
        let lasting: Vec<&String> = listed.iter().filter(|id| !id.contains("live")).collect();
        assert!(lasting.len() == known.len() && lasting.into_iter().all(|id| known.contains(id)), "{page} a page");
        assert!(listed.windows(2).all(|pair| pair[0] != pair[1]), "an item is there twice");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writing.await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_items_are_named_and_a_server_without_a_log_says_so() {
    let home = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(home.path()).await;
    let wrong = v1::CatalogItem { price: Some(f32::NAN), ..Default::default() };
    let fine = v1::CatalogItem { item_id: "fine".into(), ..Default::default() };
    let sent = v1::UpsertItemsRequest { items: vec![fine.clone(), wrong] };
    let status = shop.keeper.upsert_items(sent).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let named: Vec<String> =
        status.get_details_bad_request().unwrap().field_violations.into_iter().map(|wrong| wrong.field).collect();
    assert_eq!(named, ["items[1].item_id", "items[1].price"]);
    assert_eq!(shop.item("fine").await.unwrap_err().code(), Code::NotFound, "an item of a refused request was taken");
    // An item of nothing but an id has a place, too.
    shop.upsert(vec![fine]).await;
    assert_eq!(shop.item("fine").await.unwrap().tokens.len(), 8);

    let process = tokio::task::spawn_blocking(|| Process::start(Path::new(DEMO))).await.unwrap();
    let mut off = Shop::around(process).await;
    let status = off.keeper.remove_items(v1::RemoveItemsRequest { item_ids: vec!["1".into()] }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("catalogue.path"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_changes_items_from_the_command_line() {
    let home = tempfile::tempdir().unwrap();
    let shop = Shop::open(&home.path().join("log")).await;
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
        command.arg("items").args(more).args(["--server", &shop.process.public, "--timeout", "20000", "--json"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        json(&output)
    };
    let file = home.path().join("items.jsonl");
    let lines = [
        r#"{"item_id": "a", "title": "Red hat", "categories": ["Hats"], "price": 3.5}"#,
        "",
        r#"{"item_id": "b", "text": "A blue hat", "eligible": false}"#,
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    assert_eq!(run(&["upsert", file.to_str().unwrap()])["added"], 2);
    let item = run(&["get", "a"]);
    assert_eq!((&item["title"], &item["eligible"], &item["price"]), (&"Red hat".into(), &true.into(), &3.5.into()));
    assert_eq!(run(&["eligibility", "on", "b", "nobody"])["unknown_item_ids"], Value::from(vec!["nobody"]));
    assert_eq!(run(&["get", "b"])["eligible"], true);
    assert_eq!(run(&["remove", "a"])["removed"], 1);
    let listed = run(&["list"]);
    let ids: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|item| item["item_id"].as_str().unwrap()).collect();
    assert!(ids.len() == 1201 && ids.contains(&"b") && !ids.contains(&"a"));
}
