//! The machine's clock jumps while a server runs: nobody is late for it, and no quota fills.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tonic::{Code, Request};

use reg4rec::server::NewKey;
use reg4rec::wire::client::EventServiceClient;
use reg4rec::wire::v1;

use crate::bundle;
use crate::fake::{Client, page_at};
use crate::operated::{PATIENCE, channel, request};
use crate::process::Process;

/// A library that tells a process another time; none where it is not installed, with the reason printed.
fn clockmaker() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let places = places.chain(["/usr/lib".into(), "/usr/local/lib".into()]);
    let found = places.map(|place| place.join("faketime/libfaketimeMT.so.1")).find(|library| library.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no libfaketime below /usr/lib (Debian: libfaketime)");
    }
    found
}

fn asking(key: &str) -> Request<v1::RecommendRequest> {
    let mut request = Request::new(request(""));
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request.set_timeout(Duration::from_secs(20));
    request
}

/// How long ago the server holds its bundle to have been made.
async fn age(admin: &str) -> f64 {
    let (_, page) = page_at(admin, "/metrics").await;
    let line = page.lines().find(|line| line.starts_with("reg4rec_model_age_seconds")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_by_hours_makes_nobody_late_and_fills_no_quota() {
    let Some(library) = clockmaker() else { return };
    let home = tempfile::tempdir().unwrap();
    let (dir, told, log) = (home.path().join("tiny"), home.path().join("clock"), home.path().join("log"));
    bundle::write(&dir, 0.0);
    let set = |offset: &str| {
        let draft = home.path().join("clock.draft");
        std::fs::write(&draft, format!("{offset}\n")).unwrap();
        std::fs::rename(draft, &told).unwrap();
    };
    set("+0");
    let (many, few) = (NewKey::make("many").unwrap(), NewKey::make("few").unwrap());
    let settings = home.path().join("settings.toml");
    let key = |key: &NewKey, name: &str, more: &str| {
        let hash = key.hash.text();
        format!("[[server.key]]\nname = {name:?}\nhash = {hash:?}\nroles = [\"recommend\", \"events\"]\n{more}\n")
    };
    let keys = [key(&many, "many", ""), key(&few, "few", "requests_per_second = 0.001\nburst = 1")];
    std::fs::write(&settings, keys.concat()).unwrap();
    let clock = told.clone();
    let process = tokio::task::spawn_blocking(move || {
        Process::start_with(&dir, |command: &mut Command| {
            command.arg("--config").arg(settings).env("REG4REC__EVENTS__PATH", log);
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
            // Only what a time server sets jumps.
            command
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        })
    });
    let process = process.await.unwrap();
    let to = channel(&process.public).await;
    assert!(Client::new(to.clone()).recommend(asking(few.reveal())).await.is_ok());
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let (mut client, key) = (Client::new(to.clone()), many.reveal().to_owned());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.recommend(asking(&key)).await.expect("a request failed when the clock jumped");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut shop = EventServiceClient::new(to.clone());
    let first = age(process.admin()).await;
    for (offset, hours) in [("+6h", 6.0), ("-3h", -3.0), ("+0", 0.0)] {
        set(offset);
        let began = Instant::now();
        // A bundle of the future counts as made just now.
        let expected = (first + hours * 3600.0).max(0.0);
        while (age(process.admin()).await - expected).abs() > 600.0 {
            assert!(began.elapsed() < PATIENCE, "{offset} was never seen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let before = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < before + 40 {
            assert!(began.elapsed() < PATIENCE, "nobody is answered after {offset}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let event = v1::Event { item_id: "item-3".into(), ..Default::default() };
        let events = vec![v1::UserEvent { user_id: "u".into(), event: Some(event) }];
        let mut record = Request::new(v1::RecordRequest { events });
        record.metadata_mut().insert("authorization", format!("Bearer {}", many.reveal()).parse().unwrap());
        shop.record(record).await.unwrap_or_else(|status| panic!("after {offset}: {status:?}"));
        // Its one request is spent, whatever hour it is.
        let status = Client::new(to.clone()).recommend(asking(few.reveal())).await.expect_err("the quota was filled");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let (_, page) = page_at(process.admin(), "/metrics").await;
    for place in ["answer", "dequeue", "enqueue", "step"] {
        let line = format!("reg4rec_deadline_exceeded_total{{where=\"{place}\"}} 0");
        assert!(page.contains(&line), "{line} is not there");
    }
}
