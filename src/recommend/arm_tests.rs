//! Arms of experiments over two variants, one of which may fail.

use super::tests::{House, house, ids, lasting, series, variant, viewed};
use crate::domain::{AssignmentReason, Failure, RecommendAnswer, RecommendRequest};
use crate::engine::fake::{FAILS, FakeModel, PANICS};
use crate::experiment::{ArmConfig, ExperimentConfig, ExperimentsConfig};

/// All users into one arm.
fn everybody(arm: ArmConfig) -> ExperimentsConfig {
    let everybody = ExperimentConfig { key: "test".into(), arms: vec![arm], ..ExperimentConfig::default() };
    ExperimentsConfig { experiment: vec![everybody], ..ExperimentsConfig::default() }
}

fn to_next() -> ArmConfig {
    ArmConfig { name: "next".into(), variant: Some("next".into()), ..ArmConfig::default() }
}

/// A house whose default keeps calm, and everybody in the arm that `next` answers.
async fn divided() -> House {
    let house = house(FakeModel { steady: true, ..FakeModel::default() }).await;
    house.recommender.set_experiments(&everybody(to_next())).unwrap();
    house
}

async fn load_next(house: &House) {
    let next = variant("next", FakeModel::default(), house.index.clone(), &house.metrics).await;
    house.recommender.set_variant(next).unwrap();
}

async fn ask(house: &House, items: &[u32]) -> RecommendAnswer {
    let request = RecommendRequest { user_id: "ann".into(), ..viewed(items) };
    house.recommender.recommend(request, None).await.unwrap()
}

fn told(answer: &RecommendAnswer) -> (&str, Option<&str>, &str, AssignmentReason) {
    let [assignment] = answer.assignments.as_slice() else { panic!("{:?}", answer.assignments) };
    (answer.variant.as_str(), assignment.arm.as_deref(), assignment.variant.as_str(), assignment.reason)
}

#[tokio::test]
async fn an_arm_answers_once_its_variant_is_loaded_and_the_default_until_then() {
    let house = divided().await;
    let fallback = ask(&house, &[5]).await;
    assert_eq!(told(&fallback), ("main", Some("next"), "main", AssignmentReason::FallbackNotLoaded));
    load_next(&house).await;
    let answer = ask(&house, &[5]).await;
    assert_eq!(told(&answer), ("next", Some("next"), "next", AssignmentReason::Assigned));
    assert_eq!(ids(&answer), ids(&fallback), "both networks are the same function");
    for (reason, count) in [("assigned", 1.0), ("fallback_not_loaded", 1.0), ("fallback_error", 0.0)] {
        let labels = format!("{{arm=\"next\",experiment=\"test\",reason=\"{reason}\"}}");
        assert_eq!(
            series(&house.registry, &format!("reg4rec_experiment_assignments_total{labels}")),
            count,
            "{reason}"
        );
    }
    let named = RecommendRequest { user_id: "ann".into(), variant: "main".into(), ..viewed(&[5]) };
    let answer = house.recommender.recommend(named, None).await.unwrap();
    assert_eq!((answer.variant.as_str(), answer.assignments.len()), ("main", 0));
}

#[tokio::test]
async fn an_arm_whose_engine_fails_or_has_stopped_leaves_the_answer_to_the_default() {
    let house = divided().await;
    load_next(&house).await;
    for items in [[FAILS, 5], [PANICS, 5], [6, 5]] {
        let answer = ask(&house, &items).await;
        assert_eq!(told(&answer), ("main", Some("next"), "main", AssignmentReason::FallbackError), "{items:?}");
        assert_eq!(answer.items.len(), 10);
    }
    assert_eq!(series(&house.registry, "reg4rec_experiment_arm_errors_total{arm=\"next\",experiment=\"test\"}"), 3.0);
    assert_eq!(house.recommender.inflight(), 0);
}

#[tokio::test]
async fn the_settings_of_an_arm_are_as_if_the_request_had_sent_them() {
    let house = house(FakeModel::default()).await;
    let plain = ask(&house, &[5, 6]).await;
    let mut exact = RecommendRequest { user_id: "ann".into(), ..viewed(&[5, 6]) };
    exact.decode.exact = Some(true);
    let sent = house.recommender.recommend(exact, None).await.unwrap();
    let arm = toml::from_str("name = \"exact\"\ndecode = { engine = \"exact\" }").unwrap();
    house.recommender.set_experiments(&everybody(arm)).unwrap();
    let assigned = ask(&house, &[5, 6]).await;
    assert_eq!(told(&assigned), ("main", Some("exact"), "main", AssignmentReason::Assigned));
    let untold = |answer: &RecommendAnswer| RecommendAnswer { assignments: vec![], ..lasting(answer) };
    assert_eq!(untold(&assigned), lasting(&sent));
    assert_ne!(untold(&assigned), lasting(&plain));
    let mut own = RecommendRequest { user_id: "ann".into(), ..viewed(&[5, 6]) };
    own.decode.exact = Some(false);
    assert_eq!(untold(&house.recommender.recommend(own, None).await.unwrap()), lasting(&plain));
}

#[tokio::test]
async fn settings_of_experiments_that_are_wrong_leave_those_before() {
    let house = divided().await;
    assert!(house.recommender.set_experiments(&everybody(ArmConfig::default())).is_err());
    assert_eq!(ask(&house, &[5]).await.assignments.len(), 1);
    house.recommender.set_experiments(&ExperimentsConfig::default()).unwrap();
    assert!(ask(&house, &[5]).await.assignments.is_empty());
    let page = prometheus::TextEncoder::new().encode_to_string(&house.registry.gather()).unwrap();
    assert!(!page.contains("experiment=\"test\""), "series of an experiment that is gone");
    let nobody = RecommendRequest { user_id: "ann".into(), variant: "next".into(), ..viewed(&[5]) };
    let unknown = house.recommender.recommend(nobody, None).await;
    assert_eq!(unknown, Err(Failure::UnknownVariant("next".into())));
}
