//! The steps down: a narrower beam, an answer from before, a refusal.

use std::time::{Duration, Instant};

use super::tests::{House, house_with, ids, series, variant, viewed};
use super::{CacheConfig, RecommendConfig};
use crate::domain::{DecodeOverrides, Failure, Overload, RecommendAnswer, RecommendRequest};
use crate::engine::fake::{FakeModel, until_begun};

fn caching(fresh_ms: u64) -> RecommendConfig {
    let cache = CacheConfig { entries: 100, fresh_ms, ..CacheConfig::default() };
    RecommendConfig { cache, ..RecommendConfig::default() }
}

async fn answer(house: &House, request: RecommendRequest) -> RecommendAnswer {
    house.recommender.recommend(request, None).await.unwrap()
}

fn batches(house: &House) -> usize {
    house.batches.lock().unwrap().len()
}

#[tokio::test]
async fn the_same_question_is_answered_once_and_any_other_anew() {
    let house = house_with(FakeModel::default(), caching(60_000)).await;
    let first = answer(&house, viewed(&[5, 6])).await;
    let again = answer(&house, viewed(&[5, 6])).await;
    assert_eq!((ids(&first), again.degraded, batches(&house)), (ids(&again), false, 1));
    for (at, other) in [
        viewed(&[6, 5]),
        viewed(&[5, 6, 7]),
        RecommendRequest { k: 11, ..viewed(&[5, 6]) },
        RecommendRequest { explain: true, ..viewed(&[5, 6]) },
        RecommendRequest { decode: DecodeOverrides { beam: Some(3), ..Default::default() }, ..viewed(&[5, 6]) },
    ]
    .into_iter()
    .enumerate()
    {
        answer(&house, other).await;
        assert_eq!(batches(&house), at + 2, "the {at}th other question was not asked");
    }
    let page = |result: &str| series(&house.registry, &format!("reg4rec_cache_requests_total{{result=\"{result}\"}}"));
    assert_eq!((page("hit"), page("miss"), page("stale")), (1.0, 6.0, 0.0));
    // Another bundle knows nothing of it.
    let next = variant(
        "main",
        FakeModel { batches: house.batches.clone(), ..FakeModel::default() },
        house.index.clone(),
        &house.metrics,
    )
    .await;
    house.recommender.set_variant(next).unwrap();
    answer(&house, viewed(&[5, 6])).await;
    assert_eq!(batches(&house), 7);
}

#[tokio::test]
async fn without_a_cache_every_question_is_asked() {
    let house = house_with(FakeModel::default(), RecommendConfig::default()).await;
    answer(&house, viewed(&[5, 6])).await;
    answer(&house, viewed(&[5, 6])).await;
    assert_eq!(batches(&house), 2);
}

/// Asks until the queue takes no more of such a deadline; the network stands still meanwhile.
async fn until_refused(house: &House, within: Duration) -> Failure {
    loop {
        let ask = || {
            let (recommender, deadline) = (house.recommender.clone(), Instant::now() + within);
            tokio::spawn(async move { recommender.recommend(viewed(&[9]), Some(deadline)).await })
        };
        // More at a time than can grow late meanwhile, however slow the machine.
        let asked: Vec<_> = (0..32).map(|_| ask()).collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        for asked in asked {
            if asked.is_finished() {
                return asked.await.unwrap().unwrap_err();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_engine_has_no_time_an_answer_from_before_stands_in() {
    let (mut model, open) = FakeModel::gated();
    model.encode = Duration::from_millis(20);
    // Never fresh when it is asked again, but not too old either.
    let house = house_with(model, RecommendConfig { narrow_beam: 0, ..caching(1) }).await;
    // Moved here, so that it goes before the house: where an assertion fails, the engine must get through its gate to end.
    let open = open;
    open.send(()).unwrap();
    let first = answer(&house, viewed(&[5, 6])).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let within = Duration::from_millis(400);
    let refused = until_refused(&house, within).await;
    assert!(matches!(refused, Failure::Overloaded { reason: Overload::PredictedLate, .. }), "{refused:?}");
    // With less time still, so that what waits is too much for it for a while.
    let within = within / 4;
    let known = house.recommender.recommend(viewed(&[5, 6]), Some(Instant::now() + within)).await.unwrap();
    assert_eq!((ids(&known), known.degraded), (ids(&first), true));
    let page = |line: &str| series(&house.registry, line);
    assert_eq!(page("reg4rec_cache_requests_total{result=\"stale\"}"), 1.0);
    assert_eq!(page("reg4rec_degraded_total{how=\"cached\"}"), 1.0);
    let unknown = house.recommender.recommend(viewed(&[5, 7]), Some(Instant::now() + within)).await.unwrap_err();
    assert!(matches!(unknown, Failure::Overloaded { .. }), "{unknown:?}");
    // Some might be answered from before: all are read.
    assert_eq!(house.recommender.refusal(Some(Instant::now() + within)), None);
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_pressure_the_beam_is_narrower_but_for_who_chose_it() {
    let (mut model, open) = FakeModel::gated();
    model.encode = Duration::from_millis(50);
    let house =
        house_with(model, RecommendConfig { narrow_beam: 4, max_deadline_ms: 60_000, ..RecommendConfig::default() })
            .await;
    open.send(()).unwrap();
    assert!(!answer(&house, viewed(&[5, 6])).await.degraded);
    let ask = |request: RecommendRequest, within: Duration| {
        let (recommender, deadline) = (house.recommender.clone(), Instant::now() + within);
        tokio::spawn(async move { recommender.recommend(request, Some(deadline)).await })
    };
    let long = Duration::from_secs(60);
    let mut others = vec![ask(viewed(&[7]), long)];
    until_begun(&house.batches, 2).await;
    others.extend((0..20).map(|user| ask(viewed(&[8, user + 20]), long)));
    let engine = house.recommender.loaded("").unwrap().variant.engine.clone();
    while engine.queue_depth() < 20 {
        tokio::task::yield_now().await;
    }
    // Of what a request may take now, the work before it takes three quarters.
    let pressure = engine.pressure(Instant::now() + long);
    assert!((0.001..0.5).contains(&pressure), "{pressure}");
    let within = long.mul_f64(pressure / 0.75);
    // Who has half of what the work before takes is refused unread; who has more is not.
    let refusal = house.recommender.refusal(Some(Instant::now() + within / 2));
    assert!(matches!(refusal, Some(Failure::Overloaded { .. })), "{refusal:?}");
    assert_eq!(house.recommender.refusal(Some(Instant::now() + long)), None);
    let chosen = DecodeOverrides { beam: Some(20), ..DecodeOverrides::default() };
    let narrow = ask(viewed(&[9]), within);
    let own = ask(RecommendRequest { decode: chosen, ..viewed(&[10]) }, within);
    others.push(ask(viewed(&[11]), long));
    while engine.queue_depth() < 23 {
        tokio::task::yield_now().await;
    }
    drop(open);
    assert!(narrow.await.unwrap().unwrap().degraded);
    assert!(!own.await.unwrap().unwrap().degraded, "who chose a beam did not get it");
    for other in others {
        assert!(!other.await.unwrap().unwrap().degraded, "who has time got less");
    }
    assert_eq!(series(&house.registry, "reg4rec_degraded_total{how=\"narrow\"}"), 1.0);
}
