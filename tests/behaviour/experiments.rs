//! Experiments as callers and those who run the service see them: over real sockets, and from the tool.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use reg4rec::wire::v1::{self, AssignmentReason};

use crate::bundle;
use crate::fake::{Client, page_at, user};
use crate::process::Process;

const TOKEN: &str = "a-token-of-many-bytes";

/// A server over a small bundle with these experiments.
async fn serve(home: &Path, experiments: &str) -> (Process, Client) {
    let (dir, file) = (home.join("tiny"), home.join("settings.toml"));
    bundle::write(&dir, 0.0);
    std::fs::write(&file, experiments).unwrap();
    let process = tokio::task::spawn_blocking(move || {
        Process::start_with(&dir, |server| {
            server.arg("--config").arg(file);
        })
    })
    .await
    .unwrap();
    let channel = Channel::from_shared(process.public.clone()).unwrap().connect().await.unwrap();
    (process, Client::new(channel))
}

const HALVES: &str = r#"
[experiments]
force_token = "a-token-of-many-bytes"
[[experiments.experiment]]
key = "search"
arms = [{ name = "control" }, { name = "exact", decode = { engine = "exact" } }]
"#;

fn told(answer: &v1::RecommendResponse) -> (&str, AssignmentReason) {
    let assignment = answer.assignment.as_ref().expect("no assignment");
    (assignment.arm.as_str(), assignment.reason())
}

