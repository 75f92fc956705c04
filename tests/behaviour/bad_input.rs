//! Whatever a caller sends, the server names what is wrong and lives on.

use tonic::{Code, Status};
use tonic_types::StatusExt;

use reg4rec::wire::v1;

use crate::fake::{Fake, Running, start, user};

/// Asks, and checks that the server answers the next caller.
async fn refused(server: &Running, request: v1::RecommendRequest) -> (Code, Vec<String>) {
    let status = server.client().await.recommend(request).await.expect_err("accepted");
    assert!(server.answers().await, "the server is gone after {status:?}");
    (status.code(), fields(&status))
}

fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    for wrong in &violations {
        assert!(!wrong.description.is_empty() && status.message().contains(&wrong.field), "{status:?}");
    }
    violations.into_iter().map(|wrong| wrong.field).collect()
}

fn event(item: &[u8]) -> v1::Event {
    v1::Event { item_id: item.to_vec(), ..Default::default() }
}

#[tokio::test]
async fn an_empty_request_names_user_and_history() {
    let server = start(Fake::default()).await;
    let (code, fields) = refused(&server, v1::RecommendRequest::default()).await;
    assert_eq!((code, fields), (Code::InvalidArgument, vec!["user_id".to_owned(), "history".to_owned()]));
}

#[tokio::test]
async fn k_of_zero_and_of_a_billion_are_refused() {
    let server = start(Fake::default()).await;
    for k in [0, 1_000_000_000] {
        let (code, fields) = refused(&server, v1::RecommendRequest { k: Some(k), ..user("u") }).await;
        assert_eq!((code, fields), (Code::InvalidArgument, vec!["k".to_owned()]));
    }
}

#[tokio::test]
async fn an_unknown_variant_is_not_found() {
    let server = start(Fake::default()).await;
    let (code, fields) = refused(&server, v1::RecommendRequest { variant: "nope".into(), ..user("u") }).await;
    assert_eq!((code, fields), (Code::NotFound, vec![]));
}

#[tokio::test]
async fn a_history_of_a_million_events_is_refused_by_name() {
    let server = start(Fake::default()).await;
    let time = Some(prost_types::Timestamp { seconds: 1_400_000_000, nanos: 0 });
    let history = vec![v1::Event { time, kind: 4, ..event(b"1234567") }; 1_000_000];
    let (code, fields) = refused(&server, v1::RecommendRequest { history, ..Default::default() }).await;
    assert_eq!((code, fields), (Code::InvalidArgument, vec!["history".to_owned()]));
}

#[tokio::test]
async fn a_message_of_64_megabytes_is_out_of_range() {
    let server = start(Fake::default()).await;
    let (code, _) =
        refused(&server, v1::RecommendRequest { user_id: vec![b'u'; 64 << 20], ..Default::default() }).await;
    assert_eq!(code, Code::OutOfRange);
}

#[tokio::test]
async fn ids_that_are_not_utf8_or_empty_and_nan_are_all_named_at_once() {
    let server = start(Fake::default()).await;
    let history = vec![
        event(b"fine"),
        event(&[0xff, 0xfe]),
        event(b""),
        v1::Event { kind: 6, value: Some(f32::NAN), ..event(b"rated") },
    ];
    let request = v1::RecommendRequest { user_id: vec![b'u', 0x80], history, k: Some(0), ..Default::default() };
    let (code, fields) = refused(&server, request).await;
    let expected = ["user_id", "history[1].item_id", "history[2].item_id", "history[3].value", "k"];
    assert_eq!((code, fields), (Code::InvalidArgument, expected.map(str::to_owned).to_vec()));
}

#[tokio::test]
async fn a_thousand_wrong_events_do_not_burst_the_headers() {
    let server = start(Fake::default()).await;
    let request = v1::RecommendRequest { history: vec![event(b""); 1000], ..Default::default() };
    let status = server.client().await.recommend(request).await.expect_err("accepted");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("1000 invalid fields"), "{}", status.message());
    assert!(server.answers().await);
}

#[tokio::test]
async fn overload_says_when_to_try_again() {
    let server = start(Fake::default()).await;
    let status = server.client().await.recommend(user("overload")).await.expect_err("accepted");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(after, Some(std::time::Duration::from_millis(1500)));
}

