//! The sidecar beside a server: events become a new version, a worse one is stopped, a killed trainer publishes once.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;

use reg4rec::artifact::{BundleRegistry, load};
use reg4rec::catalog::{ChangeLog, Entry, Word};
use reg4rec::domain::{DescribedItem, Event, EventKind, Item, UserEvent};
use reg4rec::events::{EventLog, EventsConfig, Follower, Logged};
use reg4rec::training::dataset::{Dataset, DatasetItem, Interaction};
use reg4rec::wire::client::EventServiceClient;
use reg4rec::wire::v1;

use crate::fake::page_at;
use crate::operated::{Operated, channel, registry};
use crate::training::{shop, trainer};

const PATIENCE: Duration = Duration::from_secs(120);

/// Settings for a shop of a few hundred users: everything passes the gate unless `more` says otherwise.
fn settings(home: &Path, registry: &BundleRegistry, more: &str) -> PathBuf {
    let file = home.join("sidecar.toml");
    let paths = [("registry", registry.root().to_owned()), ("events", home.join("log")), ("work", home.join("work"))];
    let paths = paths.map(|(key, path)| format!("{key} = {path:?}\n")).concat();
    let text = format!(
        "{paths}data = {:?}\nlisten = \"127.0.0.1:0\"\n{more}\n[increment]\nheld_out_share = 0.3\n[tune]\nepochs = 2\n",
        shop().data
    );
    std::fs::write(&file, text).unwrap();
    file
}

const LENIENT: &str = "[gate]\nmargin = 1.0\nfewest_users = 10\n[trigger]\npoll_ms = 50\nevents = 500\nretry_s = 1";

fn once(settings: &Path) -> Command {
    let mut command = trainer(&["sidecar", "--once", "--json", "--config", settings.to_str().unwrap()]);
    command.env("RUST_LOG", "warn");
    command
}

