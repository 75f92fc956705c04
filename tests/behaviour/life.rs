//! Bound, warm, serving, draining, gone: and what each says of itself.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};
use tonic_types::StatusExt;

use crate::fake::{Fake, page_at, settings, start, start_cold, user};

const SERVICE: &str = "reg4rec.v1.RecommendationService";

#[tokio::test]
async fn a_server_is_not_serving_until_it_is_warm() {
    let server = start_cold(settings(), Duration::from_secs(20)).await;
    for name in ["", SERVICE, "reg4rec.v1.EventService", "reg4rec.v1.CatalogService", "default"] {
        assert_eq!(server.health(name).await, Some(NotServing as i32), "{name:?}");
    }
    assert_eq!(server.health("nope").await, None);
    assert_eq!(server.page("/readyz").await.0, 503);
    assert_eq!(server.page("/healthz").await.0, 200);
    let status = server.client().await.recommend(user("u")).await.expect_err("answered");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());

    assert!(server.opener.open(Fake::default()));
    assert!(!server.opener.open(Fake::default()), "opened twice");
    assert!(server.answers().await);
    for name in ["", SERVICE, "reg4rec.v1.EventService", "reg4rec.v1.CatalogService", "default"] {
        // Health follows the phase on a task of its own.
        let began = Instant::now();
        while server.health(name).await != Some(Serving as i32) {
            assert!(began.elapsed() < Duration::from_secs(5), "{name:?} is still not serving");
        }
    }
    assert_eq!(server.page("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_drain_says_so_answers_on_and_lets_calls_end() {
    let mut settings = settings();
    settings.drain_lag_ms = 1500;
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake { delay: Duration::from_millis(2500), ..Fake::default() }));
    let (public, admin) = (server.public, server.admin);
    let mut early = server.client().await;
    let mut late = early.clone();
    let early = tokio::spawn(async move { early.recommend(user("early")).await });
    tokio::time::sleep(Duration::from_millis(200)).await;

    let ended = server.stop();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(page_at(&admin.to_string(), "/readyz").await, (503, "draining\n".to_owned()));
    // Within the lag a new call is taken, on a new connection too.
    assert!(TcpStream::connect(public).await.is_ok());
    let late = tokio::spawn(async move { late.recommend(user("late")).await });

    assert_eq!(early.await.unwrap().unwrap().into_inner().items.len(), 10);
    assert_eq!(late.await.unwrap().unwrap().into_inner().items.len(), 10);
    ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(public).await.is_err(), "still listening");
    assert!(TcpStream::connect(admin).await.is_err(), "still listening");
}

#[tokio::test]
async fn a_call_that_never_ends_cannot_hold_up_the_end() {
    let mut settings = settings();
    settings.drain_limit_ms = 300;
    let server = start_cold(settings, Duration::from_secs(600)).await;
    assert!(server.opener.open(Fake { delay: Duration::from_secs(600), ..Fake::default() }));
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.recommend(user("u")).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    server.stop().await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    call.abort();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let server = start(Fake::default()).await;
    let mut client = server.client().await;
    client.recommend(user("u")).await.unwrap();
    let began = Instant::now();
    server.stop().await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn those_who_only_look_on_do_not_hold_up_the_end_and_are_told_of_it() {
    let mut settings = settings();
    settings.drain_limit_ms = 30_000;
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake::default()));
    let mut watched = Vec::new();
    for name in ["", SERVICE, "default"] {
        let asked = HealthCheckRequest { service: name.into() };
        let mut told = HealthClient::new(server.channel().await).watch(asked).await.unwrap().into_inner();
        while told.message().await.unwrap().unwrap().status != Serving as i32 {}
        watched.push(told);
    }
    let mut reflected = Vec::new();
    for address in [server.public, server.admin] {
        let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
        let (send, asked) = mpsc::channel(1);
        let question = Some(MessageRequest::ListServices(String::new()));
        send.send(ServerReflectionRequest { host: String::new(), message_request: question }).await.unwrap();
        let mut client = ServerReflectionClient::new(channel.connect().await.unwrap());
        let mut told = client.server_reflection_info(ReceiverStream::new(asked)).await.unwrap().into_inner();
        assert!(told.message().await.unwrap().is_some());
        reflected.push((send, told));
    }

    let began = Instant::now();
    server.stop().await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for mut told in watched {
        let mut last = Serving as i32;
        while let Ok(Some(now)) = told.message().await {
            last = now.status;
        }
        assert_eq!(last, NotServing as i32);
    }
    for (send, mut told) in reflected {
        assert!(!matches!(told.message().await, Ok(Some(_))));
        drop(send);
    }
}

#[tokio::test]
async fn metrics_count_every_call_under_closed_labels() {
    let server = start(Fake::default()).await;
    let mut client = server.client().await;
    client.recommend(user("u")).await.unwrap();
    let nope = reg4rec::wire::v1::RecommendRequest { variant: "made-up".into(), ..user("u") };
    assert!(client.recommend(nope).await.is_err());
    assert!(client.recommend(user("")).await.is_err());
    let (status, text) = server.page("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"reg4rec_requests_total{code="OK",method="Recommend",variant="default"} 1"#,
        r#"reg4rec_requests_total{code="NOT_FOUND",method="Recommend",variant="none"} 1"#,
        r#"reg4rec_requests_total{code="INVALID_ARGUMENT",method="Recommend",variant="none"} 1"#,
        r#"reg4rec_requests_total{code="OK",method="RecommendBatch",variant="default"} 0"#,
        r#"reg4rec_request_duration_seconds_count{method="Recommend",variant="default"} 1"#,
        "reg4rec_inflight 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("made-up"));
}

#[tokio::test]
async fn the_admin_page_says_what_is_served_and_how_to_ask() {
    let server = start(Fake::default()).await;
    let (status, page) = server.page("/").await;
    assert_eq!(status, 200);
    for part in ["default (default)", "fake", "reg4rec ask --server", &server.public.to_string()] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let server = start(Fake::default()).await;
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    for path in ["/reg4rec.v1.RecommendationService/Nope", "/reg4rec.v1.Nope/Recommend"] {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<reg4rec::wire::v1::RecommendRequest, ()>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let status = grpc.unary(tonic::Request::new(user("u")), path, codec).await.expect_err("answered");
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    }
    assert!(server.answers().await);
}
