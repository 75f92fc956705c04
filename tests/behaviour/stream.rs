//! RecommendStream: each request its answer or its status, in order, and no further read than answers are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use reg4rec::wire::client::EventServiceClient;
use reg4rec::wire::v1;
use reg4rec::wire::v1::recommend_result::Outcome;

use crate::fake::{Fake, Running, settings, start, start_cold, user};

/// A stream to the server: what it is sent, and what it answers.
async fn open(server: &Running) -> (mpsc::Sender<v1::RecommendRequest>, Streaming<v1::RecommendResult>) {
    open_for(server, None).await
}

/// The same, with the deadline of the call.
async fn open_for(
    server: &Running,
    timeout: Option<Duration>,
) -> (mpsc::Sender<v1::RecommendRequest>, Streaming<v1::RecommendResult>) {
    let (send, requests) = mpsc::channel(1);
    let mut call = tonic::Request::new(ReceiverStream::new(requests));
    timeout.into_iter().for_each(|timeout| call.set_timeout(timeout));
    let answers = server.client().await.recommend_stream(call).await.unwrap().into_inner();
    (send, answers)
}

/// The code of the next answer.
async fn next(answers: &mut Streaming<v1::RecommendResult>) -> Code {
    match answers.message().await.unwrap().unwrap().outcome.unwrap() {
        Outcome::Response(_) => Code::Ok,
        Outcome::Status(status) => Code::from(status.code as i32),
    }
}

