//! The trainer as a person starts it: a synthetic shop becomes a bundle, a killed run goes on as if it had not been,
//! and the server ranks as the evaluation does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reg4rec::domain::EventKind;
use reg4rec::training::dataset::{Dataset, Part, Split};
use reg4rec::wire::v1;
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::fake::Client;
use crate::process::Process;

pub fn trainer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec-trainer"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    let output = trainer(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small shop and a bundle fitted to it, made once for all tests here.
pub struct Shop {
    _home: TempDir,
    pub data: PathBuf,
    pub bundle: PathBuf,
}

pub fn shop() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        let (data, bundle) = (home.path().join("data"), home.path().join("bundle"));
        run(&["generate", "--out", text(&data), "--users", "400", "--items", "160", "--seed", "3"]);
        run(&["fit", "--data", text(&data), "--out", text(&bundle), "--epochs", "3"]);
        Shop { _home: home, data, bundle }
    })
}

fn manifest(bundle: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(bundle.join("manifest.json")).unwrap()).unwrap()
}

/// What of a bundle does not depend on when it was made and how long that took.
fn essence(bundle: &Path) -> (Value, Vec<(Value, Value)>) {
    let manifest = manifest(bundle);
    let epochs = manifest["training"]["epochs"].as_array().unwrap();
    let epochs = epochs.iter().map(|epoch| (epoch["losses"].clone(), epoch["validation"].clone())).collect();
    (manifest["files"].clone(), epochs)
}

#[test]
fn a_killed_fit_resumes_to_the_same_bundle() {
    let shop = shop();
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("bundle");
    let arguments = ["fit", "--data", text(&shop.data), "--out", text(&out), "--epochs", "3", "--resume"];
    let mut child = trainer(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let state = home.path().join("bundle.fit/pretrain/checkpoint/state.json");
    let began = Instant::now();
    while !state.exists() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(300), "no checkpoint");
        std::thread::yield_now();
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert!(state.exists() && !out.exists(), "the run ended before it could be killed");
    let resumed = run(&arguments);
    let told = String::from_utf8_lossy(&[resumed.stdout, resumed.stderr].concat()).into_owned();
    assert!(told.contains("epoch  3:") && !told.contains("epoch  1:"), "the run began again: {told}");
    assert_eq!(essence(&out), essence(&shop.bundle));
    assert!(!home.path().join("bundle.fit").exists(), "the work directory is left over");
}

#[test]
fn a_killed_post_training_resumes_to_the_same_bundle() {
    let shop = shop();
    let home = tempfile::tempdir().unwrap();
    let (whole, cut) = (home.path().join("whole"), home.path().join("cut"));
    let arguments = |out: &Path| -> Vec<String> {
        let few = [
            "rounds=3",
            "steps=4",
            "contexts=16",
            "adaptive=true",
            "path_weight=1",
            "ladq.reduced=0.6",
            "ladq.period=3",
        ];
        let mut all =
            ["post-train", "--bundle", text(&shop.bundle), "--data", text(&shop.data), "--out", text(out), "--resume"]
                .map(str::to_owned)
                .to_vec();
        all.extend(few.into_iter().flat_map(|setting| ["--set".to_owned(), setting.to_owned()]));
        all
    };
    fn words(arguments: &[String]) -> Vec<&str> {
        arguments.iter().map(String::as_str).collect()
    }
    run(&words(&arguments(&whole)));

    let again = arguments(&cut);
    let mut child = trainer(&words(&again)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let state = home.path().join("cut.fit/posttrain/checkpoint/state.json");
    let began = Instant::now();
    while !state.exists() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(300), "no checkpoint");
        std::thread::yield_now();
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert!(state.exists() && !cut.exists(), "the run ended before it could be killed");
    let resumed = run(&words(&again));
    let told = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert!(told.contains("round  3:") && !told.contains("round  1:"), "the run began again: {told}");

    let trajectory = |bundle: &Path| {
        let trained = manifest(bundle)["training"]["post_train"].clone();
        let rounds = trained["rounds"].as_array().unwrap().clone();
        let of_round = |round: &Value| {
            ["reward", "rewards", "weights", "kl", "entropy", "model", "ladq"].map(|name| round[name].clone())
        };
        (manifest(bundle)["files"].clone(), rounds.iter().map(of_round).collect::<Vec<_>>())
    };
    assert_eq!(trajectory(&whole), trajectory(&cut));
    let made = manifest(&whole);
    let parent = manifest(&shop.bundle);
    assert_eq!(made["parent"], format!("{}/{}", parent["name"].as_str().unwrap(), parent["version"].as_str().unwrap()));
    let ladq = &made["training"]["post_train"]["rounds"][3]["ladq"]["report"];
    let share = ladq["reduced_layer_steps"].as_f64().unwrap() / ladq["layer_steps"].as_f64().unwrap();
    assert!(share >= 0.5, "{share} of the layers' steps in reduced precision: {ladq}");
    assert_eq!(ladq["emulated"], true);
}

