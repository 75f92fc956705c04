//! A registry in an object store: followed, refused by name, mirrored against its absence, and written by who operates.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use reg4rec::artifact::BundleRegistry;
use reg4rec::wire::v1;

use crate::bundle;
use crate::operated::{Operated, PATIENCE, place, registry};
use crate::outside::Outside;
use crate::process::{Process, anything};

const BUCKET: &str = "bundles";
const REGISTRY: &str = "s3://bundles/shop";
const SECRET: &str = "never-to-be-logged";

/// One request to the store, as anybody may send it there; the body of the answer.
fn ask(port: u16, method: &str, key: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let sign = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let head = format!(
        "{method} /{BUCKET}{key} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {sign}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.split(' ').nth(1) == Some("200"), "{method} {key}: {answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn upload(port: u16, dir: &Path, version: &str, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let bytes = change(std::fs::read(dir.join(file)).unwrap());
    ask(port, "PUT", &format!("/shop/default/{version}/{file}"), &bytes);
}

fn current(port: u16) -> String {
    ask(port, "GET", "/shop/default/current", b"").trim().to_owned()
}

fn with_store(command: &mut Command, port: u16) {
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_REGION", "us-east-1");
    command.env("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")).env("AWS_ALLOW_HTTP", "true");
}

fn publish(port: u16, dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
    command.args(["bundle", "publish", "--registry", REGISTRY, "--variant", "default", "--bundle"]).arg(dir);
    with_store(&mut command, port);
    command.output().unwrap()
}

fn follower(url: &str, cache: &Path, port: u16) -> Command {
    let mut command = anything();
    command.args(["--registry", url, "--registry-cache"]).arg(cache).env("REG4REC__REGISTRY__POLL_MS", "50");
    with_store(&mut command, port);
    command
}

async fn started(home: tempfile::TempDir, mut command: Command) -> Operated {
    let process = tokio::task::spawn_blocking(move || Process::spawn(&mut command, true)).await.unwrap();
    Operated { registry: BundleRegistry::new(home.path().join("nothing")), home, process }
}

/// Waits until a bundle is refused for a reason that holds this text; its stage.
async fn refused_for(server: &Operated, text: &str) -> String {
    let began = Instant::now();
    loop {
        if let Some(refused) = server.variant("default").await.refused.filter(|one| one.reason.contains(text)) {
            return refused.stage;
        }
        assert!(began.elapsed() < PATIENCE, "nothing was refused for {text:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_logged(server: &Operated, text: &str) {
    let began = Instant::now();
    while !server.process.logged.lock().unwrap().contains(text) {
        assert!(began.elapsed() < PATIENCE, "never logged {text:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_in_s3_is_followed_written_and_missed_without_harm() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut store) = Outside::s3(&home.path().join("store")) else { return };
    let port = store.port;
    let made = ["v1", "v2", "v3"].map(|version| {
        let dir = home.path().join("made").join(version);
        bundle::write_version(&dir, version, 0.0);
        dir
    });
    ask(port, "PUT", "", b"");
    let published = publish(port, &made[0]);
    assert!(published.status.success(), "{published:?}");
    let cache = home.path().join("cache");
    let server = started(home, follower(REGISTRY, &cache, port)).await;
    assert_eq!(server.answering("").await, "v1");

    // Half of an upload that is pointed at, then one whose hash is wrong: refused by name, and mended in place.
    for file in ["weights.safetensors", "codebooks.safetensors", "golden.json", "warmup.json", "manifest.json"] {
        upload(port, &made[1], "v2", file, |bytes| bytes);
    }
    ask(port, "PUT", "/shop/default/current", b"v2\n");
    assert_eq!(refused_for(&server, "items.parquet: missing").await, "fetch");
    let flipped = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    upload(port, &made[1], "v2", "items.parquet", |bytes| bytes[..bytes.len() / 2].to_vec());
    assert_eq!(refused_for(&server, "bytes, the manifest says").await, "fetch");
    upload(port, &made[1], "v2", "items.parquet", flipped);
    assert_eq!(refused_for(&server, "items.parquet: sha256").await, "fetch");
    assert_eq!(server.answering("").await, "v1");
    upload(port, &made[1], "v2", "items.parquet", |bytes| bytes);
    server.until_answered_by("", "v2").await;

    // Who operates writes the store's pointer.
    let back = v1::RollbackRequest { variant: "default".into() };
    assert!(server.operator().await.rollback(back).await.unwrap().into_inner().pointed);
    assert_eq!((server.answering("").await.as_str(), current(port).as_str()), ("v1", "v1"));
    let there = v1::PromoteRequest { variant: "default".into(), version: "v2".into() };
    server.operator().await.promote(there).await.unwrap();
    assert_eq!((server.answering("").await.as_str(), current(port).as_str()), ("v2", "v2"));
    let nowhere = v1::PromoteRequest { variant: "default".into(), version: "v9".into() };
    let status = server.operator().await.promote(nowhere).await.expect_err("promoted what is not there");
    assert!(status.message().contains("manifest.json: missing"), "{status:?}");

    // The store is gone: what serves goes on, and it is said. It comes back, empty, and is filled anew.
    let reachable = "reg4rec_registry_reachable";
    assert_eq!(server.series(reachable).await, Some(1.0));
    store.kill();
    until_logged(&server, "the registry is away").await;
    assert_eq!(server.series(reachable).await, Some(0.0));
    assert!(server.series("reg4rec_registry_errors_total").await.unwrap() >= 1.0);
    assert_eq!(server.answering("").await, "v2");
    store.begin();
    until_logged(&server, "the registry answers again").await;
    assert_eq!(server.answering("").await, "v2");
    ask(port, "PUT", "", b"");
    let published = publish(port, &made[2]);
    assert!(published.status.success(), "{published:?}");
    server.until_answered_by("", "v3").await;
    assert_eq!(server.series(reachable).await, Some(1.0));
    assert!(!server.process.logged.lock().unwrap().contains(SECRET));

    // A server that starts while the store is away serves what it has.
    store.kill();
    let Operated { home, process, .. } = server;
    drop(process);
    let server = started(home, follower(REGISTRY, &cache, port)).await;
    assert_eq!(server.answering("").await, "v3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_behind_a_plain_web_server_is_followed() {
    let (home, registry) = registry();
    place(&registry, "default", "v1");
    registry.point("default", "v1").unwrap();
    let Some(web) = Outside::web(registry.root()) else { return };
    let url = format!("http://127.0.0.1:{}", web.port);
    let cache = home.path().join("cache");
    let server = started(home, follower(&url, &cache, web.port)).await;
    assert_eq!(server.answering("").await, "v1");
    let dir = place(&registry, "default", "v2");
    let sound = std::fs::read(dir.join("weights.safetensors")).unwrap();
    std::fs::write(dir.join("weights.safetensors"), &sound[1..]).unwrap();
    registry.point("default", "v2").unwrap();
    assert_eq!(refused_for(&server, "weights.safetensors").await, "fetch");
    assert_eq!(server.answering("").await, "v1");
    std::fs::write(dir.join("weights.safetensors"), sound).unwrap();
    server.until_answered_by("", "v2").await;
}
