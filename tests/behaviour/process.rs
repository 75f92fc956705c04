//! The binaries as a person starts them: a bundle is served, asked, refused when it is damaged, and told to stop.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::transport::Channel;

use reg4rec::wire::v1;

use crate::bundle;
use crate::fake::{Client, page_at};

/// A server process; killed when dropped.
pub struct Process {
    pub child: Child,
    pub public: String,
    pub admin: String,
    /// What it logged so far.
    pub logged: Arc<Mutex<String>>,
    /// Kept open while the server runs.
    _said: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts on free ports and waits until it says that it is ready.
    pub fn start(bundle: &Path) -> Self {
        Self::start_with(bundle, |_| ())
    }

    /// The same with more settings.
    pub fn start_with(bundle: &Path, settings: impl FnOnce(&mut Command)) -> Self {
        let mut command = server(bundle);
        settings(&mut command);
        Self::spawn(&mut command, true)
    }

    /// Starts a server; waits until it says that it is ready, or only until it is bound.
    pub fn spawn(command: &mut Command, ready: bool) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (logged, log) = (Arc::<Mutex<String>>::default(), child.stderr.take().unwrap());
        let written = Arc::clone(&logged);
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let mut written = written.lock().unwrap();
                written.push_str(&line);
                written.push('\n');
            }
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = |name: &str| {
            let line = lines.by_ref().map(|line| line.unwrap()).find(|line| line.starts_with(name));
            let line = line.unwrap_or_else(|| panic!("never said {name:?}"));
            line.split_whitespace().last().unwrap().to_owned()
        };
        let (public, admin) = (said("gRPC"), said("admin"));
        if ready {
            said("ready");
        }
        Self { child, public, admin, logged, _said: lines }
    }

    /// Waits until the process has ended.
    pub fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(began.elapsed() < Duration::from_secs(60), "still running"),
            }
            std::thread::yield_now();
        }
    }

    /// The admin port's address, without its scheme.
    pub fn admin(&self) -> &str {
        self.admin.trim_start_matches("http://")
    }

    pub fn ask(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
        command.args(["ask", "--timeout", "20000", "--server", &self.public]).args(more).output().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server(bundle: &Path) -> Command {
    let mut command = anything();
    command.arg("--bundle").arg(bundle);
    command
}

/// A server that has not been told what to serve.
pub fn anything() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec-server"));
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    // Few shapes to warm: the tests' build is slow.
    command.env("REG4REC__ENGINE__WARMUP_BATCHES", "[1, 8]").env("REG4REC__ENGINE__WARMUP_HISTORIES", "[2]");
    command.env("REG4REC__RECOMMEND__MAX_DEADLINE_MS", "60000").env("REG4REC__SERVER__DRAIN_LAG_MS", "50");
    command.stderr(Stdio::piped());
    command
}

/// Why a server did not start.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

pub fn json(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?} {output:?}"))
}

