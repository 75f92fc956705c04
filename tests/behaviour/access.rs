//! Keys: who may call what, and how often; and that no log tells one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};
use tonic_types::StatusExt;

use reg4rec::server::{KeyConfig, NewKey, Role};
use reg4rec::wire::client::{AdminServiceClient, CatalogServiceClient, EventServiceClient};
use reg4rec::wire::v1;

use crate::bundle;
use crate::fake::{Fake, Running, settings, start_cold, user};
use crate::operated::channel;
use crate::process::{Process, json};

/// A key, and what the server knows of it.
fn key(name: &str, roles: &[Role]) -> (NewKey, KeyConfig) {
    let key = NewKey::make(name).unwrap();
    let hash = key.hash.clone();
    let config = KeyConfig { name: name.into(), hash, roles: roles.to_vec(), requests_per_second: None, burst: None };
    (key, config)
}

/// A request that says a key.
fn saying<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

async fn serving(keys: Vec<KeyConfig>, fake: Fake) -> Running {
    let mut settings = settings();
    settings.key = keys;
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(fake));
    server
}

fn reason(status: &Status) -> (Code, String) {
    (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}

#[tokio::test]
async fn a_call_needs_a_key_with_the_role_of_its_service() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (shop, shop_known) = key("shop", &[Role::Recommend]);
    let (pixel, pixel_known) = key("pixel", &[Role::Events]);
    let (keeper, keeper_known) = key("keeper", &[Role::Catalogue]);
    let fake = Fake { asked: Arc::clone(&asked), ..Fake::default() };
    let server = serving(vec![shop_known, pixel_known, keeper_known], fake).await;
    let mut client = server.client().await;

    let status = client.recommend(user("u")).await.expect_err("answered without a key");
    assert_eq!(reason(&status), (Code::Unauthenticated, "UNAUTHENTICATED".into()));
    let forged = format!("shop.{}", "0".repeat(64));
    let status = client.recommend(saying(user("u"), &forged)).await.expect_err("answered a forged key");
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = client.recommend(saying(user("u"), pixel.reveal())).await.expect_err("answered another role");
    assert_eq!(reason(&status), (Code::PermissionDenied, "DENIED".into()));
    assert!(status.message().contains("recommend"), "{}", status.message());
    assert_eq!(asked.load(Ordering::SeqCst), 0, "a refused call reached the recommender");
    client.recommend(saying(user("u"), shop.reveal())).await.unwrap();

    let mut events = EventServiceClient::new(server.channel().await);
    let status = events.record(saying(v1::RecordRequest::default(), shop.reveal())).await.expect_err("recorded");
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = events.record(saying(v1::RecordRequest::default(), pixel.reveal())).await.expect_err("recorded");
    assert_eq!(status.code(), Code::InvalidArgument, "the key was not enough: {status:?}");

    let mut items = CatalogServiceClient::new(server.channel().await);
    let status = items.upsert_items(saying(v1::UpsertItemsRequest::default(), shop.reveal())).await.expect_err("made");
    assert_eq!(reason(&status), (Code::PermissionDenied, "DENIED".into()));
    assert!(status.message().contains("catalogue"), "{}", status.message());
    let status =
        items.upsert_items(saying(v1::UpsertItemsRequest::default(), keeper.reveal())).await.expect_err("made");
    assert_eq!(status.code(), Code::InvalidArgument, "the key was not enough: {status:?}");

    // Balancers ask without a key; what the service looks like is told to any key.
    assert!(server.health("").await.is_some() && server.health("reg4rec.v1.CatalogService").await.is_some());
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let told = reflection.server_reflection_info(tokio_stream::once(ask.clone())).await;
    assert_eq!(told.expect_err("told").code(), Code::Unauthenticated);
    assert!(reflection.server_reflection_info(saying(tokio_stream::once(ask), pixel.reveal())).await.is_ok());

    let (_, page) = server.page("/metrics").await;
    for line in [
        r#"reg4rec_access_refused_total{reason="unauthenticated"} 3"#,
        r#"reg4rec_access_refused_total{reason="denied"} 3"#,
        r#"reg4rec_requests_total{code="UNAUTHENTICATED",method="Recommend",variant="none"} 2"#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn a_used_up_quota_is_told_and_touches_nobody_else() {
    let (shop, mut shop_known) = key("shop", &[Role::Recommend]);
    let (other, other_known) = key("other", &[Role::Recommend]);
    (shop_known.requests_per_second, shop_known.burst) = (Some(0.01), Some(3));
    let server = serving(vec![shop_known, other_known], Fake::default()).await;
    let mut client = server.client().await;
    client.recommend(saying(user("u"), shop.reveal())).await.unwrap();
    // A batch passes whole, and is owed.
    let batch = v1::RecommendBatchRequest { requests: (0..5).map(|_| user("u")).collect() };
    let answer = client.recommend_batch(saying(batch, shop.reveal())).await.unwrap().into_inner();
    assert_eq!(answer.results.len(), 5);
    let status = client.recommend(saying(user("u"), shop.reveal())).await.expect_err("answered");
    assert_eq!(reason(&status), (Code::ResourceExhausted, "OVER_QUOTA".into()));
    assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, "key:shop");
    // One to have, and three that are owed, at a hundredth a second.
    let after = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((350..=400).contains(&after.as_secs()), "{after:?}");
    client.recommend(saying(user("u"), other.reveal())).await.unwrap();
    let (_, page) = server.page("/metrics").await;
    for line in [
        r#"reg4rec_admission_rejected_total{client="shop",reason="quota"} 1"#,
        r#"reg4rec_admission_rejected_total{client="other",reason="quota"} 0"#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

/// What `reg4rec key new` prints.
fn made(name: &str, roles: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
    command.args(["key", "new", "--json", "--name", name]);
    for role in roles {
        command.args(["--role", role]);
    }
    let told = json(&command.output().unwrap());
    let text = |field: &str| told[field].as_str().unwrap().to_owned();
    (text("key"), text("hash"))
}

fn settings_file(home: &Path, keys: &[(&str, &str, &str)]) -> PathBuf {
    let table = |(name, hash, roles): &(&str, &str, &str)| {
        format!("[[server.key]]\nname = \"{name}\"\nhash = \"{hash}\"\nroles = {roles}\n")
    };
    let file = home.join("settings.toml");
    std::fs::write(&file, keys.iter().map(table).collect::<String>()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tool_makes_keys_that_let_it_in_and_no_log_tells_one() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let (shop, shop_hash) = made("shop", &["recommend"]);
    let (boss, boss_hash) = made("boss", &["admin", "recommend"]);
    let file = settings_file(
        home.path(),
        &[("shop", &shop_hash, "[\"recommend\"]"), ("boss", &boss_hash, "[\"admin\", \"recommend\"]")],
    );
    let token = "a token to force arms with";
    let process = tokio::task::spawn_blocking(move || {
        Process::start_with(&dir, |command| {
            command.arg("--config").arg(&file).env("REG4REC__LOG__FILTER", "trace");
            command.env("REG4REC__EXPERIMENTS__FORCE_TOKEN", token);
        })
    });
    let process = process.await.unwrap();

    let ask = |key: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
        command
            .args(["ask", "--history", "item-3", "--json", "--server", &process.public])
            .env_remove("REG4REC_API_KEY");
        if let Some(key) = key {
            command.env("REG4REC_API_KEY", key);
        }
        command.output().unwrap()
    };
    assert_eq!(json(&ask(None))["error"]["code"], "Unauthenticated");
    let wrong = format!("{shop}0");
    assert_eq!(json(&ask(Some(&wrong)))["error"]["code"], "Unauthenticated");
    assert_eq!(json(&ask(Some(&shop)))["items"].as_array().unwrap().len(), 10);

    let variants = |key: &str| {
        let named = home.path().join("key");
        std::fs::write(&named, format!("{key}\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
        command.args(["variants", "--json", "--admin", process.admin(), "--api-key-file"]).arg(named);
        json(&command.output().unwrap())
    };
    assert_eq!(variants(&shop)["error"]["code"], "PermissionDenied");
    assert_eq!(variants(&boss)["variants"][0]["name"], "default");
    let mut operator = AdminServiceClient::new(channel(&process.admin).await);
    let status = operator.drain(v1::DrainRequest {}).await.expect_err("drained without a key");
    assert_eq!(status.code(), Code::Unauthenticated);
    // Also the right key reaches no admin method on the public port.
    let mut public = AdminServiceClient::new(channel(&process.public).await);
    let status = public.drain(saying(v1::DrainRequest {}, &boss)).await.expect_err("drained by the public port");
    assert_eq!(status.code(), Code::Unimplemented);
    let mut client = crate::fake::Client::new(channel(&process.public).await);
    let mut forcing = saying(user("u"), &shop);
    forcing.metadata_mut().insert("x-reg4rec-force-arm", "none=none".parse().unwrap());
    forcing.metadata_mut().insert("x-reg4rec-force-token", token.parse().unwrap());
    assert!(client.recommend(forcing).await.is_err());

    let logged = process.logged.lock().unwrap().clone();
    assert!(logged.len() > 10_000, "the log is not as loud as this test needs it: {logged}");
    let secret = |key: &str| key.split_once('.').unwrap().1.to_owned();
    for (name, told) in [("shop", secret(&shop)), ("boss", secret(&boss)), ("token", token.into()), ("hash", boss_hash)]
    {
        assert!(!logged.contains(&told), "the log tells the secret of {name}");
    }
}

#[test]
fn a_key_without_a_name_or_a_role_is_refused() {
    for (arguments, named) in [
        (&["--name", "a b", "--role", "recommend"][..], "a b"),
        (&["--name", "a"], "--role"),
        (&["--name", "a", "--role", "king"], "king"),
        (&["--name", "a", "--role", "admin", "--rate", "0"], "--rate"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
        let output = command.args(["key", "new"]).args(arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains(named), "{arguments:?}: {told}");
    }
}
