//! Disks that fill up.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tonic::Code;

use reg4rec::artifact::BundleRegistry;
use reg4rec::wire::client::{CatalogServiceClient, EventServiceClient};
use reg4rec::wire::v1;

use crate::bundle::{self, DEMO};
use crate::fake::Client;
use crate::operated::{Operated, PATIENCE, channel, place, registry, request};
use crate::process::Process;

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
    let demo = Path::new(DEMO);
    let log = disk.path().join("catalogue");
    let start = || {
        let log = log.clone();
        let settings = move |command: &mut Command| {
            command.env("REG4REC__CATALOGUE__PATH", log);
        };
        tokio::task::spawn_blocking(move || Process::start_with(demo, settings))
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