#[test]
fn a_bundle_is_served_as_its_search_answers_and_the_process_ends_with_zero() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    let expected = bundle::write(&dir, 0.0);
    let mut process = Process::start(&dir);

    let output = process.ask(&["--history", "item-3,item-7", "-k", "5", "--explain", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let answer = json(&output);
    assert_eq!((&answer["variant"], &answer["bundle_version"]), (&"default".into(), &"1".into()));
    let items = answer["items"].as_array().unwrap();
    let wanted = expected.answer(&[3, 7], 5);
    assert_eq!(items.len(), wanted.len());
    for (item, (id, score)) in items.iter().zip(wanted) {
        assert_eq!(item["item_id"], Value::from(id));
        assert!((item["score"].as_f64().unwrap() - f64::from(score)).abs() < 1e-4, "{item}, expected {score}");
        assert!(!item["path"]["steps"].as_array().unwrap().is_empty());
    }

    let table = process.ask(&["--history", "item-3,item-7", "-k", "3", "--exclude-seen", "--explain"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("Thing ") && table.contains("bundle 1"), "{table}");
    assert!(!table.contains("item-3 ") && !table.contains("item-7 "), "{table}");

    let stranger = json(&process.ask(&["--user", "nobody", "--json"]));
    assert_eq!((&stranger["cold_start"], &stranger["items"][0]["item_id"]), (&true.into(), &"item-0".into()));
    let refused = process.ask(&["--user", "u", "-k", "0", "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(json(&refused)["error"]["violations"][0]["field"], "k");

    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = process.ended();
    assert!(ended.success(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_share_batches_and_each_gets_its_own_answer() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let process = tokio::task::spawn_blocking(move || Process::start(&dir)).await.unwrap();
    let client = Client::new(Channel::from_shared(process.public.clone()).unwrap().connect().await.unwrap());
    let ask = |at: usize| {
        let mut client = client.clone();
        let event = |item: usize| v1::Event { item_id: format!("item-{}", item % 59).into(), ..Default::default() };
        let history = (0..1 + at % 7).map(|step| event(at * 5 + step * 11)).collect();
        async move {
            let request = v1::RecommendRequest { history, k: Some(10), ..Default::default() };
            client.recommend(request).await.unwrap().into_inner().items
        }
    };
    let mut singles = Vec::new();
    for at in 0..200 {
        singles.push(ask(at).await);
    }
    let together: Vec<_> = (0..200).map(|at| tokio::spawn(ask(at))).collect();
    for (single, answer) in singles.into_iter().zip(together) {
        let answer = answer.await.unwrap();
        let ids = |items: &[v1::Recommendation]| items.iter().map(|item| item.item_id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&single), ids(&answer));
        assert_eq!(single.len(), 10);
        for (one, other) in single.iter().zip(&answer) {
            assert!((one.score - other.score).abs() < 1e-4, "{one:?} {other:?}");
        }
    }
    let (_, metrics) = page_at(process.admin(), "/metrics").await;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    // And the bundle's one golden request.
    assert_eq!(value("reg4rec_batch_size_sum"), 401.0);
    assert!(value("reg4rec_batch_size_count") < 400.0, "no batch was larger than one");
}

#[test]
fn a_damaged_bundle_is_refused_by_file_and_reason() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let weights = dir.join("weights.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &sound[..sound.len() - 100]).unwrap();
    let told = refusal(&mut server(&dir));
    assert!(told.contains("weights.safetensors") && told.contains("bytes"), "{told}");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    std::fs::write(&weights, &flipped).unwrap();
    let told = refusal(&mut server(&dir));
    assert!(told.contains("weights.safetensors") && told.contains("sha256"), "{told}");
    let told = refusal(&mut server(&home.path().join("nowhere")));
    assert!(told.contains("nowhere"), "{told}");
}

#[test]
fn a_bundle_that_misses_its_golden_answers_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.5);
    let told = refusal(&mut server(&dir));
    assert!(told.contains("golden request 0") && told.contains("rank 0"), "{told}");
}

#[test]
fn settings_that_are_wrong_are_refused_before_anything_is_bound() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("settings.toml");
    std::fs::write(&file, "[server]\nlisen = \"127.0.0.1:1\"\n").unwrap();
    let told = refusal(server(home.path()).arg("--config").arg(&file));
    assert!(told.contains("lisen"), "{told}");
    let told = refusal(server(home.path()).args(["--device", "tpu"]));
    assert!(told.contains("device") && told.contains("tpu"), "{told}");
}

#[test]
fn the_tool_shows_and_verifies_a_bundle() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let run = |what: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
        command.args(["bundle", what]).arg(&dir).args(more).output().unwrap()
    };
    assert_eq!(json(&run("verify", &["--json"]))["items"], 300);
    assert_eq!(json(&run("show", &["--json"]))["manifest"]["name"], "tiny");
    assert!(String::from_utf8(run("verify", &[]).stdout).unwrap().contains("sound"));
    std::fs::remove_file(dir.join("items.parquet")).unwrap();
    let broken = run("verify", &[]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8(broken.stderr).unwrap().contains("items.parquet"));
}
