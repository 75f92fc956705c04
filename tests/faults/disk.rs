//! What clients, disks and operators do to a server: it goes on, or ends as it said it would.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use reg4rec::artifact::BundleRegistry;
use reg4rec::wire::client::{CatalogServiceClient, EventServiceClient};
use reg4rec::wire::v1;

use crate::bundle;
use crate::fake::{Client, Fake, settings, start_cold};
use crate::operated::{Operated, PATIENCE, channel, place, registry, request};
use crate::process::Process;

/// What an HTTP/2 client says first: its preface and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_other_end_is_gone_is_closed() {
    let mut settings = settings();
    (settings.keepalive_interval_ms, settings.keepalive_timeout_ms) = (200, 200);
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake::default()));
    // It greets, and answers no ping.
    let mut gone = TcpStream::connect(server.public).await.unwrap();
    gone.write_all(HELLO).await.unwrap();
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), gone.read_to_end(&mut said)).await;
    assert!(read.is_ok(), "the connection is still open after {} bytes", said.len());
    assert!(server.answers().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_under_load_it_loses_no_accepted_request_and_waits_for_no_client() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let lag = |command: &mut Command| {
        command.env("REG4REC__SERVER__DRAIN_LAG_MS", "300").env("REG4REC__SERVER__DRAIN_LIMIT_MS", "5000");
    };
    let mut process = tokio::task::spawn_blocking(move || Process::start_with(&dir, lag)).await.unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (address, answered) = (process.public.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut client = Client::new(channel(&address).await);
                loop {
                    match client.recommend(request("")).await {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::SeqCst)),
                        Err(status) => return status,
                    }
                }
            })
        })
        .collect();
    // Clients that never close: an idle connection, and a stream in the middle.
    let idle = TcpStream::connect(process.public.trim_start_matches("http://")).await.unwrap();
    let (send, requests) = mpsc::channel(4);
    let mut streaming = Client::new(channel(&process.public).await);
    send.send(request("")).await.unwrap();
    let mut answers = streaming.recommend_stream(ReceiverStream::new(requests)).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    while answered.load(Ordering::SeqCst) < 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let pid = process.child.id().to_string();
    let before = answered.load(Ordering::SeqCst);
    let began = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    for caller in callers {
        let status = caller.await.unwrap();
        // Refused, or not reached, or not sent yet when the connection was closed (as hyper says); never begun and lost.
        let unsent = status.code() == Code::Cancelled && format!("{status:?}").contains("connection closed");
        assert!(status.code() == Code::Unavailable || unsent, "{status:?}");
    }
    let ended = tokio::task::spawn_blocking(move || process.ended()).await.unwrap();
    assert!(ended.success(), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(answered.load(Ordering::SeqCst) > before, "within the lag nobody was answered");
    let over = answers.message().await.expect_err("the stream goes on");
    assert_eq!(over.code(), Code::Unavailable, "{over:?}");
    drop((idle, send));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupted_bundle_published_under_traffic_fails_no_request() {
    let server = Operated::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, address) = (Arc::clone(&stop), server.process.public.clone());
            tokio::spawn(async move {
                let mut client = Client::new(channel(&address).await);
                let mut answers = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.recommend(request("")).await.expect("a request failed").into_inner();
                    assert_eq!(answer.bundle_version, "v1");
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    for (version, file) in [("v2", "weights.safetensors"), ("v3", "items.parquet"), ("v4", "codebooks.safetensors")] {
        let dir = place(&server.registry, "default", version);
        let path = dir.join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        server.registry.point("default", version).unwrap();
        let (stage, reason) = server.until_refused("default", &dir).await;
        assert!(stage == "verify" && reason.contains(file), "{stage}: {reason}");
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
}

/// A file system of one megabyte; none where it cannot be had, with the reason printed.
struct SmallDisk {
    home: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(home.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { home }),
            Ok(output) => {
                eprintln!("skipped: no small file system: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("skipped: no small file system: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let mut size = 64 << 10;
        for at in 0.. {
            if std::fs::write(self.path().join(format!("filler-{at}")), vec![0; size]).is_err() {
                size /= 2;
            }
            if size == 0 {
                return;
            }
        }
    }

    fn free(&self) {
        for entry in std::fs::read_dir(self.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with("filler-") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(self.home.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_events_are_refused_and_recommendations_go_on() {
    let Some(disk) = SmallDisk::mount() else { return };
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let log = disk.path().join("log");
    let settings = move |command: &mut Command| {
        command.env("REG4REC__EVENTS__PATH", log);
    };
    let process = tokio::task::spawn_blocking(move || Process::start_with(&dir, settings)).await.unwrap();
    let to = channel(&process.public).await;
    let record = async || {
        let event = v1::Event { item_id: "item-3".into(), ..Default::default() };
        let event = v1::UserEvent { user_id: "u".repeat(200).into(), event: Some(event) };
        let events = vec![event; 1000];
        EventServiceClient::new(to.clone()).record(v1::RecordRequest { events }).await
    };
    record().await.unwrap();
    disk.fill();
    let began = Instant::now();
    let refused = loop {
        match record().await {
            Ok(_) => assert!(began.elapsed() < PATIENCE, "a full disk takes events"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    Client::new(to.clone()).recommend(request("")).await.unwrap();
    disk.free();
    // It is refused until the log can be written again.
    while let Err(status) = record().await {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(began.elapsed() < PATIENCE, "with room again it still takes no events");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_changes_of_items_are_refused_whole_and_those_acknowledged_stay() {
    let Some(disk) = SmallDisk::mount() else { return };
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("model-artifacts/demo");
    let log = disk.path().join("catalogue");
    let start = || {
        let (demo, log) = (demo.clone(), log.clone());
        let settings = move |command: &mut Command| {
            command.env("REG4REC__CATALOGUE__PATH", log);
        };
        tokio::task::spawn_blocking(move || Process::start_with(&demo, settings))
    };
    let process = start().await.unwrap();
    let to = channel(&process.public).await;
    // Several records of one call: they are taken all, or none.
    let upsert = async |round: usize| {
        let item = |at: usize| v1::CatalogItem {
            item_id: format!("new-{round}-{at}").into(),
            title: "A hat".into(),
            text: vec![b'a'; 20_000],
            ..Default::default()
        };
        let items = (0..3).map(item).collect();
        CatalogServiceClient::new(to.clone()).upsert_items(v1::UpsertItemsRequest { items }).await
    };
    upsert(0).await.unwrap();
    disk.fill();
    let (began, mut taken) = (Instant::now(), 1);
    let refused = loop {
        match upsert(taken).await {
            Ok(_) => taken += 1,
            Err(status) => break status,
        }
        assert!(began.elapsed() < PATIENCE, "a full disk takes items");
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let listed = async |to: &tonic::transport::Channel, id: String| {
        let asked = v1::GetItemRequest { item_id: id.into() };
        CatalogServiceClient::new(to.clone()).get_item(asked).await.is_ok()
    };
    assert!(!listed(&to, format!("new-{taken}-0")).await, "what was refused is served");
    assert!(Client::new(to.clone()).recommend(request("")).await.is_ok());
    disk.free();
    while let Err(status) = upsert(taken).await {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(began.elapsed() < PATIENCE, "with room again it still takes no items");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(process);
    let process = start().await.unwrap();
    let to = channel(&process.public).await;
    for round in 0..=taken {
        for at in 0..3 {
            assert!(listed(&to, format!("new-{round}-{at}")).await, "new-{round}-{at} of {taken} rounds is lost");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_while_a_bundle_is_published_shows_no_half_of_one() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (home, _) = registry();
    let registry = BundleRegistry::new(disk.path().join("registry"));
    place(&registry, "default", "v1");
    registry.point("default", "v1").unwrap();
    let server = Operated::follow(home, registry, |_| {}).await;
    let made = server.home.path().join("made");
    bundle::write_version(&made, "v2", 0.0);
    disk.fill();
    let refused = server.registry.publish(&made, "default", None).expect_err("published to a full disk");
    assert!(!refused.to_string().is_empty());
    assert_eq!(server.registry.current("default").unwrap().as_deref(), Some("v1"), "the pointer moved");
    assert!(!server.registry.directory("default", "v2").unwrap().exists(), "half of a bundle can be seen");
    assert_eq!(server.answering("").await, "v1");
    disk.free();
    server.registry.publish(&made, "default", None).unwrap();
    server.until_answered_by("", "v2").await;
}