#[tokio::test]
async fn what_no_engine_has_time_for_is_refused_from_its_headers_with_all_that_a_refusal_says() {
    let fake = Fake { full: Some(std::time::Duration::from_secs(3)), ..Fake::default() };
    let asked = std::sync::Arc::clone(&fake.asked);
    let server = start(fake).await;
    let mut client = server.client().await;
    let within = |seconds| {
        let mut request = tonic::Request::new(user("u"));
        request.set_timeout(std::time::Duration::from_secs(seconds));
        request
    };
    let status = client.recommend(within(2)).await.expect_err("accepted");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(after, Some(std::time::Duration::from_millis(40)));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
    client.recommend(within(4)).await.unwrap();
    // Only calls of one request: each of a batch has its own answer.
    let mut batch = tonic::Request::new(v1::RecommendBatchRequest { requests: vec![user("u")] });
    batch.set_timeout(std::time::Duration::from_secs(2));
    assert_eq!(client.recommend_batch(batch).await.unwrap().into_inner().results.len(), 1);
    let (_, page) = server.page("/metrics").await;
    let counted = |line: &str| page.lines().any(|told| told.starts_with(line) && !told.ends_with(" 0"));
    assert!(counted("reg4rec_requests_total{code=\"RESOURCE_EXHAUSTED\",method=\"Recommend\""), "{page}");
    assert!(counted("reg4rec_admission_rejected_total{"), "{page}");
}

#[tokio::test]
async fn a_fault_gives_the_id_that_is_in_the_log_and_not_the_cause() {
    let server = start(Fake::default()).await;
    let request = v1::RecommendRequest { request_id: "r-77".into(), ..user("fault") };
    let status = server.client().await.recommend(request).await.expect_err("accepted");
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("r-77") && !status.message().contains("the cause"), "{}", status.message());
}

#[tokio::test]
async fn a_timeout_header_that_cannot_be_read_is_refused() {
    let server = start(Fake::default()).await;
    let mut request = tonic::Request::new(user("u"));
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let status = server.client().await.recommend(request).await.expect_err("accepted");
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["grpc-timeout".to_owned()]));
}

/// Field 1 of what it is sent as, many times and empty.
#[derive(Clone, PartialEq, prost::Message)]
struct Pairs {
    #[prost(bytes = "vec", repeated, tag = "1")]
    first: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    third: Vec<Vec<u8>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_millions_of_empty_entries_are_refused_by_name_before_they_are_read() {
    let server = start(Fake::default()).await;
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    let codec = tonic_prost::ProstCodec::<Pairs, v1::RecommendResult>::default;
    let empty = || vec![Vec::new(); 4_000_000];
    for (method, list) in [
        ("RecommendationService/RecommendBatch", "requests"),
        ("EventService/Record", "events"),
        ("CatalogService/UpsertItems", "items"),
    ] {
        grpc.ready().await.unwrap();
        let path = format!("/reg4rec.v1.{method}").parse().unwrap();
        let pairs = Pairs { first: empty(), third: Vec::new() };
        let status = grpc.unary(tonic::Request::new(pairs), path, codec()).await.expect_err("accepted");
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![list.to_owned()]), "{method}");
    }
    // A message of a stream as one that comes alone.
    grpc.ready().await.unwrap();
    let pairs = tokio_stream::once(Pairs { first: Vec::new(), third: empty() });
    let path = http::uri::PathAndQuery::from_static("/reg4rec.v1.RecommendationService/RecommendStream");
    let mut answers = grpc.streaming(tonic::Request::new(pairs), path, codec()).await.unwrap().into_inner();
    let status = answers.message().await.expect_err("accepted");
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["history".to_owned()]));
    assert!(server.answers().await);
}

#[tokio::test]
async fn a_batch_of_257_names_requests() {
    let server = start(Fake::default()).await;
    let requests = vec![user("u"); 257];
    let status = server.client().await.recommend_batch(v1::RecommendBatchRequest { requests }).await;
    let status = status.expect_err("accepted");
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["requests".to_owned()]));
}
