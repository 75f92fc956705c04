//! From assignment to outcome: answers of an experiment's arms, what users did after them, and the report that joins both.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Request;
use tonic::transport::Channel;

use reg4rec::wire::client::EventServiceClient;
use reg4rec::wire::v1;

use crate::bundle;
use crate::fake::{Client, page_at, user};
use crate::process::Process;

const USERS: usize = 300;
const ARMS: [&str; 2] = ["control", "exact"];

const SETTINGS: &str = r#"
[experiments]
force_token = "a-token-of-many-bytes"
[[experiments.experiment]]
key = "search"
arms = [{ name = "control" }, { name = "exact", decode = { engine = "exact" } }]
eligibility = [{ attribute = "test", not_in = ["none"] }]
"#;

/// A server with an experiment and an event log.
struct Shop {
    process: Process,
    client: Client,
    events: EventServiceClient<Channel>,
}

impl Shop {
    async fn open(home: &Path) -> Self {
        let home = home.to_owned();
        let start = move || {
            Process::start_with(&home.join("tiny"), |server| {
                server.arg("--config").arg(home.join("settings.toml")).env("REG4REC__EVENTS__PATH", home.join("log"));
            })
        };
        let process = tokio::task::spawn_blocking(start).await.unwrap();
        let channel = Channel::from_shared(process.public.clone()).unwrap().connect().await.unwrap();
        Self { process, client: Client::new(channel.clone()), events: EventServiceClient::new(channel) }
    }

    async fn ask(&mut self, request: v1::RecommendRequest) -> Told {
        let answer = self.client.recommend(request).await.unwrap().into_inner();
        let assignment = answer.assignment.expect("no assignment");
        Told { request_id: answer.request_id, arm: ARMS.iter().position(|arm| *arm == assignment.arm) }
    }

    async fn record(&mut self, events: &[v1::UserEvent]) -> (u32, u32) {
        let request = v1::RecordRequest { events: events.to_vec() };
        let told = self.events.record(request).await.unwrap().into_inner();
        (told.recorded, told.duplicates)
    }

    /// Waits until so many exposures are in the log, of which nobody is told.
    async fn until_exposed(&self, count: usize) {
        for _ in 0..600 {
            let (_, page) = page_at(self.process.admin(), "/metrics").await;
            let value = |name: &str| {
                let found =
                    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
                found.unwrap_or_else(|| panic!("no series {name} in\n{page}"))
            };
            assert_eq!(value("reg4rec_exposures_dropped_total"), 0.0);
            if value("reg4rec_exposures_total") >= count as f64 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{count} exposures never came");
    }
}

/// What an answer says of itself.
struct Told {
    request_id: String,
    arm: Option<usize>,
}

/// A user with a history, so that the network answers.
fn reader(id: &str) -> v1::RecommendRequest {
    v1::RecommendRequest { history: vec![v1::Event { item_id: "item-3".into(), ..Default::default() }], ..user(id) }
}

fn event(who: &str, kind: v1::EventKind, id: &str, request: &str) -> v1::UserEvent {
    let event = v1::Event {
        item_id: "item-9".into(),
        kind: kind as i32,
        value: (kind == v1::EventKind::Purchase).then_some(2.5),
        event_id: id.into(),
        request_id: request.into(),
        ..Default::default()
    };
    v1::UserEvent { user_id: who.into(), event: Some(event) }
}

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reg4rec")).args(arguments).output().unwrap()
}

fn json_of(arguments: &[&str]) -> Value {
    let output = tool(arguments);
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{output:?}");
    serde_json::from_str(text).unwrap()
}

/// What the report is to say of one arm.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Sums {
    units: u64,
    impressions: u64,
    clicks: u64,
    clicked: u64,
    conversions: u64,
    value: f64,
}