/// The value of one series on the admin page.
async fn series(process: &Process, line: &str) -> f64 {
    let (_, page) = page_at(process.admin.trim_start_matches("http://"), "/metrics").await;
    let found = page.lines().find_map(|row| row.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no series {line} in\n{page}"))
}

/// A user with a history, so that the network answers.
fn reader(id: &str) -> v1::RecommendRequest {
    let event = v1::Event { item_id: "item-3".into(), ..Default::default() };
    v1::RecommendRequest { history: vec![event], explain: true, ..user(id) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_says_which_arm_it_comes_from_and_the_tool_says_the_same() {
    let home = tempfile::tempdir().unwrap();
    let (process, mut client) = serve(home.path(), HALVES).await;
    let mut counts = [0, 0];
    for at in 0..40 {
        let id = format!("user-{at}");
        let answer = client.recommend(reader(&id)).await.unwrap().into_inner();
        let (arm, reason) = told(&answer);
        let assigned: Value = json(&assign(&["--seed", "search", "--unit", &id, "--arms", "2", "--json"]));
        let expected = ["control", "exact"][assigned["arm"].as_u64().unwrap() as usize];
        assert_eq!((arm, reason), (expected, AssignmentReason::Assigned), "{id}");
        // The arm does what it says: the exact scorer tells no path.
        assert_eq!(answer.items[0].path.is_none(), arm == "exact");
        let assignment = answer.assignment.unwrap();
        assert_eq!((assignment.experiment.as_str(), assignment.variant.as_str()), ("search", "default"));
        assert_eq!(assignment.version.len(), 12);
        assert!(answer.further_assignments.is_empty());
        counts[usize::from(expected == "exact")] += 1;
    }
    assert!(counts[0] > 10 && counts[1] > 10, "{counts:?}");
    for (arm, count) in ["control", "exact"].into_iter().zip(counts) {
        let labels = format!("{{arm=\"{arm}\",experiment=\"search\",reason=\"assigned\"}}");
        let counted = series(&process, &format!("reg4rec_experiment_assignments_total{labels}")).await;
        assert_eq!(counted, f64::from(count));
        let requests = format!("reg4rec_experiment_arm_requests_total{{arm=\"{arm}\",experiment=\"search\"}}");
        assert_eq!(series(&process, &requests).await, f64::from(count));
    }
    assert_eq!(series(&process, "reg4rec_experiment_srm_p_value{experiment=\"search\"}").await, 1.0);

    let named = v1::RecommendRequest { variant: "default".into(), ..reader("user-1") };
    assert_eq!(client.recommend(named).await.unwrap().into_inner().assignment, None);
    let nobody = v1::RecommendRequest { user_id: Vec::new(), ..reader("") };
    let answer = client.recommend(nobody).await.unwrap().into_inner();
    assert_eq!(told(&answer), ("", AssignmentReason::NotEligible));
    let batch = v1::RecommendBatchRequest { requests: vec![reader("user-0"), reader("user-1")] };
    let single = client.recommend(reader("user-1")).await.unwrap().into_inner().assignment;
    let results = client.recommend_batch(batch).await.unwrap().into_inner().results;
    let Some(v1::recommend_result::Outcome::Response(second)) = &results[1].outcome else { panic!("{results:?}") };
    assert_eq!(second.assignment, single);

    let output = process.ask(&["--user", "user-1", "--attribute", "country=DE", "--json"]);
    assert_eq!(json(&output)["assignment"]["reason"], "assigned");
    let page = String::from_utf8(process.ask(&["--user", "user-1"]).stdout).unwrap();
    assert!(page.contains("experiment search: ") && page.contains("(assigned)"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_is_forced_with_the_right_and_denied_without() {
    let home = tempfile::tempdir().unwrap();
    let (_process, mut client) = serve(home.path(), HALVES).await;
    let forced = |arm: &str, token: Option<&str>| {
        let mut request = Request::new(reader("user-1"));
        request.metadata_mut().insert("x-reg4rec-force-arm", arm.parse().unwrap());
        if let Some(token) = token {
            request.metadata_mut().insert("x-reg4rec-force-token", token.parse().unwrap());
        }
        request
    };
    for arm in ["control", "exact"] {
        let answer = client.recommend(forced(&format!("search={arm}"), Some(TOKEN))).await.unwrap().into_inner();
        assert_eq!(told(&answer), (arm, AssignmentReason::Forced));
        assert_eq!(answer.items[0].path.is_none(), arm == "exact");
    }
    for token in [None, Some(""), Some("another-token-of-bytes")] {
        let refused = client.recommend(forced("search=exact", token)).await.expect_err("accepted");
        assert_eq!(refused.code(), Code::PermissionDenied, "{token:?}");
        assert!(!format!("{refused:?}").contains(TOKEN));
    }
    for arm in ["search=nothing", "nothing=exact", "exact"] {
        let refused = client.recommend(forced(arm, Some(TOKEN))).await.expect_err("accepted");
        let named = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!((refused.code(), named[0].field.as_str()), (Code::InvalidArgument, "x-reg4rec-force-arm"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_without_its_variant_falls_back_and_one_that_does_harm_is_stopped() {
    let home = tempfile::tempdir().unwrap();
    let experiments = r#"
        [experiments.kill_switch]
        min_requests = 20
        [[experiments.experiment]]
        key = "model"
        arms = [{ name = "next", variant = "not-there" }]
        eligibility = [{ attribute = "test", equals = "model" }]
        [[experiments.experiment]]
        key = "narrow"
        arms = [{ name = "wide", weight = 0.0 }, { name = "narrow", weight = 1.0, decode = { beam = 1 } }]
        eligibility = [{ attribute = "test", equals = "narrow" }]
    "#;
    let (process, mut client) = serve(home.path(), experiments).await;
    let with = |id: &str, test: &str| {
        let entry = v1::recommend_request::AttributesEntry { key: "test".into(), value: test.into() };
        v1::RecommendRequest { attributes: vec![entry], ..reader(id) }
    };
    let answer = client.recommend(with("user-1", "model")).await.unwrap().into_inner();
    assert_eq!((told(&answer), answer.variant.as_str()), (("next", AssignmentReason::FallbackNotLoaded), "default"));
    assert_eq!(answer.items.len(), 10);
    let answer = client.recommend(with("user-1", "neither")).await.unwrap().into_inner();
    assert_eq!(told(&answer), ("", AssignmentReason::NotEligible));

    // Nothing is left for the arm to answer with: twenty empty answers are enough.
    let hungry = |at: usize| {
        let filter = v1::Filter { include_brands: vec!["nobody's".into()], ..Default::default() };
        v1::RecommendRequest { filter: Some(filter), ..with(&format!("user-{at}"), "narrow") }
    };
    let killed = "reg4rec_experiment_arm_killed{arm=\"narrow\",experiment=\"narrow\"}";
    assert_eq!(series(&process, killed).await, 0.0);
    for at in 0..20 {
        let answer = client.recommend(hungry(at)).await.unwrap().into_inner();
        assert_eq!((told(&answer), answer.items.len()), (("narrow", AssignmentReason::Assigned), 0));
    }
    assert_eq!(series(&process, killed).await, 1.0);
    let answer = client.recommend(with("user-1", "narrow")).await.unwrap().into_inner();
    assert_eq!((told(&answer), answer.items.len()), (("narrow", AssignmentReason::Killed), 10));
}

#[test]
fn experiments_that_are_wrong_keep_a_server_from_starting() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("settings.toml");
    std::fs::write(&file, "[[experiments.experiment]]\nkey = \"k\"\narms = [{ name = \"a\", weight = 0.4 }]\n")
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_reg4rec-server")).arg("--config").arg(&file).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    let expected = "experiments.experiment[0].arms.weight is 0.4 in sum: expected 1 (from 0.99 to 1.01)";
    assert!(told.contains(expected), "{told}");
}

fn assign(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reg4rec")).args(["experiment", "assign"]).args(flags).output().unwrap()
}

fn json(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text:?}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The numbers of the first `ranges`, from the text: serde_json may miss the last bit of a long one, `parse` does not.
fn ranges(json: &str) -> Vec<f64> {
    let json = json.replace(' ', "");
    let (_, after) = json.split_once("\"ranges\":[[").unwrap();
    let (pairs, _) = after.split_once("]]").unwrap();
    pairs.split(['[', ']', ',']).filter(|part| !part.is_empty()).map(|number| number.parse().unwrap()).collect()
}

#[test]
fn the_tool_assigns_as_the_published_vectors_say() {
    let published = include_str!("../vectors/assignment.json");
    let vectors: Value = serde_json::from_str(published).unwrap();
    // One a line; the last comma belongs to the list.
    let splits: Vec<&str> = published.lines().filter(|line| line.contains("\"coverage\": ")).collect();
    assert!(splits.len() > 20);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let buckets = vectors["buckets"].as_array().unwrap().iter().step_by(7);
    for (bucket, line) in buckets.zip(splits) {
        let split: Value = serde_json::from_str(line.trim().trim_end_matches(',')).unwrap();
        let mut flags = vec!["--seed".into(), text(&bucket["seed"]), "--unit".into(), text(&bucket["unit"])];
        flags.extend(["--hash-version".into(), text(&bucket["version"]), "--arms".into(), text(&split["arms"])]);
        flags.extend(["--coverage".into(), text(&split["coverage"]), "--json".into()]);
        if let Some(weights) = split["weights"].as_array() {
            let list: Vec<String> = weights.iter().map(Value::to_string).collect();
            flags.extend(["--weights".into(), list.join(",")]);
        }
        let output = assign(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{flags:?} {output:?}");
        let assigned = json(&output);
        let number = |value: &Value| value.as_f64().unwrap();
        let n = number(&bucket["bucket"]);
        assert_eq!(number(&assigned["bucket"]), n, "{flags:?}");
        let expected = ranges(line);
        assert_eq!(ranges(std::str::from_utf8(&output.stdout).unwrap()), expected, "{flags:?}");
        let arm = expected.chunks(2).position(|pair| n >= pair[0] && n < pair[1]);
        assert_eq!(assigned["arm"].as_u64().map(|arm| arm as usize), arm, "{flags:?}");
        assert_eq!(assigned.as_object().unwrap().len(), 3);
    }
    let line = String::from_utf8(assign(&["--seed", "seed", "--unit", "a", "--arms", "2"]).stdout).unwrap();
    assert_eq!(line, "bucket 0.0505: arm 0 of 2, which has [0, 0.5)\n");
}

#[test]
fn weights_that_do_not_fit_count_as_equal_ones_and_the_tool_says_so() {
    for (arms, weights, expected) in [
        ("2", "0.4,0.1", &[0.0, 0.5, 0.5, 1.0][..]),
        ("2", "0.7,0.6", &[0.0, 0.5, 0.5, 1.0]),
        ("4", "0.4,0.4,0.2", &[0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0]),
        ("2", "0.4,0.5999", &[0.0, 0.4, 0.4, 0.9999]),
    ] {
        let output = assign(&["--seed", "s", "--unit", "u", "--arms", arms, "--weights", weights, "--json"]);
        assert!(output.status.success());
        assert_eq!(ranges(std::str::from_utf8(&output.stdout).unwrap()), expected);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            told.contains("--weights") && told.contains("equal ones are taken"),
            weights != "0.4,0.5999",
            "{told}"
        );
    }
}

#[test]
fn the_tool_refuses_what_it_would_have_to_guess() {
    for (flags, field) in [
        (&["--arms", "0"][..], "--arms"),
        (&["--arms", "-1"], "--arms"),
        (&["--arms", "many"], "--arms"),
        (&["--arms", "2", "--weights", "1.5,-0.5"], "--weights[1]"),
        (&["--arms", "2", "--weights", "-0.5,1.5"], "--weights[0]"),
        (&["--arms", "2", "--weights", "NaN,0.5"], "--weights[0]"),
        (&["--arms", "2", "--weights", "0.5,inf"], "--weights[1]"),
        (&["--arms", "2", "--weights", ""], "--weights[0]"),
        (&["--arms", "2", "--coverage", "all"], "--coverage"),
        (&["--arms", "2", "--coverage", "NaN"], "--coverage"),
        (&["--arms", "2", "--hash-version", "3"], "--hash-version"),
    ] {
        let all = [&["--seed", "s", "--unit", "u"], flags].concat();
        let plain = assign(&all);
        let told = String::from_utf8(plain.stderr).unwrap();
        assert!(!plain.status.success() && plain.stdout.is_empty(), "{flags:?}");
        assert!(told.contains(&format!("{field} is ")) && told.contains("expected"), "{flags:?}: {told}");
        let output = assign(&[&all[..], &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(json(&output)["error"]["violations"][0]["field"], field, "{flags:?}");
    }
}

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reg4rec")).args(arguments).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sets_experiments_that_run_at_once_and_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("state/experiments.json");
    let settings = HALVES.replace("[experiments]\n", &format!("[experiments]\npath = {:?}\n", book.to_str().unwrap()));
    let (process, mut client) = serve(home.path(), &settings).await;
    let file = home.path().join("next.toml");
    let set = |admin: &str, text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let fixed = ["experiment", "set", file.to_str().unwrap(), "--admin", admin, "--json"];
        tool(&[&fixed, more].concat())
    };
    let admin = process.admin().to_owned();
    let shown = String::from_utf8(tool(&["experiment", "get", "--admin", &admin]).stdout).unwrap();
    assert!(shown.starts_with("# version 0: the server's settings\n") && shown.contains("key = \"search\""), "{shown}");
    // What is told is a file that is taken.
    let checked = json(&set(&admin, &shown, &["--replaces", "0", "--check"]));
    assert_eq!((&checked["set"], &checked["current"]["version"]), (&false.into(), &0.into()));

    let everybody = "[[experiment]]\nkey = \"all\"\narms = [{ name = \"wide\", decode = { beam = 40 } }]\n";
    let changed = json(&set(&admin, everybody, &["--replaces", "0", "--note", "wider"]));
    assert_eq!((&changed["set"], &changed["current"]["version"]), (&true.into(), &1.into()));
    let answer = client.recommend(reader("ann")).await.unwrap().into_inner();
    assert_eq!(answer.assignment.as_ref().unwrap().experiment, "all");
    assert_eq!(told(&answer), ("wide", AssignmentReason::Assigned));

    let stale = set(&admin, "", &["--replaces", "0"]);
    assert_eq!(stale.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stale.stdout).contains("expected version 0"), "{stale:?}");
    let wrong = json(&set(&admin, &everybody.replace("beam = 40", "beam = 4000"), &[]));
    assert_eq!(wrong["error"]["violations"][0]["field"], "settings.experiment[0].arms[0].decode.beam");
    let answer = client.recommend(reader("ann")).await.unwrap().into_inner();
    assert_eq!(answer.assignment.unwrap().experiment, "all");

    // Killed, not told to stop.
    drop(process);
    let (process, mut client) = serve(home.path(), &settings).await;
    let answer = client.recommend(reader("ann")).await.unwrap().into_inner();
    assert_eq!(answer.assignment.unwrap().experiment, "all");
    assert_eq!(json(&set(process.admin(), "", &[]))["current"]["version"], 2);
    assert!(client.recommend(reader("ann")).await.unwrap().into_inner().assignment.is_none());
    let history = json(&tool(&["experiment", "get", "--admin", process.admin(), "--previous", "9", "--json"]));
    let versions: Vec<&Value> = history["previous"].as_array().unwrap().iter().map(|one| &one["version"]).collect();
    assert_eq!(versions, [1, 0]);
    assert_eq!(
        (&history["previous"][0]["note"], &history["previous"][0]["settings"]),
        (&"wider".into(), &everybody.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_file_for_experiments_takes_none() {
    let home = tempfile::tempdir().unwrap();
    let (process, _) = serve(home.path(), HALVES).await;
    let file = home.path().join("next.toml");
    std::fs::write(&file, "").unwrap();
    let refused = tool(&["experiment", "set", file.to_str().unwrap(), "--admin", process.admin(), "--json"]);
    assert!(String::from_utf8_lossy(&refused.stdout).contains("experiments.path is not set"), "{refused:?}");
}
