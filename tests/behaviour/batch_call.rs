//! RecommendBatch: each request its answer or its status.

use std::time::{Duration, Instant};

use tonic::Code;
use tonic_types::StatusExt;

use reg4rec::wire::v1;
use reg4rec::wire::v1::recommend_result::Outcome;

use crate::fake::{Fake, start, user};

async fn ask(fake: Fake, requests: Vec<v1::RecommendRequest>) -> Vec<Outcome> {
    let server = start(fake).await;
    let mut client = server.client().await;
    let answer = client.recommend_batch(v1::RecommendBatchRequest { requests }).await.unwrap().into_inner();
    answer.results.into_iter().map(|result| result.outcome.unwrap()).collect()
}

#[tokio::test]
async fn each_request_gets_its_answer_or_its_status_in_order() {
    let requests = vec![
        user("a"),
        v1::RecommendRequest { k: Some(0), user_id: vec![0xff], ..Default::default() },
        v1::RecommendRequest { variant: "nope".into(), ..user("b") },
        v1::RecommendRequest { k: Some(2), ..user("c") },
    ];
    let outcomes = ask(Fake::default(), requests).await;
    let Outcome::Response(first) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(first.items[0].item_id, "a-0");
    let Outcome::Status(second) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(second.code, Code::InvalidArgument as u32);
    let named: Vec<_> = second.violations.iter().map(|wrong| wrong.field.as_str()).collect();
    assert_eq!(named, ["user_id", "k"]);
    let Outcome::Status(third) = &outcomes[2] else { panic!("{outcomes:?}") };
    assert_eq!(third.code, Code::NotFound as u32);
    let Outcome::Response(last) = &outcomes[3] else { panic!("{outcomes:?}") };
    assert_eq!(last.items.iter().map(|item| item.item_id.as_str()).collect::<Vec<_>>(), ["c-0", "c-1"]);
}

#[tokio::test]
async fn requests_of_a_batch_are_worked_on_together() {
    let began = Instant::now();
    let fake = Fake { delay: Duration::from_millis(200), ..Fake::default() };
    let outcomes = ask(fake, (0..50).map(|at| user(&format!("u{at}"))).collect()).await;
    assert_eq!(outcomes.len(), 50);
    assert!(began.elapsed() < Duration::from_secs(5), "one after the other would take 10 s: {:?}", began.elapsed());
}

#[tokio::test]
async fn an_empty_batch_names_requests() {
    let server = start(Fake::default()).await;
    let status =
        server.client().await.recommend_batch(v1::RecommendBatchRequest::default()).await.expect_err("accepted");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "requests");
}