fn outcome(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What users do in the shop: each some of what the next one had done, a day later.
fn deeds() -> Vec<UserEvent> {
    let data = Dataset::read(&shop().data).unwrap();
    let users = data.user_ids.len();
    let newest = data.sequences.iter().flatten().map(|event| event.time).max().unwrap();
    let deed = |user: usize, step: usize| {
        let sequence = &data.sequences[(user + 1) % users];
        let Interaction { item, .. } = sequence[step % sequence.len()];
        let item_id = data.items[item as usize].item.id.clone();
        let time = newest + 86_400 + step as i64 * 60;
        UserEvent {
            user_id: data.user_ids[user].clone(),
            event: Event { item_id, kind: EventKind::Click, time, value: None },
            event_id: format!("{user}-{step}"),
            request_id: String::new(),
        }
    };
    (0..4).flat_map(|step| (0..200).map(move |user| (user, step))).map(|(user, step)| deed(user, step)).collect()
}

struct Nobody;

impl Follower for Nobody {
    fn recorded(&mut self, _: &Logged) {}
    fn forgotten(&mut self, _: &str) {}
}

/// Writes a log as a server does.
fn with_log(home: &Path, work: impl FnOnce(&EventLog, &tokio::runtime::Runtime)) {
    let config = EventsConfig { path: home.join("log"), ..EventsConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (log, _) = EventLog::open(&config, &Registry::new(), Box::new(Nobody)).unwrap();
    work(&log, &runtime);
}

fn record(home: &Path, events: Vec<UserEvent>) {
    let count = events.len();
    with_log(home, |log, runtime| assert_eq!(runtime.block_on(log.record(events, 0)).unwrap().recorded, count));
}

/// A registry with the shop's bundle, and a log of what users did since.
fn started() -> (TempDir, BundleRegistry, String) {
    let (home, registry) = registry();
    registry.publish(&shop().bundle, "default", None).unwrap();
    record(home.path(), deeds());
    let first = registry.current("default").unwrap().unwrap();
    (home, registry, first)
}

fn manifest(registry: &BundleRegistry, version: &str) -> Value {
    let path = registry.directory("default", version).unwrap().join("manifest.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A sidecar that runs until it is dropped.
struct Watching {
    child: Child,
    page: String,
}

impl Watching {
    fn start(settings: &Path) -> Self {
        let mut command = trainer(&["sidecar", "--config", settings.to_str().unwrap()]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let page = said.trim().rsplit('/').next().unwrap().to_owned();
        Self { child, page }
    }

    async fn series(&self, name: &str) -> f64 {
        let (_, page) = page_at(&self.page, "/metrics").await;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no series {name} in\n{page}"))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_do_becomes_a_version_that_the_server_takes_without_a_failed_call() {
    let bundle = tokio::task::spawn_blocking(|| shop().bundle.clone()).await.unwrap();
    let (home, registry) = registry();
    registry.publish(&bundle, "default", None).unwrap();
    let first = registry.current("default").unwrap().unwrap();
    let log = home.path().join("log");
    std::fs::create_dir(&log).unwrap();
    let file = settings(home.path(), &registry, LENIENT);
    let server = Operated::follow(home, registry, |server| {
        server.env("REG4REC__EVENTS__PATH", log).env("REG4REC__BUNDLE__HISTORIES", &shop().data);
    })
    .await;
    let mut sidecar = Watching::start(&file);
    assert_eq!(page_at(&sidecar.page, "/readyz").await, (200, "ready\n".into()));
    assert_eq!(page_at(&sidecar.page, "/healthz").await.0, 200);

    // One trainer at a time: the second is told who the first is.
    let second = once(&file).output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && told.contains(&format!("(process {}, since ", sidecar.child.id())), "{told}");

    let stop = Arc::new(AtomicBool::new(false));
    let (asked, address) = (Arc::clone(&stop), server.process.public.clone());
    let caller = tokio::spawn(async move {
        let mut client = crate::fake::Client::new(channel(&address).await);
        let mut versions: Vec<String> = Vec::new();
        while !asked.load(Ordering::Relaxed) {
            let request = v1::RecommendRequest { user_id: "7".into(), ..Default::default() };
            let answer = client.recommend(request).await.expect("a call failed meanwhile").into_inner();
            assert_eq!((answer.items.len(), answer.cold_start), (10, false));
            if versions.last() != Some(&answer.bundle_version) {
                versions.push(answer.bundle_version);
            }
        }
        versions
    });
    let mut events = EventServiceClient::new(channel(&server.process.public).await);
    for batch in deeds().chunks(200) {
        let event = |deed: &UserEvent| v1::UserEvent {
            user_id: deed.user_id.clone().into(),
            event: Some(v1::Event {
                item_id: deed.event.item_id.clone().into(),
                kind: v1::EventKind::Click as i32,
                event_id: deed.event_id.clone().into(),
                ..Default::default()
            }),
        };
        let request = v1::RecordRequest { events: batch.iter().map(event).collect() };
        assert_eq!(events.record(request).await.unwrap().into_inner().recorded, 200);
    }
    let began = Instant::now();
    let second = loop {
        let current = server.registry.current("default").unwrap().unwrap();
        if current != first && server.variant("default").await.current.unwrap().version == current {
            break current;
        }
        assert!(began.elapsed() < PATIENCE, "no version was published and taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, Ordering::Relaxed);
    let versions = caller.await.unwrap();
    assert_eq!(versions, [first.clone(), second.clone()]);

    let (before, after) = (manifest(&server.registry, &first), manifest(&server.registry, &second));
    assert_eq!(after["parent"], json!(format!("{}/{first}", before["name"].as_str().unwrap())));
    let learnt = after["training"]["sidecar"]["learnt_through"].as_u64().unwrap();
    assert!((350..=560).contains(&learnt), "{learnt}");
    assert_eq!((&after["tokenizer"], &after["decode"]), (&before["tokenizer"], &before["decode"]));
    while sidecar.series("reg4rec_sidecar_cycles_total{result=\"published\"}").await == 0.0 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sidecar.series("reg4rec_sidecar_gate_total{decision=\"passed\"}").await, 1.0);
    let published = format!("reg4rec_sidecar_published_info{{variant=\"default\",version=\"{second}\"}}");
    assert_eq!(sidecar.series(&published).await, 1.0);
    assert_eq!(sidecar.series("reg4rec_sidecar_stage_duration_seconds_count{stage=\"tune\"}").await, 1.0);
    assert_eq!(sidecar.series("reg4rec_sidecar_unknown_item_share").await, 0.0);

    assert!(Command::new("kill").args(["-TERM", &sidecar.child.id().to_string()]).status().unwrap().success());
    assert!(sidecar.child.wait().unwrap().success());
}

#[test]
fn a_worse_candidate_is_stopped_and_its_events_are_learnt_later() {
    let (home, registry, first) = started();
    // A rate that no network survives.
    let harmful = settings(home.path(), &registry, "[gate]\nfewest_users = 10\n");
    let text = std::fs::read_to_string(&harmful).unwrap().replace("[tune]", "[tune]\nlearning_rate = 0.9");
    std::fs::write(&harmful, text).unwrap();
    let stopped = outcome(&once(&harmful).output().unwrap());
    assert_eq!(stopped["result"], "refused", "{stopped}");
    let reason = stopped["reason"].as_str().unwrap();
    assert!(reason.contains("expected at least") && reason.contains("@10"), "{reason}");
    let metric = |model: &str| stopped["compared"][model]["ndcg@10"].as_f64().unwrap();
    assert!(metric("candidate") < 0.8 * metric("current"), "{stopped}");
    assert_eq!(registry.current("default").unwrap().as_ref(), Some(&first));
    assert_eq!(registry.versions("default").unwrap(), std::slice::from_ref(&first));
    assert!(!home.path().join("work/cycle").exists());

    let passed = outcome(&once(&settings(home.path(), &registry, LENIENT)).output().unwrap());
    assert_eq!((&passed["result"], &passed["events"]), (&"published".into(), &stopped["events"]), "{passed}");
    let version = passed["version"].as_str().unwrap();
    assert_eq!(registry.current("default").unwrap().as_deref(), Some(version));
    // What was held out is new to the next cycle, and too little for one.
    let held_out = passed["events"]["held_out"].as_u64().unwrap();
    let nothing = outcome(&once(&settings(home.path(), &registry, "")).output().unwrap());
    assert_eq!((&nothing["result"], nothing["events"]["fresh"].as_u64()), (&"too_few".into(), Some(held_out)));
}

/// Runs a cycle and kills it as soon as `reached` holds.
fn killed(settings: &Path, reached: impl Fn() -> bool) {
    let mut child = once(settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !reached() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE, "it never came so far");
        std::thread::yield_now();
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
}

#[test]
fn a_trainer_that_is_killed_anywhere_publishes_once() {
    for stage in ["plan.json", "pretrain/checkpoint/state.json", "candidate/manifest.json", "registry"] {
        let (home, registry, first) = started();
        let file = settings(home.path(), &registry, LENIENT);
        let cycle = home.path().join("work/cycle");
        let versions = || registry.versions("default").unwrap();
        killed(&file, || if stage == "registry" { versions().len() > 1 } else { cycle.join(stage).exists() });
        assert!(cycle.exists(), "{stage}: the cycle ended before it was killed");
        let outcome_of = outcome(&once(&file).output().unwrap());
        assert_eq!((&outcome_of["result"], &outcome_of["resumed"]), (&"published".into(), &true.into()), "{stage}");
        let second = outcome_of["version"].as_str().unwrap().to_owned();
        assert_eq!(versions(), [first.clone(), second.clone()], "{stage}");
        assert_eq!(registry.current("default").unwrap(), Some(second.clone()), "{stage}");
        assert_eq!(registry.previous("default").unwrap(), Some(first), "{stage}");
        load(&registry.directory("default", &second).unwrap()).unwrap();
        assert!(!cycle.exists(), "{stage}: work is left over");
        let again = outcome(&once(&settings(home.path(), &registry, "")).output().unwrap());
        assert_eq!(
            (&again["result"], &again["events"]["learnt"]),
            (&"too_few".into(), &again["events"]["learnt"]),
            "{stage}"
        );
        assert_eq!(versions().len(), 2, "{stage}: published twice");
    }
}

#[test]
fn a_cycle_that_learnt_from_a_user_who_was_forgotten_meanwhile_begins_anew() {
    let (home, registry, _) = started();
    let file = settings(home.path(), &registry, LENIENT);
    let checkpoint = home.path().join("work/cycle/pretrain/checkpoint/state.json");
    killed(&file, || checkpoint.exists());
    let user = deeds()[0].user_id.clone();
    with_log(home.path(), |log, runtime| {
        assert_eq!(runtime.block_on(log.forget(user)).unwrap().logged_events, 4);
    });
    let found = outcome(&once(&file).output().unwrap());
    assert_eq!((&found["result"], &found["resumed"]), (&"published".into(), &false.into()), "{found}");
    assert_eq!(found["events"]["fresh"], json!(deeds().len() - 4));
}

#[test]
fn a_published_bundle_asks_its_golden_requests_for_nobody_of_the_log() {
    let (home, registry, first) = started();
    let file = settings(home.path(), &registry, LENIENT);
    assert_eq!(outcome(&once(&file).output().unwrap())["result"], "published");
    let version = registry.current("default").unwrap().filter(|now| *now != first).unwrap();
    let golden = load(&registry.directory("default", &version).unwrap()).unwrap().golden;
    let data = Dataset::read(&shop().data).unwrap();
    let before = data.sequences.iter().flatten();
    let before = before.map(|event| (data.items[event.item as usize].item.id.clone(), event.time));
    let since = deeds().into_iter().map(|deed| (deed.event.item_id, deed.event.time));
    let done: std::collections::HashSet<(String, i64)> = before.chain(since).collect();
    let asked: Vec<_> = golden.iter().flat_map(|golden| &golden.history).collect();
    assert!(golden.len() == 8 && asked.iter().all(|event| !done.contains(&(event.item_id.clone(), event.time))));
}

#[test]
fn a_candidate_whose_bundle_was_replaced_meanwhile_is_not_published() {
    let (home, registry, _) = started();
    let file = settings(home.path(), &registry, LENIENT);
    let candidate = home.path().join("work/cycle/candidate/manifest.json");
    killed(&file, || candidate.exists());
    let other = registry.directory("default", "1").unwrap();
    crate::bundle::write_again(&shop().bundle, &other, "1");
    registry.point("default", "1").unwrap();
    let found = outcome(&once(&file).output().unwrap());
    assert_eq!((&found["result"], &found["resumed"]), (&"published".into(), &false.into()), "{found}");
    let version = found["version"].as_str().unwrap();
    let parent = manifest(&registry, version)["parent"].clone();
    assert!(parent.as_str().unwrap().ends_with("/1"), "{parent}");
    assert_eq!(registry.previous("default").unwrap().as_deref(), Some("1"));
}

#[test]
fn a_new_item_is_tokenised_on_the_way_and_an_unknown_one_is_drift() {
    let (home, registry, _) = started();
    let data = Dataset::read(&shop().data).unwrap();
    let like = &data.items[0];
    let new = |id: &str| {
        let mut item: DatasetItem = like.clone();
        item.item.id = id.into();
        item
    };
    let at = |user: usize, item: &str| {
        let event = Event { item_id: item.into(), kind: EventKind::Click, time: 2_000_000_000, value: None };
        let user_id = data.user_ids[user].clone();
        UserEvent { user_id, event, event_id: String::new(), request_id: String::new() }
    };
    // Told first, so that they are not held out.
    let log = home.path().join("log");
    std::fs::remove_dir_all(&log).unwrap();
    record(home.path(), (0..200).flat_map(|user| [at(user, "arrived"), at(user, "unheard-of")]).collect());
    record(home.path(), deeds());

    // Without a file of items, both are unknown.
    let strict = format!("{LENIENT}\n[drift]\nmax_unknown_share = 0.3");
    let drifted = outcome(
        &once(&settings(home.path(), &registry, &strict.replace("margin = 1.0", "margin = 0.0"))).output().unwrap(),
    );
    let share = drifted["drift"]["unknown_share"].as_f64().unwrap();
    assert!((share - 400.0 / 1200.0).abs() < 1e-9, "{drifted}");
    assert!(drifted["retrain"].as_str().unwrap().contains("unknown items"), "{drifted}");

    let items = home.path().join("items");
    let mut grown = data.items.clone();
    grown.push(new("arrived"));
    Dataset::new(data.user_ids.clone(), grown, data.sequences.clone()).unwrap().write(&items).unwrap();
    registry.publish(&shop().bundle, "default", None).unwrap();
    std::fs::remove_dir_all(home.path().join("work")).unwrap();
    let with_items = format!("items = {:?}\n{strict}", items.join("items.parquet"));
    let found = outcome(&once(&settings(home.path(), &registry, &with_items)).output().unwrap());
    assert_eq!(
        (&found["result"], &found["added_items"], &found["retrain"]),
        (&"published".into(), &1.into(), &Value::Null)
    );
    assert_eq!(found["events"]["unknown"], 200);
    let version = found["version"].as_str().unwrap();
    let bundle = load(&registry.directory("default", version).unwrap()).unwrap();
    let number = bundle.index.number("arrived").expect("the new item is not in the bundle");
    assert_eq!((bundle.index.len(), number), (161, 160));
    // Its features are those of item 0 but for a past: many tokens are the same, and so is its class.
    let code = |item: u32| bundle.index.codes().code(item).to_vec();
    let shared = code(number).iter().zip(code(0)).filter(|(a, b)| **a == *b).count();
    assert!(shared >= 2, "{:?} {:?}", code(number), code(0));
    assert_eq!(bundle.index.class(number), bundle.index.class(0));
    assert!(bundle.index.prior(number) > bundle.index.prior(0), "200 people took it");
}

#[test]
fn an_item_that_came_to_the_server_is_learnt_from_its_log_of_changes() {
    let (home, registry, _) = started();
    let data = Dataset::read(&shop().data).unwrap();
    let like = &data.items[0];
    let changes = home.path().join("catalogue");
    let (mut log, _) = ChangeLog::open(&changes).unwrap();
    let said = |id: &str, word: fn(DescribedItem) -> Word| {
        let DatasetItem { item, text, embedding } = like.clone();
        let described = DescribedItem { item: Item { id: id.into(), ..item }, text, embedding };
        (id.to_owned(), Entry { changed_ms: 1, described_ms: Some(1), word: word(described) })
    };
    let entries = [
        said("arrived", |item| Word::Item(Box::new(item))),
        said("gone", |_| Word::Removed),
        said(&like.item.id, |_| Word::Eligible(false)),
    ];
    log.append(entries.iter().map(|(id, entry)| (id.as_str(), entry))).unwrap();
    let events = home.path().join("log");
    std::fs::remove_dir_all(&events).unwrap();
    let at = |user: usize, item: &str| {
        let event = Event { item_id: item.into(), kind: EventKind::Click, time: 2_000_000_000, value: None };
        let user_id = data.user_ids[user].clone();
        UserEvent { user_id, event, event_id: String::new(), request_id: String::new() }
    };
    record(home.path(), (0..200).flat_map(|user| [at(user, "arrived"), at(user, "gone")]).collect());
    record(home.path(), deeds());

    // The server has the log open meanwhile.
    let settings = settings(home.path(), &registry, &format!("catalogue = {changes:?}\n{LENIENT}"));
    let found = outcome(&once(&settings).output().unwrap());
    assert_eq!((&found["result"], &found["added_items"]), (&"published".into(), &1.into()), "{found}");
    assert_eq!(found["events"]["unknown"], 200, "who is gone is unknown");
    let bundle = load(&registry.directory("default", found["version"].as_str().unwrap()).unwrap()).unwrap();
    let number = bundle.index.number("arrived").expect("the new item is not in the bundle");
    assert_eq!((bundle.index.len(), number), (161, 160));
    let code = |item: u32| bundle.index.codes().code(item).to_vec();
    let shared = code(number).iter().zip(code(0)).filter(|(a, b)| **a == *b).count();
    assert!(shared >= 2, "{:?} {:?}", code(number), code(0));
    assert!(bundle.index.prior(number) > bundle.index.prior(0), "200 people took it");
    drop(log);
}

#[test]
fn settings_that_are_wrong_are_refused_and_the_defaults_are_told() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("sidecar.toml");
    std::fs::write(&file, "registri = \"r\"\n").unwrap();
    let refused = once(&file).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("registri"), "{told}");
    let defaults = trainer(&["sidecar", "--defaults"]).output().unwrap();
    assert!(String::from_utf8_lossy(&defaults.stdout).contains("\n[gate]\n"));
    std::fs::write(&file, "registry = \"nowhere\"\nevents = \"e\"\nwork = \"w\"\n").unwrap();
    let mut command = once(&file);
    let refused = command.current_dir(home.path()).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("variant default has no current version"), "{told}");
}

/// What fifty users do in a round: four things each.
fn round(nth: usize) -> Vec<UserEvent> {
    let data = Dataset::read(&shop().data).unwrap();
    let deed = |at: usize| {
        let user = (nth * 50 + at / 4) % data.user_ids.len();
        // After as many rounds as there are items the same would come again, and nobody could be asked for what is new.
        let item = nth * 37 + at * 53 + nth / data.items.len();
        let item_id = data.items[item % data.items.len()].item.id.clone();
        UserEvent {
            user_id: data.user_ids[user].clone(),
            event: Event {
                item_id,
                kind: EventKind::Click,
                time: 2_000_000_000 + (nth * 200 + at) as i64,
                value: None,
            },
            event_id: format!("round-{nth}-{at}"),
            request_id: String::new(),
        }
    };
    (0..200).map(deed).collect()
}

/// Takes about ten minutes: `cargo test --test behaviour -- --ignored --nocapture two_hundred_kills`.
#[test]
#[ignore = "two hundred processes"]
fn two_hundred_kills_at_random_points_lose_and_repeat_nothing() {
    const KILLS: usize = 200;
    let (home, registry, mut last) = started();
    let text = LENIENT.replace("fewest_users = 10", "fewest_users = 5");
    let file = settings(home.path(), &registry, &format!("keep_versions = 10000\n{text}"));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("epochs = 2", "epochs = 1").replace("held_out_share = 0.3", "held_out_share = 0.5"),
    )
    .unwrap();
    let began = Instant::now();
    assert_eq!(outcome(&once(&file).output().unwrap())["result"], "published");
    let whole = began.elapsed().as_secs_f64();
    let mut random = 88_172_645_463_325_252_u64; // xorshift
    let mut draw = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as f64 / (1_u64 << 53) as f64
    };
    let (mut kills, mut cycles, mut resumed) = (0, 0, 0);
    last = registry.current("default").unwrap().filter(|now| *now != last).unwrap();
    while kills < KILLS {
        cycles += 1;
        record(home.path(), round(cycles));
        let versions = registry.versions("default").unwrap().len();
        let found = loop {
            let mut child = once(&file).stderr(Stdio::null()).spawn().unwrap();
            let until = Instant::now() + Duration::from_secs_f64(1.1 * whole * draw());
            while Instant::now() < until && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            if child.try_wait().unwrap().is_some() {
                break outcome(&child.wait_with_output().unwrap());
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            // What servers would load now is whole.
            let current = registry.current("default").unwrap().unwrap();
            load(&registry.directory("default", &current).unwrap()).unwrap();
            // A directory without a plan is no cycle: that one had ended, and only its last words were cut off. Another start
            // would be the next cycle, of the events that this one held out.
            if current != last && !home.path().join("work/cycle/plan.json").exists() {
                break Value::Null;
            }
        };
        resumed += usize::from(found["resumed"] == true);
        let version = registry.current("default").unwrap().unwrap();
        let at = |version: &str| manifest(&registry, version)["training"]["sidecar"].clone();
        if found["result"] == "published" {
            assert_eq!(found["version"], version.as_str());
        }
        // A cycle publishes once, on from the one before, and learns just what that one had not.
        assert_eq!(registry.versions("default").unwrap().len(), versions + 1, "{found}");
        assert!(manifest(&registry, &version)["parent"].as_str().unwrap().ends_with(&last), "{found}");
        let through = |version: &str| at(version)["learnt_through"].as_u64().unwrap();
        assert_eq!(at(&version)["events"]["learnt"].as_u64().unwrap(), through(&version) - through(&last));
        last = version;
    }
    eprintln!(
        "{kills} kills in {cycles} cycles of {whole:.1} s, {resumed} of which ended by going on with the work of a killed one"
    );
}