#[tokio::test]
async fn answers_come_in_order_and_a_bad_request_ends_no_stream() {
    let server = start(Fake { delay: Duration::from_millis(50), ..Fake::default() }).await;
    let (send, mut answers) = open(&server).await;
    let requests = [
        user("a"),
        v1::RecommendRequest { k: Some(0), ..user("b") },
        v1::RecommendRequest { variant: "nope".into(), ..user("c") },
        user("overload"),
        v1::RecommendRequest { user_id: vec![0xff], ..Default::default() },
        v1::RecommendRequest { k: Some(2), ..user("d") },
    ];
    for request in requests {
        send.send(request).await.unwrap();
    }
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(match answers.message().await.unwrap().unwrap().outcome.unwrap() {
            Outcome::Response(answer) => Ok(answer.items[0].item_id.clone()),
            Outcome::Status(status) => Err(Code::from(status.code as i32)),
        });
    }
    let [invalid, unknown, over] = [Code::InvalidArgument, Code::NotFound, Code::ResourceExhausted].map(Err);
    assert_eq!(told, [Ok("a-0".into()), invalid.clone(), unknown, over, invalid, Ok("d-0".into())]);
    // It is still open, and ends well when the client says that it is done.
    send.send(user("e")).await.unwrap();
    assert!(matches!(answers.message().await.unwrap().unwrap().outcome, Some(Outcome::Response(_))));
    drop(send);
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn requests_of_a_stream_are_worked_on_together() {
    let server = start(Fake { delay: Duration::from_millis(200), ..Fake::default() }).await;
    let (send, answers) = open(&server).await;
    let began = Instant::now();
    tokio::spawn(async move {
        for at in 0..100 {
            send.send(user(&format!("u{at}"))).await.unwrap();
        }
    });
    let told: Vec<_> = answers.map(|answer| answer.unwrap().outcome.unwrap()).collect().await;
    for (at, outcome) in told.iter().enumerate() {
        let Outcome::Response(answer) = outcome else { panic!("{outcome:?}") };
        assert_eq!(answer.items[0].item_id, format!("u{at}-0"));
    }
    assert_eq!(told.len(), 100);
    assert!(began.elapsed() < Duration::from_secs(10), "one after the other would take 20 s: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answers_is_not_read_and_holds_up_nobody() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = start(Fake { asked: Arc::clone(&asked), ..Fake::default() }).await;
    let (send, answers) = open(&server).await;
    // Large answers, so that the connection's window is soon full.
    let flood = tokio::spawn(async move {
        for _ in 0..100_000 {
            let request = v1::RecommendRequest { k: Some(1000), ..user(&"u".repeat(200)) };
            if send.send(request).await.is_err() {
                return;
            }
        }
    });
    let mut before = usize::MAX;
    let began = Instant::now();
    while before != asked.load(Ordering::SeqCst) {
        assert!(began.elapsed() < Duration::from_secs(30), "it is read on and on: {before}");
        before = asked.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!((10..1000).contains(&before), "{before} were read");
    assert!(server.answers().await);
    drop(answers);
    flood.abort();
    assert!(server.answers().await);
}

#[tokio::test]
async fn a_stream_that_is_never_closed_ends_with_the_server() {
    let server = start(Fake { delay: Duration::from_millis(300), ..Fake::default() }).await;
    let (send, mut answers) = open(&server).await;
    send.send(user("a")).await.unwrap();
    send.send(user("b")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let ended = server.stop();
    // What it had read it answers, and says why it ends.
    for id in ["a-0", "b-0"] {
        let Some(Outcome::Response(answer)) = answers.message().await.unwrap().unwrap().outcome else { panic!("{id}") };
        assert_eq!(answer.items[0].item_id, id);
    }
    assert_eq!(answers.message().await.expect_err("it goes on").code(), Code::Unavailable);
    ended.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(send);
}

#[tokio::test]
async fn a_request_of_a_stream_may_have_a_deadline_of_its_own() {
    let server = start(Fake { delay: Duration::from_millis(400), ..Fake::default() }).await;
    let (send, mut answers) = open(&server).await;
    let timeout = |nanos| Some(prost_types::Duration { seconds: 0, nanos });
    send.send(v1::RecommendRequest { timeout: timeout(50_000_000), ..user("a") }).await.unwrap();
    send.send(v1::RecommendRequest { timeout: timeout(-1), ..user("b") }).await.unwrap();
    send.send(user("c")).await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(next(&mut answers).await);
    }
    assert_eq!(codes, [Code::DeadlineExceeded, Code::InvalidArgument, Code::Ok]);
}

#[tokio::test]
async fn a_stream_lasts_longer_than_the_longest_call_where_its_caller_says_so() {
    let server = start_cold(settings(), Duration::from_secs(1)).await;
    assert!(server.opener.open(Fake::default()));
    for timeout in [Some(Duration::from_secs(60)), None] {
        let (send, mut answers) = open_for(&server, timeout).await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2500) {
            send.send(user("u")).await.unwrap();
            assert_eq!(next(&mut answers).await, Code::Ok, "{timeout:?}, after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(send);
        assert_eq!(answers.message().await.unwrap(), None);
    }
}

#[tokio::test]
async fn each_request_of_a_stream_may_take_the_longest_time_of_a_call() {
    let server = start_cold(settings(), Duration::from_secs(1)).await;
    assert!(server.opener.open(Fake { delay: Duration::from_secs(60), ..Fake::default() }));
    for timeout in [Some(Duration::from_secs(60)), None] {
        let (send, mut answers) = open_for(&server, timeout).await;
        for _ in 0..2 {
            let began = Instant::now();
            send.send(user("u")).await.unwrap();
            assert_eq!(next(&mut answers).await, Code::DeadlineExceeded, "{timeout:?}");
            let took = began.elapsed();
            assert!((Duration::from_millis(500)..Duration::from_secs(20)).contains(&took), "{timeout:?}: {took:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_deadline_of_its_call() {
    let server = start(Fake::default()).await;
    let (send, mut answers) = open_for(&server, Some(Duration::from_secs(3))).await;
    send.send(user("u")).await.unwrap();
    assert_eq!(next(&mut answers).await, Code::Ok);
    let began = Instant::now();
    assert_eq!(answers.message().await.expect_err("it goes on").code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let (_, page) = server.page("/metrics").await;
    assert!(page.contains("reg4rec_inflight 0"), "{page}");
}

#[tokio::test]
async fn a_stream_is_a_call_at_once_until_it_ends() {
    let mut settings = settings();
    settings.max_inflight = 1;
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake::default()));
    let (send, mut answers) = open(&server).await;
    send.send(user("u")).await.unwrap();
    assert_eq!(next(&mut answers).await, Code::Ok);
    let status = server.client().await.recommend(user("u")).await.expect_err("answered");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let (_, page) = server.page("/metrics").await;
    assert!(page.contains("reg4rec_inflight 1"), "{page}");
    // Ended by its client, or given up.
    drop(send);
    assert_eq!(answers.message().await.unwrap(), None);
    assert!(server.answers().await);
    drop(open(&server).await);
    let began = Instant::now();
    while !server.answers().await {
        assert!(began.elapsed() < Duration::from_secs(10), "a stream that was given up keeps its place");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_requests_of_a_stream_are_counted_and_not_the_stream() {
    let server = start(Fake::default()).await;
    let (send, mut answers) = open(&server).await;
    for request in [user("a"), v1::RecommendRequest { k: Some(0), ..user("b") }, user("overload"), user("c")] {
        send.send(request).await.unwrap();
        next(&mut answers).await;
    }
    drop(send);
    assert_eq!(answers.message().await.unwrap(), None);
    let event = v1::Event { item_id: "i".into(), ..Default::default() };
    let events = vec![v1::UserEvent { user_id: "u".into(), event: Some(event) }];
    let requests = tokio_stream::iter([v1::RecordRequest { events }, v1::RecordRequest::default()]);
    let results = EventServiceClient::new(server.channel().await).record_stream(requests).await.unwrap().into_inner();
    assert_eq!(results.collect::<Vec<_>>().await.len(), 2);
    let (_, page) = server.page("/metrics").await;
    for line in [
        r#"reg4rec_requests_total{code="OK",method="RecommendStream",variant="default"} 2"#,
        r#"reg4rec_requests_total{code="OK",method="RecommendStream",variant="none"} 0"#,
        r#"reg4rec_requests_total{code="INVALID_ARGUMENT",method="RecommendStream",variant="none"} 1"#,
        r#"reg4rec_requests_total{code="RESOURCE_EXHAUSTED",method="RecommendStream",variant="none"} 1"#,
        r#"reg4rec_requests_total{code="OK",method="RecordStream",variant="none"} 0"#,
        r#"reg4rec_requests_total{code="FAILED_PRECONDITION",method="RecordStream",variant="none"} 1"#,
        r#"reg4rec_requests_total{code="INVALID_ARGUMENT",method="RecordStream",variant="none"} 1"#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}
