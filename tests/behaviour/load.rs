//! `reg4rec load`: every request that is due is counted once, in both loops.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::bundle;
use crate::process::{Process, json};

/// `reg4rec load` against the process, with histories of the bundle's items.
pub fn load(process: &Process, bundle: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
    command.args(["load", "--server", &process.public, "--json", "--bundle"]).arg(bundle);
    command.args(more).output().unwrap()
}

/// Every request under what became of it.
pub fn counted(report: &Value) -> u64 {
    let number = |name: &str| report[name].as_u64().unwrap();
    let answers: u64 = report["answers"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    answers + number("given_up") + number("unsent")
}

#[test]
fn a_small_run_counts_every_request_and_draws_a_picture() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let process = Process::start(&dir);
    let run = |more: &[&str]| {
        let usual = ["--duration", "2", "--warmup", "0.2", "--deadline", "5000", "-k", "3,10"];
        load(&process, &dir, &[&usual, more].concat())
    };
    let picture = home.path().join("closed.svg");
    let closed = json(&run(&["--concurrency", "4", "--history", "1-5", "--picture", picture.to_str().unwrap()]));
    let requests = closed["requests"].as_u64().unwrap();
    assert!(requests > 10 && closed["answers"]["OK"] == requests, "{closed}");
    assert_eq!(counted(&closed), requests);
    assert!(closed["answered_ms"]["p50"].as_f64().unwrap() > 0.0);
    assert_eq!(closed["timeline"].as_array().unwrap().len(), 2);
    let drawn = std::fs::read_to_string(picture).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("polyline") && drawn.contains("closed loop, 4 callers"));

    let open = json(&run(&["--rate", "50", "--arrivals", "steady", "--clients", "call=2,batch:5=1,stream=1"]));
    let requests = open["requests"].as_u64().unwrap();
    assert!((95..=110).contains(&requests), "50 a second for 2 seconds are {requests}");
    let asked = |manner: &str| open["clients"][manner]["requests"].as_u64().unwrap();
    assert_eq!(asked("call") + asked("batch:5") + asked("stream"), requests, "{open}");
    assert!(asked("batch:5").is_multiple_of(5) && asked("stream") > 0, "{open}");
    assert_eq!(open["answers"]["OK"], requests, "{open}");
    assert_eq!(counted(&open), requests);
    assert_eq!(open["given_up"], 0, "{open}");

    let refused = run(&["--history", "0-5"]);
    assert!(!refused.status.success() && String::from_utf8(refused.stderr).unwrap().contains("LOW-HIGH"));
    let refused = run(&["--clients", "call,bulk=2"]);
    assert!(!refused.status.success() && String::from_utf8(refused.stderr).unwrap().contains("batch:N"));
    let refused = run(&["--deadline", "0"]);
    assert!(!refused.status.success() && String::from_utf8(refused.stderr).unwrap().contains("--deadline"));
}
