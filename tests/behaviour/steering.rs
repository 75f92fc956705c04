//! Steering of a trained model through the wire: more of a category is never less of it, and what is forbidden stays away.

use std::collections::BTreeSet;
use std::path::Path;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reg4rec::artifact;
use reg4rec::wire::v1;

use crate::bundle::DEMO;
use crate::fake::Client;
use crate::operated::channel;
use crate::process::Process;

/// Nats that are added to a category.
const NATS: [f32; 9] = [-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0];

fn asks(history: &[&String], steering: &[(&String, f32)]) -> v1::RecommendRequest {
    let event = |id: &&String| v1::Event { item_id: id.as_bytes().into(), ..Default::default() };
    let weight = |(category, weight): &(&String, f32)| v1::CategoryWeight {
        category: category.as_bytes().into(),
        weight: *weight,
    };
    let categories = steering.iter().map(weight).collect();
    v1::RecommendRequest {
        history: history.iter().map(event).collect(),
        steering: Some(v1::Steering { categories, ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trained_model_shows_more_of_what_is_boosted_and_nothing_of_what_is_forbidden() {
    let items: Vec<_> = artifact::load(Path::new(DEMO)).unwrap().index.items().map(|row| row.item).collect();
    let categories: BTreeSet<&String> = items.iter().flat_map(|item| &item.categories).collect();
    let categories: Vec<&String> = categories.into_iter().collect();
    let process = tokio::task::spawn_blocking(|| Process::start(Path::new(DEMO))).await.unwrap();
    let mut client = Client::new(channel(&process.public).await);
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut moved = 0;
    for _ in 0..60 {
        let history: Vec<&String> =
            (0..random.random_range(1..12)).map(|_| &items.choose(&mut random).unwrap().id).collect();
        let category = *categories.choose(&mut random).unwrap();
        let mut shares = Vec::new();
        for nats in NATS {
            let answer = client.recommend(asks(&history, &[(category, nats)])).await.unwrap().into_inner();
            assert_eq!(answer.items.len(), 10, "{category} {nats}: an item is kept from the answer");
            shares.push(answer.items.iter().filter(|item| item.categories.contains(category)).count());
        }
        assert!(shares.is_sorted(), "{category} after {history:?}: {shares:?} at {NATS:?}");
        moved += usize::from(shares[0] < shares[NATS.len() - 1]);

        let filter = Some(v1::Filter { exclude_categories: vec![category.as_bytes().into()], ..Default::default() });
        let forbidden = v1::RecommendRequest { filter, ..asks(&history, &[(category, 20.0)]) };
        let answer = client.recommend(forbidden).await.unwrap().into_inner();
        assert!(answer.items.iter().all(|item| !item.categories.contains(category)), "{category} is forbidden");

        let plain = client.recommend(asks(&history, &[])).await.unwrap().into_inner();
        let neutral = client.recommend(asks(&history, &[(category, 0.0)])).await.unwrap().into_inner();
        assert_eq!(plain.items, neutral.items);
    }
    assert!(moved > 50, "steering moved {moved} of 60 answers");
}