fn sums(arm: &Value) -> Sums {
    let whole = |name: &str| arm[name].as_u64().unwrap_or_else(|| panic!("{name} of {arm}"));
    Sums {
        units: whole("units"),
        impressions: whole("impressions"),
        clicks: whole("clicks"),
        clicked: whole("clicked"),
        conversions: whole("conversions"),
        value: arm["value"].as_f64().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_joins_what_users_did_with_the_answers_of_each_arm_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (home, log): (&Path, PathBuf) = (folder.path(), folder.path().join("log"));
    bundle::write(&home.join("tiny"), 0.0);
    std::fs::write(home.join("settings.toml"), SETTINGS).unwrap();
    let mut shop = Shop::open(home).await;

    let (mut expected, mut events, mut exposures) = ([Sums::default(); 2], Vec::new(), 0);
    let mut last = None;
    for at in 0..USERS {
        let who = format!("user-{at}-");
        // Every third comes twice; what they do, they do after their last answer.
        for visit in 0..1 + usize::from(at % 3 == 0) {
            let told = shop.ask(reader(&who)).await;
            let arm = &mut expected[told.arm.unwrap()];
            arm.units += u64::from(visit == 0);
            arm.impressions += 1;
            exposures += 1;
            last = Some(told);
        }
        let Told { request_id, arm } = last.take().unwrap();
        let arm = &mut expected[arm.unwrap()];
        for click in 0..[2, 0, 1, 0][at % 4] {
            events.push(event(&who, v1::EventKind::Click, &format!("click-{at}-{click}"), &request_id));
            arm.clicks += 1;
            arm.clicked += u64::from(click == 0);
        }
        if at % 10 == 0 {
            events.push(event(&who, v1::EventKind::Purchase, &format!("purchase-{at}"), &request_id));
            arm.conversions += 1;
            arm.value += 2.5;
        }
    }
    // Not drawn for: no exposure. Forced: beside the comparison.
    let outside = v1::recommend_request::AttributesEntry { key: "test".into(), value: "none".into() };
    let outside = shop.ask(v1::RecommendRequest { attributes: vec![outside], ..reader("user-1-") }).await;
    assert_eq!(outside.arm, None);
    let mut forced = Request::new(reader("tester"));
    forced.metadata_mut().insert("x-reg4rec-force-arm", "search=exact".parse().unwrap());
    forced.metadata_mut().insert("x-reg4rec-force-token", "a-token-of-many-bytes".parse().unwrap());
    let forced = shop.client.recommend(forced).await.unwrap().into_inner().request_id;
    exposures += 1;

    let half = events.len() / 2;
    assert_eq!(shop.record(&events[..half]).await, (half as u32, 0));
    shop.until_exposed(exposures).await;
    drop(shop);
    let mut shop = Shop::open(home).await;
    // The first half again, as after a failure; the second follows answers from before the kill.
    let sent = shop.record(&events).await;
    assert_eq!(sent, ((events.len() - half) as u32, half as u32), "events are lost or counted twice");
    let joined = events.len() + 1;
    shop.record(&[
        event("tester", v1::EventKind::Click, "by-force", &forced),
        event("user-1-", v1::EventKind::Click, "of-none", &outside.request_id),
        event("user-1-", v1::EventKind::Click, "unheard", "no-such-request"),
        event("user-1-", v1::EventKind::Click, "alone", ""),
    ])
    .await;
    let told = shop.ask(reader("leaver")).await;
    shop.record(&[event("leaver", v1::EventKind::Click, "leaving", &told.request_id)]).await;
    shop.until_exposed(1).await;

    let path = log.to_str().unwrap();
    let picture = home.join("lift.svg");
    let flags = ["experiment", "report", "--log", path, "--json", "--picture", picture.to_str().unwrap()];
    let report = json_of(&flags);
    let counted = ["exposures", "repeated_exposures", "events", "repeated_events", "joined"].map(|name| &report[name]);
    let wanted = [exposures + 1, 0, events.len() + 5, 0, joined + 1].map(|count| json!(count));
    assert_eq!(counted, wanted.each_ref(), "{report}");
    assert_eq!(report["unjoined"], json!({"without_request_id": 1, "unknown_request_id": 2}));
    let search = &report["experiments"][0];
    assert_eq!(
        (&search["experiment"], &search["superseded"], &search["crossed"]),
        (&json!("search"), &json!(0), &json!(0))
    );
    let mut left = expected;
    let arm = &mut left[told.arm.unwrap()];
    (arm.units, arm.impressions, arm.clicks, arm.clicked) =
        (arm.units + 1, arm.impressions + 1, arm.clicks + 1, arm.clicked + 1);
    let arms = search["arms"].as_array().unwrap();
    assert_eq!(arms.iter().map(sums).collect::<Vec<_>>(), left, "{report}");
    assert_eq!(arms.iter().map(|arm| &arm["forced"]).collect::<Vec<_>>(), [&json!(0), &json!(1)]);
    assert!(search["sample_ratio_p"].as_f64().unwrap() > 0.001, "{search}");
    let lift = &arms[1]["over_control"]["ctr"];
    let rates = left.iter().map(|arm| arm.clicked as f64 / arm.impressions as f64).collect::<Vec<_>>();
    assert!((lift["difference"].as_f64().unwrap() - (rates[1] - rates[0])).abs() < 1e-12, "{lift}");
    let bounds = [&lift["difference_low"], &lift["difference_high"]].map(|bound| bound.as_f64().unwrap());
    assert!(bounds[0] < 0.0 && bounds[1] > 0.0, "arms of one network that differ: {lift}");
    let drawn = std::fs::read_to_string(&picture).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.trim_end().ends_with("</svg>") && drawn.contains("exact"), "{drawn}");
    assert!(drawn.contains("<polyline "), "{drawn}");
    let page = String::from_utf8(tool(&flags[..4]).stdout).unwrap();
    assert!(page.contains("exact over control, within the 95 % band") && page.contains("units by weights"), "{page}");

    // The one who leaves takes the exposure along.
    let gone = json_of(&["forget", "--admin", shop.process.admin(), "--user", "leaver", "--json"]);
    assert_eq!((&gone["logged_events"], &gone["logged_exposures"]), (&json!(1), &json!(1)));
    for entry in std::fs::read_dir(&log).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"leaver"));
    }
    let after = json_of(&["experiment", "report", "--log", path, "--experiment", "search", "--json"]);
    let arms = after["experiments"][0]["arms"].as_array().unwrap();
    assert_eq!(arms.iter().map(sums).collect::<Vec<_>>(), expected);
    let kept = json_of(&["events", "--log", path, "--json"]);
    assert_eq!((&kept["events"], &kept["exposures"]), (&json!(events.len() + 4), &json!(exposures)));
}

#[test]
fn a_report_says_what_it_cannot_do() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap();
    fn report<'a>(path: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["experiment", "report", "--log", path], more].concat()
    }
    let empty = json_of(&report(path, &["--json"]));
    assert_eq!((&empty["exposures"], &empty["experiments"]), (&json!(0), &json!([])));
    for (flags, field) in [
        (["--alpha", "0"], "--alpha"),
        (["--alpha", "-0.1"], "--alpha"),
        (["--alpha", "0.9"], "--alpha"),
        (["--tightest-at", "0"], "--tightest-at"),
        (["--experiment", "none"], "--experiment"),
    ] {
        let refused = tool(&report(path, &flags));
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && told.contains(&format!("{field} is ")), "{flags:?}: {told}");
        let refused = json_of(&report(path, &[&flags[..], &["--json"]].concat()));
        assert_eq!(refused["error"]["violations"][0]["field"], field, "{flags:?}");
    }
    let nowhere = tool(&["experiment", "report", "--log", "/no/such/log"]);
    assert!(!nowhere.status.success() && String::from_utf8(nowhere.stderr).unwrap().contains("/no/such/log"));
}
