//! Arms of experiments over two variants, one of which may fail.

use super::Recorder;
use super::tests::{House, house, ids, lasting, series, variant, viewed};
use crate::domain::{AssignmentReason, Engine, Exposure, Failure, RecommendAnswer, RecommendRequest};
use crate::engine::fake::{FAILS, FakeModel, PANICS};
use crate::events::{EventsConfig, Record, read_records};
use crate::experiment::{ArmConfig, ArmDecode, ExperimentConfig, ExperimentsConfig, ShadowConfig};

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
    exact.decode.engine = Some(Engine::Exact);
    let sent = house.recommender.recommend(exact, None).await.unwrap();
    let arm = toml::from_str("name = \"exact\"\ndecode = { engine = \"exact\" }").unwrap();
    house.recommender.set_experiments(&everybody(arm)).unwrap();
    let assigned = ask(&house, &[5, 6]).await;
    assert_eq!(told(&assigned), ("main", Some("exact"), "main", AssignmentReason::Assigned));
    let untold = |answer: &RecommendAnswer| RecommendAnswer { assignments: vec![], ..lasting(answer) };
    assert_eq!(untold(&assigned), lasting(&sent));
    assert_ne!(untold(&assigned), lasting(&plain));
    let mut own = RecommendRequest { user_id: "ann".into(), ..viewed(&[5, 6]) };
    own.decode.engine = Some(Engine::Beam);
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

/// What the log of `directory` holds of exposures, by the time that a user whom nobody knows was forgotten.
async fn exposed(house: &House, directory: &std::path::Path) -> Vec<Exposure> {
    house.recommender.forget("nobody".into()).await.unwrap();
    let mut found = Vec::new();
    read_records(directory, &mut |record| {
        if let Record::Exposure(exposed) = record {
            found.push(exposed.exposure);
        }
    })
    .unwrap();
    found
}

#[tokio::test]
async fn every_answer_that_an_arm_was_drawn_for_is_exposed_and_no_other() {
    let house = divided().await;
    let log = tempfile::tempdir().unwrap();
    let config = EventsConfig { path: log.path().to_owned(), ..EventsConfig::default() };
    let (recorder, _) = Recorder::open(&config, house.histories.clone(), &house.registry).unwrap().unwrap();
    assert!(house.recommender.record_with(recorder));
    let fallback = ask(&house, &[5]).await;
    load_next(&house).await;
    let answer = ask(&house, &[5]).await;
    let named = RecommendRequest { user_id: "ann".into(), variant: "main".into(), ..viewed(&[5]) };
    house.recommender.recommend(named, None).await.unwrap();
    let late = std::time::Instant::now();
    let request = RecommendRequest { user_id: "ann".into(), ..viewed(&[5]) };
    house.recommender.recommend(request, Some(late)).await.unwrap_err();

    let found = exposed(&house, log.path()).await;
    let told: Vec<_> = found.iter().map(|one| (one.request_id.as_str(), one.variant.as_str())).collect();
    assert_eq!(told, [(fallback.request_id.as_str(), "main"), (answer.request_id.as_str(), "next")]);
    let [first, second] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((first.user_id.as_str(), first.bundle_version.as_str()), ("ann", answer.bundle_version.as_str()));
    assert_eq!(second.item_ids, ids(&answer));
    let reasons = [&first.arms[0], &second.arms[0]].map(|arm| (arm.arm, arm.reason, arm.unit.clone()));
    let expected = [AssignmentReason::FallbackNotLoaded, AssignmentReason::Assigned].map(|reason| (0, reason, None));
    assert_eq!(reasons, expected);
    let design = &second.arms[0].design;
    assert_eq!((design.experiment.as_str(), design.version.as_str()), ("test", answer.assignments[0].version.as_str()));
    assert_eq!((design.arms.as_slice(), design.weights.as_slice()), (&["next".to_owned()][..], &[1.0][..]));
    assert_eq!(series(&house.registry, "reg4rec_exposures_total"), 2.0);
}

#[tokio::test]
async fn a_unit_that_is_no_user_stands_in_the_log_by_a_mark_of_it() {
    let house = house(FakeModel::default()).await;
    let mut config = everybody(ArmConfig { name: "only".into(), ..ArmConfig::default() });
    config.experiment[0].unit = "device".into();
    house.recommender.set_experiments(&config).unwrap();
    let log = tempfile::tempdir().unwrap();
    let events = EventsConfig { path: log.path().to_owned(), ..EventsConfig::default() };
    let (recorder, _) = Recorder::open(&events, house.histories.clone(), &house.registry).unwrap().unwrap();
    house.recommender.record_with(recorder);
    for device in ["phone-of-ann", "phone-of-bob", "phone-of-ann"] {
        let attributes = [("device".to_owned(), device.to_owned())].into();
        let request = RecommendRequest { attributes, ..viewed(&[5]) };
        house.recommender.recommend(request, None).await.unwrap();
    }
    let found = exposed(&house, log.path()).await;
    let units: Vec<&str> = found.iter().map(|one| one.arms[0].unit.as_deref().unwrap()).collect();
    assert_eq!((units.len(), units[0] == units[2], units[0] == units[1]), (3, true, false));
    assert!(units.iter().all(|unit| unit.len() == 24 && !unit.contains("phone")), "{units:?}");
}

#[tokio::test]
async fn a_shadow_arm_is_compared_and_never_answers() {
    let house = house(FakeModel { steady: true, ..FakeModel::default() }).await;
    let plain = ask(&house, &[5]).await;
    let shadow = |name: &str, variant: Option<&str>, share: f64, decode: ArmDecode| ShadowConfig {
        name: name.into(),
        variant: variant.map(str::to_owned),
        share,
        decode,
    };
    let shadows = vec![
        shadow("same", None, 1.0, ArmDecode::default()),
        shadow("exact", None, 1.0, ArmDecode { engine: Some(Engine::Exact), ..ArmDecode::default() }),
        shadow("next", Some("next"), 1.0, ArmDecode::default()),
        shadow("nobody", None, 0.0, ArmDecode::default()),
    ];
    house.recommender.set_experiments(&ExperimentsConfig { shadow: shadows, ..Default::default() }).unwrap();
    let count = |name: &str, result: &str| {
        let line = format!("reg4rec_shadow_requests_total{{result=\"{result}\",shadow=\"{name}\"}}");
        series(&house.registry, &line)
    };
    for turn in 1..=3 {
        assert_eq!(lasting(&ask(&house, &[5]).await), lasting(&plain));
        // Copies run behind the answer.
        let done =
            || ["same", "exact"].iter().all(|name| count(name, "answered") + count(name, "dropped") == f64::from(turn));
        while !done() || count("next", "failed") < f64::from(turn) {
            tokio::task::yield_now().await;
        }
    }
    assert!(count("same", "answered") > 0.0);
    let same = series(&house.registry, "reg4rec_shadow_same_first_total{shadow=\"same\"}");
    assert_eq!(same, count("same", "answered"));
    assert_eq!(series(&house.registry, "reg4rec_shadow_overlap_sum{shadow=\"same\"}"), same);
    assert_eq!(["answered", "dropped", "failed"].map(|result| count("nobody", result)), [0.0; 3]);
    house.recommender.set_experiments(&ExperimentsConfig::default()).unwrap();
    let page = prometheus::TextEncoder::new().encode_to_string(&house.registry.gather()).unwrap();
    assert!(!page.contains("shadow=\"same\""), "series of a shadow arm that is gone");
}