#[test]
fn post_training_refuses_what_cannot_be_by_name() {
    let shop = shop();
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let refused = |setting: &str| {
        let arguments = [
            "post-train",
            "--bundle",
            text(&shop.bundle),
            "--data",
            text(&shop.data),
            "--out",
            text(&out),
            "--set",
            setting,
        ];
        let output = trainer(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{setting}");
        assert!(!out.exists());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused("group=1").contains("group: 1: expected at least 2"));
    assert!(refused("rewards.pth=1").contains("no setting rewards.pth"));
    assert!(refused("ladq.reduced=2").contains("ladq.reduced: 2: expected 0 to 1"));
}

#[test]
fn evaluation_prints_one_json_object_with_baselines() {
    let shop = shop();
    let found = run(&["evaluate", "--bundle", text(&shop.bundle), "--data", text(&shop.data), "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((&found["users"], &found["items"]), (&400.into(), &160.into()));
    for scores in [&found, &found["baselines"]["popular"], &found["baselines"]["item-knn"]] {
        for part in ["filtered", "all"] {
            for metric in ["recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20"] {
                let value = scores[part][metric].as_f64().unwrap();
                assert!((0.0..=1.0).contains(&value), "{part} {metric} {value}");
            }
        }
    }
    assert_eq!(found["filtered"], manifest(&shop.bundle)["metrics"]["test"]["filtered"]);
}

#[test]
fn a_reflection_tells_engines_orders_and_thresholds_apart() {
    let shop = shop();
    let found =
        run(&["reflect", "--bundle", text(&shop.bundle), "--data", text(&shop.data), "--users", "150", "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let rows = |part: &str| found[part].as_array().unwrap().clone();
    let row = |part: &str, setting: &str| rows(part).into_iter().find(|row| row["setting"] == setting).unwrap();
    // Path heads of zero change nothing but which paths are found.
    let (exact, silent) = (row("engines", "exact"), row("engines", "beam, path heads zero"));
    let recall = |row: &Value| row["recall_at_10"].as_f64().unwrap();
    assert!((recall(&exact) - recall(&silent)).abs() < 0.03, "{exact} {silent}");
    assert_eq!((rows("orders").len(), rows("thresholds").len()), (12, 39));
    let strict = row("thresholds", "beam 20, theta 0.02");
    let lax = row("thresholds", "beam 20, theta 0.3");
    assert!(strict["pruned"].as_f64() >= lax["pruned"].as_f64(), "{strict} {lax}");
    assert!(rows("thresholds").iter().all(|row| row["short"] == 0.0), "pruning made an answer short");
}

#[test]
fn an_evaluation_can_be_recorded_and_reported() {
    let shop = shop();
    let home = tempfile::tempdir().unwrap();
    let (record, page, tables) =
        (home.path().join("runs/one.json"), home.path().join("page.html"), home.path().join("tables.md"));
    run(&[
        "evaluate",
        "--bundle",
        text(&shop.bundle),
        "--data",
        text(&shop.data),
        "--json",
        "--record",
        text(&record),
        "--system",
        "small",
        "--group",
        "sizes",
    ]);
    let written: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    assert_eq!(
        (&written["system"], &written["preset"], &written["trials"]),
        (&"small".into(), &"quick".into(), &400.into())
    );
    assert_eq!(written["test"]["filtered"], manifest(&shop.bundle)["metrics"]["test"]["filtered"]);
    assert_eq!((written["epochs"].as_array().unwrap().len(), written["tokens"]["items"].as_u64()), (3, Some(160)));
    let runs = home.path().join("runs");
    run(&["report", "--runs", text(&runs), "--out", text(&page), "--markdown", text(&tables)]);
    assert!(std::fs::read_to_string(&page).unwrap().contains("data: sizes"));
    assert!(std::fs::read_to_string(&tables).unwrap().contains("| small | 1 |"));
}

#[test]
fn every_rival_is_measured_on_the_same_targets() {
    let shop = shop();
    let home = tempfile::tempdir().unwrap();
    let known = &manifest(&shop.bundle)["metrics"]["test"]["baselines"];
    for (system, epochs) in [("popular", 0), ("item-knn", 0), ("sasrec", 2), ("tiger", 2), ("codebook", 2)] {
        let out = home.path().join(system);
        run(&["baseline", system, "--data", text(&shop.data), "--out", text(&out), "--epochs", "2"]);
        let record: Value = serde_json::from_slice(&std::fs::read(out.join("record.json")).unwrap()).unwrap();
        assert_eq!((&record["system"], &record["trials"]), (&system.into(), &400.into()));
        assert_eq!(record["epochs"].as_array().unwrap().len(), epochs, "{system}");
        assert!(record["test"]["filtered"]["recall@20"].as_f64().unwrap() > 0.0, "{system}");
        if let Some(known) = known.get(system) {
            assert_eq!(record["test"], *known, "{system}");
        }
    }
}

#[test]
fn items_held_out_of_training_are_ranked_by_their_features() {
    let shop = shop();
    let home = tempfile::tempdir().unwrap();
    let set = ["--preset", "quick", "--share", "0.2", "--set", "pretrain.epochs=2"];
    let mut arguments = vec!["cold-start", "--data", text(&shop.data), "--out", text(home.path())];
    arguments.extend(set);
    run(&arguments);
    let read = |system: &str| -> Value {
        serde_json::from_slice(&std::fs::read(home.path().join(format!("{system}.json"))).unwrap()).unwrap()
    };
    let trials = read("popular")["trials"].as_u64().unwrap();
    assert!((1..400).contains(&trials), "{trials}");
    for system in ["reg4rec", "reg4rec-exact", "content-knn"] {
        let record = read(system);
        assert_eq!((record["trials"].as_u64(), &record["dataset"]["items"]), (Some(trials), &160.into()), "{system}");
    }
    // Nobody has taken the items held out, so counting events cannot tell them apart; their features can.
    let recall = |system: &str| read(system)["test"]["filtered"]["recall@20"].as_f64().unwrap();
    assert!(recall("reg4rec-exact") > recall("popular"));

    // Another share in the same place: nothing of the run before may be taken for this one's, also when resuming.
    arguments[8] = "0.3";
    arguments.push("--resume");
    run(&arguments);
    assert!(read("popular")["trials"].as_u64().unwrap() > trials);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_ranks_as_the_evaluation_does() {
    let shop = tokio::task::spawn_blocking(shop).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let lines = home.path().join("rankings.jsonl");
    let arguments =
        ["evaluate", "--bundle", text(&shop.bundle), "--data", text(&shop.data), "--rankings", text(&lines), "--json"];
    run(&arguments);
    let rankings: Vec<Value> =
        std::fs::read_to_string(&lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let data = Dataset::read(&shop.data).unwrap();
    let trials = Split::new(&data).trials(Part::Test);
    assert_eq!(rankings.len(), trials.len());

    let process = tokio::task::spawn_blocking(|| Process::start(&shop.bundle)).await.unwrap();
    let mut client = Client::new(Channel::from_shared(process.public.clone()).unwrap().connect().await.unwrap());
    for (ranking, trial) in rankings.iter().zip(&trials).step_by(9) {
        let user = trial.user as usize;
        assert_eq!(ranking["user"], Value::from(data.user_ids[user].as_str()));
        let events = &data.sequences[user][..data.sequences[user].len() - 1];
        let hidden = events.iter().any(|event| event.kind == EventKind::Hide);
        for (exclude_seen, wanted) in [(true, &ranking["filtered"]), (false, &ranking["all"])] {
            if hidden && !exclude_seen {
                continue; // the server never shows again what a user hid; the metric that allows seen items does
            }
            let request = v1::RecommendRequest {
                history: events.iter().map(|event| wire_event(&data, event)).collect(),
                k: Some(10),
                filter: Some(v1::Filter { exclude_seen, ..Default::default() }),
                ..Default::default()
            };
            let answer = client.recommend(request).await.unwrap().into_inner();
            let ids: Vec<Value> = answer.items.iter().map(|item| item.item_id.as_str().into()).collect();
            assert_eq!(&Value::from(ids), wanted, "user {user}, exclude_seen {exclude_seen}");
        }
    }
}

fn wire_event(data: &Dataset, event: &reg4rec::training::dataset::Interaction) -> v1::Event {
    v1::Event {
        item_id: data.items[event.item as usize].item.id.clone().into(),
        kind: event.kind as i32 + 1, // the wire counts from one: zero is unspecified
        time: Some(prost_types::Timestamp { seconds: event.time, nanos: 0 }),
        ..Default::default()
    }
}

#[test]
fn data_that_contradicts_itself_is_refused_by_file_and_column() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("bundle");
    let output = trainer(&["fit", "--data", text(home.path()), "--out", text(&out)]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("interactions.parquet") || told.contains("items.parquet"), "{told}");
    assert!(!out.exists());
}
