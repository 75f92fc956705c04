//! One deadline: the smaller of the caller's and the server's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tonic::Code;

use crate::fake::{Fake, settings, start, start_cold, user};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_caller_in_a_hurry_is_told_deadline_exceeded_not_cancelled() {
    let server = start(Fake { delay: LONG, ..Fake::default() }).await;
    let mut client = server.client().await;
    for _ in 0..5 {
        let mut request = tonic::Request::new(user("u"));
        request.set_timeout(Duration::from_millis(400));
        let began = Instant::now();
        let status = client.recommend(request).await.expect_err("answered");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?} after {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_caller_without_a_deadline_gets_the_servers() {
    let server = start_cold(settings(), Duration::from_millis(300)).await;
    assert!(server.opener.open(Fake { delay: LONG, ..Fake::default() }));
    let began = Instant::now();
    let status = server.client().await.recommend(user("u")).await.expect_err("answered");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_deadline_that_has_passed_asks_nobody() {
    let asked = Arc::new(AtomicUsize::new(0));
    // Nor is it told to try again by engines without time for it.
    let server = start(Fake { asked: Arc::clone(&asked), delay: LONG, full: Some(LONG) }).await;
    let mut request = tonic::Request::new(user("u"));
    // Shorter than the margin that is kept for the way back.
    request.set_timeout(Duration::from_millis(100));
    let status = server.client().await.recommend(request).await.expect_err("answered");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn calls_past_the_bound_are_refused_at_once() {
    let mut settings = settings();
    settings.max_inflight = 2;
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake { delay: Duration::from_secs(2), ..Fake::default() }));
    let client = server.client().await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.recommend(user("u")).await.map_err(|status| status.code()) })
        })
        .collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap().map(|_| ()));
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    assert!(outcomes.contains(&Err(Code::ResourceExhausted)), "{outcomes:?}");
}
