//! The draw against published examples and against what chance would give; experiments from request to count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::{Registry, TextEncoder};
use serde_json::Value;

use super::*;
use crate::domain::{
    AssignmentReason, DecodeOverrides, Failure, ForcedArm, Lateness, Overload, RecommendAnswer, RecommendRequest,
    Recommendation, Secret,
};

const TOKEN: &str = "0123456789abcdef";
/// Below this a chi-square test of a fixed sample says that the sample is not random. The samples are fixed, so the tests
/// pass always or never.
const CHANCE: f64 = 0.001;

const VECTORS: &str = include_str!("../../tests/vectors/assignment.json");

/// The examples of one part of the vectors; they stand one a line.
fn rows(part: &str) -> Vec<(&'static str, Value)> {
    let lines = VECTORS.lines().skip_while(|line| !line.starts_with(&format!("  \"{part}\": ["))).skip(1);
    let rows = lines.take_while(|line| line.starts_with("    {")).map(|line| line.trim().trim_end_matches(','));
    rows.map(|line| (line, serde_json::from_str(line).unwrap())).collect()
}

/// The ranges of an example, read from its text: serde_json may miss the last bit of a long number, `parse` does not.
fn ranges(line: &str) -> Vec<BucketRange> {
    let (_, pairs) = line.split_once("\"ranges\": [[").unwrap();
    let (pairs, _) = pairs.split_once("]]").unwrap();
    let range = |pair: &str| {
        let (start, end) = pair.split_once(", ").unwrap();
        BucketRange { start: start.parse().unwrap(), end: end.parse().unwrap() }
    };
    pairs.split("], [").map(range).collect()
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap()
}

#[test]
fn buckets_ranges_choices_and_namespaces_are_those_of_the_published_vectors() {
    let (buckets, choices, namespaces) = (rows("buckets"), rows("choices"), rows("namespaces"));
    for (_, row) in &buckets {
        let version = HashVersion::try_from(row["version"].as_u64().unwrap() as u8).unwrap();
        assert_eq!(version.bucket(text(row, "seed"), text(row, "unit")), row["bucket"].as_f64().unwrap(), "{row}");
    }
    for (line, row) in rows("ranges") {
        let given = row["weights"].as_array().map(|list| list.iter().map(|one| one.as_f64().unwrap()).collect());
        let weights = given.unwrap_or_else(|| equal_weights(row["arms"].as_u64().unwrap() as usize));
        assert_eq!(bucket_ranges(&weights, row["coverage"].as_f64().unwrap()), ranges(line), "{row}");
    }
    for (line, row) in &choices {
        let expected = row["arm"].as_u64().map(|arm| arm as usize);
        assert_eq!(choose(row["bucket"].as_f64().unwrap(), &ranges(line)), expected, "{row}");
    }
    for (_, row) in &namespaces {
        let space = &row["namespace"];
        let part = BucketRange { start: space[1].as_f64().unwrap(), end: space[2].as_f64().unwrap() };
        let inside = in_namespace(text(row, "unit"), space[0].as_str().unwrap(), part);
        assert_eq!(inside, row["inside"].as_bool().unwrap(), "{row}");
    }
    assert_eq!((buckets.len(), rows("ranges").len(), choices.len(), namespaces.len()), (150, 22, 242, 60));
}

#[test]
fn buckets_are_those_of_growthbooks_own_cases() {
    for (seed, unit, version, bucket) in [
        ("", "a", HashVersion::V1, 0.22),
        ("b", "a", HashVersion::V1, 0.946),
        ("", "123", HashVersion::V1, 0.011),
        ("seed", "a", HashVersion::V2, 0.0505),
        ("seed", "b", HashVersion::V2, 0.2696),
        ("foo", "ab", HashVersion::V2, 0.2575),
    ] {
        assert_eq!(version.bucket(seed, unit), bucket, "{seed:?} {unit:?}");
    }
    assert!(HashVersion::try_from(0).is_err() && HashVersion::try_from(3).is_err());
}

#[test]
fn a_million_units_fill_arms_and_buckets_evenly() {
    let weights = [0.1, 0.2, 0.3, 0.4];
    let ranges = bucket_ranges(&weights, 1.0);
    let (mut arms, mut hundredths) = ([0; 4], [0; 100]);
    for unit in 0..1_000_000 {
        let bucket = HashVersion::V2.bucket("even", &format!("user-{unit}"));
        arms[choose(bucket, &ranges).unwrap()] += 1;
        hundredths[(bucket * 100.0) as usize] += 1;
    }
    assert!(p_value(&arms, &weights) > CHANCE, "{arms:?}");
    assert!(p_value(&hundredths, &equal_weights(100)) > CHANCE, "{hundredths:?}");
}

#[test]
fn experiments_with_seeds_of_their_own_are_independent() {
    let halves = bucket_ranges(&equal_weights(2), 1.0);
    let arm = |seed: &str, unit: &str| choose(HashVersion::V2.bucket(seed, unit), &halves).unwrap();
    let mut cells = [0; 4];
    for unit in (0..200_000).map(|unit| format!("user-{unit}")) {
        cells[2 * arm("layer-one", &unit) + arm("layer-two", &unit)] += 1;
    }
    assert!(p_value(&cells, &equal_weights(4)) > CHANCE, "{cells:?}");
}

#[test]
fn a_ramp_adds_units_and_moves_none() {
    let at = |coverage| Experiment::new(&ExperimentConfig { coverage, ..split("ramp", &["a", "b", "c"]) });
    let steps = [0.01, 0.05, 0.2, 0.5].map(at);
    let none = BTreeMap::new();
    let (mut before, mut moved) = ([0; 4], 0);
    for unit in (0..50_000).map(|unit| format!("user-{unit}")) {
        let subject = Subject { user_id: &unit, attributes: &none };
        let mut held = None;
        for (step, experiment) in steps.iter().enumerate() {
            let drawn = match experiment.draw(subject, 0).unwrap() {
                Draw::Arm(arm) => Some(arm),
                Draw::Out(reason) => {
                    assert_eq!(reason, AssignmentReason::NotInCoverage);
                    None
                }
            };
            before[step] += usize::from(drawn.is_some());
            moved += usize::from(held.is_some() && held != drawn);
            held = drawn;
        }
    }
    assert_eq!(moved, 0);
    for (count, share) in before.into_iter().zip([0.01, 0.05, 0.2, 0.5]) {
        assert!((count as f64 / 50_000.0 - share).abs() < 0.01, "{count} of 50000 at {share}");
    }
}

/// An experiment of equal arms that change nothing.
fn split(key: &str, arms: &[&str]) -> ExperimentConfig {
    let arm = |name: &&str| ArmConfig { name: (*name).into(), ..ArmConfig::default() };
    ExperimentConfig { key: key.into(), arms: arms.iter().map(arm).collect(), ..ExperimentConfig::default() }
}

fn condition(attribute: &str) -> Condition {
    Condition { attribute: attribute.into(), ..Condition::default() }
}

fn draw(config: &ExperimentConfig, user: &str, attributes: &[(&str, &str)], now: i64) -> Option<Draw> {
    let attributes = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Experiment::new(config).draw(Subject { user_id: user, attributes: &attributes }, now)
}

#[test]
fn eligibility_time_and_unit_decide_before_the_bucket() {
    let list = |values: &[&str]| Some(values.iter().map(|value| (*value).to_owned()).collect());
    let config = ExperimentConfig {
        eligibility: vec![
            Condition { equals: Some("app".into()), ..condition("platform") },
            Condition { one_of: list(&["DE", "AT"]), ..condition("country") },
            Condition { not_in: list(&["yes"]), ..condition("bot") },
        ],
        start: Some(Moment(100)),
        end: Some(Moment(200)),
        ..split("picky", &["only"])
    };
    let fits = [("platform", "app"), ("country", "AT")];
    assert_eq!(draw(&config, "u", &fits, 100), Some(Draw::Arm(0)));
    assert_eq!((draw(&config, "u", &fits, 99), draw(&config, "u", &fits, 200)), (None, None));
    let out = Some(Draw::Out(AssignmentReason::NotEligible));
    for attributes in [
        vec![("platform", "web"), ("country", "AT")],
        vec![("country", "AT")],
        vec![("platform", "app"), ("country", "FR")],
        vec![("platform", "app")],
        vec![("platform", "app"), ("country", "DE"), ("bot", "yes")],
    ] {
        assert_eq!(draw(&config, "u", &attributes, 150), out, "{attributes:?}");
    }
    assert_eq!(draw(&config, "", &fits, 150), out, "nobody to draw for");
    let by_device = ExperimentConfig { unit: "device".into(), ..split("device", &["only"]) };
    assert_eq!(draw(&by_device, "u", &[], 0), out);
    assert_eq!(draw(&by_device, "u", &[("device", "")], 0), out);
    assert_eq!(draw(&by_device, "", &[("device", "d-1")], 0), Some(Draw::Arm(0)));
}

#[test]
fn holdout_and_namespaces_keep_their_shares_and_share_no_unit() {
    let layered = |key: &str, namespace| ExperimentConfig {
        layer: Some("search".into()),
        namespace,
        holdout: 0.1,
        holdout_seed: Some("2026".into()),
        ..split(key, &["a", "b"])
    };
    let (one, two) = (layered("one", [0.0, 0.3]), layered("two", [0.3, 1.0]));
    let (one, two) = (Experiment::new(&one), Experiment::new(&two));
    let (none, mut counts) = (BTreeMap::new(), [0; 3]);
    for unit in (0..50_000).map(|unit| format!("user-{unit}")) {
        let subject = Subject { user_id: &unit, attributes: &none };
        match (one.draw(subject, 0).unwrap(), two.draw(subject, 0).unwrap()) {
            (Draw::Out(AssignmentReason::Holdout), Draw::Out(AssignmentReason::Holdout)) => counts[0] += 1,
            (Draw::Arm(_), Draw::Out(AssignmentReason::NotInNamespace)) => counts[1] += 1,
            (Draw::Out(AssignmentReason::NotInNamespace), Draw::Arm(_)) => counts[2] += 1,
            other => panic!("{unit}: {other:?}"),
        }
    }
    assert!(p_value(&counts, &[0.1, 0.27, 0.63]) > CHANCE, "{counts:?}");
}

#[test]
fn a_version_says_whether_settings_are_equal() {
    let config = split("v", &["a", "b"]);
    let version = |config: &ExperimentConfig| Experiment::new(config).version;
    assert_eq!(version(&config), version(&config.clone()));
    assert_eq!(version(&config).len(), 12);
    assert_ne!(version(&config), version(&ExperimentConfig { coverage: 0.5, ..config }));
}

#[test]
fn every_wrong_setting_is_named() {
    let wrong = ExperimentsConfig {
        force_token: Secret::new("short"),
        kill_switch: KillSwitchConfig { window_s: 0, max_error_share: f64::NAN, ..KillSwitchConfig::default() },
        experiment: vec![
            ExperimentConfig {
                unit: String::new(),
                coverage: 1.1,
                holdout: -0.1,
                namespace: [0.5, 0.5],
                eligibility: vec![condition("a"), Condition { one_of: Some(vec![]), ..condition("") }],
                start: Some(Moment(2)),
                end: Some(Moment(2)),
                ..split("a b", &["x", "x", "none"])
            },
            split("c", &[]),
        ],
        ..ExperimentsConfig::default()
    };
    let wrong = wrong.validate().unwrap_err();
    let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
    let expected = [
        "force_token",
        "kill_switch.window_s",
        "kill_switch.max_error_share",
        "experiment[0].key",
        "experiment[0].unit",
        "experiment[0].coverage",
        "experiment[0].holdout",
        "experiment[0].namespace",
        "experiment[0].namespace",
        "experiment[0].end",
        "experiment[0].eligibility[0].equals, in, not_in",
        "experiment[0].eligibility[1].attribute",
        "experiment[0].eligibility[1].in",
        "experiment[0].arms[1].name",
        "experiment[0].arms[2].name",
        "experiment[1].arms",
    ];
    assert_eq!(fields, expected);
    assert!(wrong.iter().all(|violation| violation.description.contains("expected")), "{wrong:?}");
}

#[test]
fn wrong_weights_are_named_and_never_replaced_by_equal_ones() {
    let refused = |weights: &[Option<f64>]| {
        let mut config = split("w", &["a", "b"]);
        config.arms.iter_mut().zip(weights).for_each(|(arm, weight)| arm.weight = *weight);
        let config = ExperimentsConfig { experiment: vec![config], ..ExperimentsConfig::default() };
        let wrong = config.validate().err().unwrap_or_default();
        wrong.into_iter().map(|wrong| format!("{} is {}", wrong.field, wrong.description)).collect::<Vec<_>>()
    };
    let of = |one: f64, two: f64| refused(&[Some(one), Some(two)]);
    assert!(of(0.5, 0.5).is_empty() && of(0.99, 0.0).is_empty() && of(0.505, 0.505).is_empty());
    assert_eq!(of(0.4, 0.4), ["experiment[0].arms.weight is 0.8 in sum: expected 1 (from 0.99 to 1.01)"]);
    assert_eq!(of(-0.5, 1.5), ["experiment[0].arms[0].weight is -0.5: expected a finite number from 0 on"]);
    assert_eq!(of(0.5, f64::NAN), ["experiment[0].arms[1].weight is NaN: expected a finite number from 0 on"]);
    let expected = "experiment[0].arms.weight is 1 weights: expected 2, one for each arm";
    assert_eq!(refused(&[None, Some(1.0)]), [expected]);
}

#[test]
fn experiments_beside_each_other_share_no_layer_part_seed_or_parameter() {
    let variants = |key: &str| {
        let mut config = split(key, &["a", "b"]);
        config.arms[1].variant = Some("next".into());
        config
    };
    let beams = |key: &str| {
        let mut config = split(key, &["a", "b"]);
        config.arms[1].decode.beam = Some(40);
        config
    };
    let refused = |one: ExperimentConfig, two: ExperimentConfig| {
        let config = ExperimentsConfig { experiment: vec![one, two], ..ExperimentsConfig::default() };
        let wrong = config.validate().err().unwrap_or_default();
        wrong.into_iter().map(|wrong| wrong.field).collect::<Vec<_>>()
    };
    let part = |config: ExperimentConfig, start: f64, end: f64| ExperimentConfig {
        layer: Some("l".into()),
        namespace: [start, end],
        ..config
    };
    assert!(refused(variants("one"), beams("two")).is_empty());
    assert_eq!(refused(variants("one"), variants("two")), ["experiment[1].arms"]);
    assert_eq!(refused(beams("one"), beams("two")), ["experiment[1].arms"]);
    assert!(refused(part(variants("one"), 0.0, 0.5), part(variants("two"), 0.5, 1.0)).is_empty());
    let overlap = refused(part(variants("one"), 0.0, 0.5), part(variants("two"), 0.4, 1.0));
    assert_eq!(overlap, ["experiment[1].namespace"]);
    let other_unit = ExperimentConfig { unit: "device".into(), ..part(beams("two"), 0.5, 1.0) };
    assert_eq!(refused(part(beams("one"), 0.0, 0.5), other_unit), ["experiment[1].unit"]);
    let same_seed = ExperimentConfig { seed: Some("one".into()), ..beams("two") };
    assert_eq!(refused(variants("one"), same_seed), ["experiment[1].seed"]);
    // One after the other, they never meet.
    let first = ExperimentConfig { end: Some(Moment(100)), ..variants("one") };
    let then = ExperimentConfig { start: Some(Moment(100)), ..variants("two") };
    assert!(refused(first, then).is_empty());
}

struct Lab {
    experiments: Arc<Experiments>,
    registry: Registry,
}

fn settings(experiment: Vec<ExperimentConfig>) -> ExperimentsConfig {
    let kill_switch = KillSwitchConfig { min_requests: 50, ..KillSwitchConfig::default() };
    ExperimentsConfig { force_token: Secret::new(TOKEN), kill_switch, experiment, ..ExperimentsConfig::default() }
}

fn lab(experiment: Vec<ExperimentConfig>) -> Lab {
    let registry = Registry::new();
    let experiments = Experiments::new(&settings(experiment), ExperimentMetrics::new(&registry).unwrap()).unwrap();
    Lab { experiments: Arc::new(experiments), registry }
}

impl Lab {
    /// Runs these experiments from here on.
    fn run(&mut self, experiment: Vec<ExperimentConfig>) {
        let metrics = self.experiments.metrics().clone();
        let next = Experiments::following(Some(&self.experiments), &settings(experiment), metrics);
        self.experiments = Arc::new(next.unwrap());
    }

    fn enter(&self, request: &RecommendRequest) -> Result<Trial, Failure> {
        Arc::clone(&self.experiments).enter(request, SystemTime::now())
    }

    /// What is told of a request that goes well at whatever variant it comes to.
    fn told(&self, request: &RecommendRequest) -> Vec<(Option<String>, AssignmentReason)> {
        let trial = self.enter(request).unwrap();
        let answer = answer(if trial.variant().is_empty() { "main" } else { trial.variant() });
        let assignments = trial.settle(Ok(answer)).unwrap().assignments;
        assignments.into_iter().map(|assignment| (assignment.arm, assignment.reason)).collect()
    }

    fn series(&self, line: &str) -> f64 {
        let page = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let found = page.lines().find_map(|row| row.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        found.unwrap_or_else(|| panic!("no series {line} in\n{page}"))
    }

    fn p(&self) -> f64 {
        self.series("reg4rec_experiment_srm_p_value{experiment=\"test\"}")
    }
}

fn asks(user: impl std::fmt::Display) -> RecommendRequest {
    RecommendRequest { user_id: user.to_string(), ..RecommendRequest::default() }
}

fn answer(variant: &str) -> RecommendAnswer {
    let item = Recommendation { item_id: "i".into(), score: -1.0, title: None, categories: vec![], path: None };
    RecommendAnswer {
        request_id: "r".into(),
        items: vec![item],
        variant: variant.into(),
        bundle_version: "1".into(),
        index_version: "1".into(),
        assignments: vec![],
        cold_start: false,
        degraded: false,
        history_missed: false,
        short: false,
        timings: vec![],
    }
}

/// A half on the default variant, a half on `next` with a beam of 40.
fn half_next() -> ExperimentConfig {
    let mut config = split("test", &["control", "next"]);
    config.arms[1].variant = Some("next".into());
    config.arms[1].decode.beam = Some(40);
    config
}

/// A user who draws this arm of [`half_next`], and others who do.
fn who_draw(arm: usize) -> impl Iterator<Item = RecommendRequest> {
    let experiment = Experiment::new(&half_next());
    let drawn = move |request: &RecommendRequest| {
        let subject = Subject { user_id: &request.user_id, attributes: &request.attributes };
        experiment.draw(subject, 0) == Some(Draw::Arm(arm))
    };
    (0..).map(|user| asks(format!("user-{user}"))).filter(drawn)
}

#[test]
fn every_series_is_there_before_the_first_request() {
    let lab = lab(vec![half_next()]);
    for arm in ["control", "next"] {
        for reason in ["assigned", "forced", "killed", "fallback_not_loaded", "fallback_error"] {
            let labels = format!("{{arm=\"{arm}\",experiment=\"test\",reason=\"{reason}\"}}");
            assert_eq!(lab.series(&format!("reg4rec_experiment_assignments_total{labels}")), 0.0);
        }
        for name in
            ["arm_requests_total", "arm_errors_total", "arm_empty_total", "arm_killed", "arm_duration_seconds_count"]
        {
            assert_eq!(lab.series(&format!("reg4rec_experiment_{name}{{arm=\"{arm}\",experiment=\"test\"}}")), 0.0);
        }
    }
    for reason in ["holdout", "not_eligible", "not_in_namespace", "not_in_coverage"] {
        let labels = format!("{{arm=\"none\",experiment=\"test\",reason=\"{reason}\"}}");
        assert_eq!(lab.series(&format!("reg4rec_experiment_assignments_total{labels}")), 0.0);
    }
    assert_eq!(lab.p(), 1.0);
}

#[test]
fn an_arm_picks_variant_and_settings_and_the_requests_own_win() {
    let lab = lab(vec![half_next()]);
    let mut request = who_draw(1).next().unwrap();
    let trial = lab.enter(&request).unwrap();
    assert_eq!((trial.variant(), trial.decode().beam, trial.decode().corp), ("next", Some(40), None));
    request.decode = DecodeOverrides { beam: Some(3), corp: Some(false), ..DecodeOverrides::default() };
    let trial = lab.enter(&request).unwrap();
    assert_eq!((trial.variant(), trial.decode().beam, trial.decode().corp), ("next", Some(3), Some(false)));
    request.variant = "main".into();
    let trial = lab.enter(&request).unwrap();
    assert_eq!((trial.variant(), trial.decode().beam), ("main", Some(3)));
    assert!(
        trial.settle(Ok(answer("main"))).unwrap().assignments.is_empty(),
        "who names a variant is in no experiment"
    );
    let control = lab.enter(&who_draw(0).next().unwrap()).unwrap();
    assert_eq!((control.variant(), control.decode()), ("", DecodeOverrides::default()));
}

#[test]
fn the_same_unit_draws_the_same_arm_after_a_restart() {
    let (one, other) = (lab(vec![half_next()]), lab(vec![half_next()]));
    for user in 0..500 {
        assert_eq!(one.told(&asks(user)), other.told(&asks(user)));
    }
    // And in the next year, on another machine: these are written down.
    let arms: Vec<_> = (0..8).map(|user| one.told(&asks(format!("user-{user}")))[0].0.clone().unwrap()).collect();
    assert_eq!(arms, expected_arms());
}

/// Of user-0 to user-7 by `key = "test"` and two equal arms, from `make.py`'s bucket.
fn expected_arms() -> Vec<&'static str> {
    vec!["next", "control", "next", "control", "control", "control", "next", "next"]
}

#[test]
fn arms_of_several_experiments_are_told_and_refusals_only_alone() {
    let mut whole = split("whole", &["paths"]);
    whole.arms[0].decode.full_path = Some(true);
    let closed = ExperimentConfig { coverage: 0.0, ..split("closed", &["never"]) };
    let lab = self::lab(vec![closed.clone(), half_next(), whole]);
    let request = who_draw(1).next().unwrap();
    let trial = lab.enter(&request).unwrap();
    assert_eq!((trial.variant(), trial.decode().beam, trial.decode().full_path), ("next", Some(40), Some(true)));
    let told = trial.settle(Ok(answer("next"))).unwrap().assignments;
    let told: Vec<_> =
        told.iter().map(|one| (one.experiment.as_str(), one.arm.as_deref(), one.variant.as_str())).collect();
    assert_eq!(told, [("test", Some("next"), "next"), ("whole", Some("paths"), "next")]);
    let alone = self::lab(vec![closed]);
    assert_eq!(alone.told(&request), [(None, AssignmentReason::NotInCoverage)]);
}

#[test]
fn an_arm_that_is_not_loaded_or_fails_gives_way_to_the_default() {
    let lab = lab(vec![half_next()]);
    let request = who_draw(1).next().unwrap();
    for (failure, reason, errors) in [
        (Failure::UnknownVariant("next".into()), AssignmentReason::FallbackNotLoaded, 0.0),
        (Failure::Internal("fire".into()), AssignmentReason::FallbackError, 1.0),
    ] {
        let mut trial = lab.enter(&request).unwrap();
        assert!(trial.falls_back(&failure));
        assert_eq!((trial.variant(), trial.decode().beam), ("", None));
        assert!(!trial.falls_back(&failure), "there is nothing else to try");
        let told = trial.settle(Ok(answer("main"))).unwrap().assignments.remove(0);
        assert_eq!((told.arm.as_deref(), told.variant.as_str(), told.reason), (Some("next"), "main", reason));
        assert_eq!(lab.series("reg4rec_experiment_arm_errors_total{arm=\"next\",experiment=\"test\"}"), errors);
    }
    let mut trial = lab.enter(&request).unwrap();
    assert!(!trial.falls_back(&Failure::Late(Lateness::Step)), "no time is left");
    assert_eq!(trial.settle(Err(Failure::Late(Lateness::Step))), Err(Failure::Late(Lateness::Step)));
    let mut control = lab.enter(&who_draw(0).next().unwrap()).unwrap();
    assert!(!control.falls_back(&Failure::Internal("fire".into())), "the default itself failed");
}

#[test]
fn an_arm_is_forced_with_the_token_alone() {
    let lab = self::lab(vec![ExperimentConfig { coverage: 0.0, ..half_next() }]);
    let forced = |token: &str, experiment: &str, arm: &str| {
        let forced = ForcedArm { token: Secret::new(token), experiment: experiment.into(), arm: arm.into() };
        RecommendRequest { forced: Some(forced), ..asks("u") }
    };
    let trial = lab.enter(&forced(TOKEN, "test", "next")).unwrap();
    assert_eq!((trial.variant(), trial.decode().beam), ("next", Some(40)));
    assert_eq!(lab.told(&forced(TOKEN, "test", "next")), [(Some("next".into()), AssignmentReason::Forced)]);
    for token in ["", "0123456789abcdeF", "0123456789abcde"] {
        assert!(matches!(lab.enter(&forced(token, "test", "next")), Err(Failure::Denied(_))), "{token:?}");
    }
    for (experiment, arm) in [("test", "other"), ("other", "next")] {
        let Err(Failure::Invalid(wrong)) = lab.enter(&forced(TOKEN, experiment, arm)) else {
            panic!("{experiment} {arm}")
        };
        assert_eq!(wrong[0].field, ForcedArm::FIELD);
    }
    let both = RecommendRequest { variant: "main".into(), ..forced(TOKEN, "test", "next") };
    assert!(matches!(lab.enter(&both), Err(Failure::Invalid(_))));
    let config = ExperimentsConfig { experiment: vec![half_next()], ..ExperimentsConfig::default() };
    let closed = Experiments::new(&config, ExperimentMetrics::new(&Registry::new()).unwrap()).unwrap();
    let refused = Arc::new(closed).enter(&forced("", "test", "next"), SystemTime::now());
    assert!(matches!(refused, Err(Failure::Denied(_))), "without a configured token nobody may");
}

#[test]
fn a_delivery_of_sixty_to_forty_lowers_p_and_one_of_fifty_to_fifty_does_not() {
    let even = lab(vec![half_next()]);
    for (control, next) in who_draw(0).zip(who_draw(1)).take(300) {
        assert!(even.told(&control).len() == 1 && even.told(&next).len() == 1);
    }
    assert!(even.p() > 0.9, "{}", even.p());
    let skewed = lab(vec![half_next()]);
    who_draw(0).take(300).chain(who_draw(1).take(200)).for_each(|request| drop(skewed.told(&request)));
    assert!((skewed.p() - 7.744e-6).abs() < 1e-8, "chi-square 20 at 1 degree of freedom: {}", skewed.p());
    // A unit that asks again proves nothing.
    let again = lab(vec![half_next()]);
    let eager = who_draw(0).next().unwrap();
    (0..1000).for_each(|_| drop(again.told(&eager)));
    assert_eq!(again.p(), 1.0);
}

#[test]
fn an_arm_that_fails_loses_its_traffic_to_the_control_and_then_to_the_default() {
    let mut config = half_next();
    config.arms[0].decode.beam = Some(7);
    let lab = lab(vec![config]);
    let fails = |request: &RecommendRequest| {
        let mut trial = lab.enter(request).unwrap();
        assert!(trial.falls_back(&Failure::Internal("fire".into())));
        trial.settle(Ok(answer("main"))).unwrap();
    };
    let killed = "reg4rec_experiment_arm_killed{arm=\"next\",experiment=\"test\"}";
    let next: Vec<_> = who_draw(1).take(50).collect();
    next[..49].iter().for_each(fails);
    assert_eq!(lab.series(killed), 0.0, "49 failures prove nothing");
    fails(&next[49]);
    assert_eq!(lab.series(killed), 1.0);
    let trial = lab.enter(&next[0]).unwrap();
    assert_eq!((trial.variant(), trial.decode().beam), ("", Some(7)), "the control");
    let told = trial.settle(Ok(answer("main"))).unwrap().assignments.remove(0);
    assert_eq!((told.arm.as_deref(), told.reason), (Some("next"), AssignmentReason::Killed));
    let killed = "reg4rec_experiment_assignments_total{arm=\"next\",experiment=\"test\",reason=\"killed\"}";
    assert_eq!(lab.series(killed), 1.0);

    who_draw(0).take(50).for_each(|request| fails(&request));
    let trial = lab.enter(&next[0]).unwrap();
    assert_eq!((trial.variant(), trial.decode().beam), ("", None), "the default");
    let control = who_draw(0).next().unwrap();
    assert_eq!(lab.told(&control), [(Some("control".into()), AssignmentReason::Killed)]);
    // Who may force an arm still can, to look at it.
    let forced = ForcedArm { token: Secret::new(TOKEN), experiment: "test".into(), arm: "next".into() };
    let trial = lab.enter(&RecommendRequest { forced: Some(forced), ..asks("u") }).unwrap();
    assert_eq!(trial.variant(), "next");
}

#[test]
fn empty_and_slow_answers_kill_too_and_forced_ones_do_not() {
    let empty = || RecommendAnswer { items: vec![], ..answer("next") };
    let killed = |lab: &Lab| lab.series("reg4rec_experiment_arm_killed{arm=\"next\",experiment=\"test\"}");
    let hungry = lab(vec![half_next()]);
    for request in who_draw(1).take(50) {
        hungry.enter(&request).unwrap().settle(Ok(empty())).unwrap();
    }
    assert_eq!(killed(&hungry), 1.0);
    assert_eq!(hungry.series("reg4rec_experiment_arm_empty_total{arm=\"next\",experiment=\"test\"}"), 50.0);

    let forced = lab(vec![half_next()]);
    let by_hand = ForcedArm { token: Secret::new(TOKEN), experiment: "test".into(), arm: "next".into() };
    for user in 0..60 {
        let request = RecommendRequest { forced: Some(by_hand.clone()), ..asks(user) };
        forced.enter(&request).unwrap().settle(Ok(empty())).unwrap();
    }
    assert_eq!(killed(&forced), 0.0);

    let registry = Registry::new();
    let kill_switch = KillSwitchConfig { min_requests: 5, max_p99_ms: 1, ..KillSwitchConfig::default() };
    let config = ExperimentsConfig { kill_switch, experiment: vec![half_next()], ..ExperimentsConfig::default() };
    let experiments = Experiments::new(&config, ExperimentMetrics::new(&registry).unwrap()).unwrap();
    let slow = Lab { experiments: Arc::new(experiments), registry };
    let trials: Vec<_> = who_draw(1).take(5).map(|request| slow.enter(&request).unwrap()).collect();
    let until = std::time::Instant::now() + Duration::from_millis(2);
    while std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    trials.into_iter().for_each(|trial| drop(trial.settle(Ok(answer("next")))));
    assert_eq!(killed(&slow), 1.0);
}

#[test]
fn an_overload_that_all_arms_suffer_kills_none() {
    let lab = lab(vec![half_next()]);
    let busy = || Failure::Overloaded { reason: Overload::QueueFull, retry_after: Duration::from_millis(1) };
    let killed = |arm: &str| lab.series(&format!("reg4rec_experiment_arm_killed{{arm=\"{arm}\",experiment=\"test\"}}"));
    // By turns: the first arm to have requests enough is held against the other one as soon as that has.
    for (control, next) in who_draw(0).zip(who_draw(1)).take(49) {
        for request in [control, next] {
            lab.enter(&request).unwrap().settle(Err(busy())).unwrap_err();
        }
    }
    let (control, next) = (who_draw(0).nth(49).unwrap(), who_draw(1).nth(49).unwrap());
    lab.enter(&control).unwrap().settle(Ok(answer("main"))).unwrap();
    lab.enter(&next).unwrap().settle(Err(busy())).unwrap_err();
    assert_eq!((killed("control"), killed("next")), (0.0, 0.0));
    // The control recovers, the other arm does not.
    for (control, next) in who_draw(0).zip(who_draw(1)).skip(50).take(80) {
        lab.enter(&control).unwrap().settle(Ok(answer("main"))).unwrap();
        lab.enter(&next).unwrap().settle(Err(busy())).unwrap_err();
    }
    assert_eq!((killed("control"), killed("next")), (0.0, 1.0));
}

#[test]
fn a_killed_arm_stays_so_until_its_own_experiment_changes() {
    let other = split("other", &["this", "that"]);
    let mut lab = lab(vec![half_next()]);
    let killed = |lab: &Lab| lab.series("reg4rec_experiment_arm_killed{arm=\"next\",experiment=\"test\"}");
    let empty = || RecommendAnswer { items: vec![], ..answer("next") };
    for request in who_draw(1).take(50) {
        lab.enter(&request).unwrap().settle(Ok(empty())).unwrap();
    }
    assert_eq!(killed(&lab), 1.0);
    lab.run(vec![half_next(), other.clone()]);
    assert_eq!(killed(&lab), 1.0);
    let told = lab.told(&who_draw(1).next().unwrap());
    assert!(told.contains(&(Some("next".into()), AssignmentReason::Killed)), "{told:?}");
    lab.run(vec![ExperimentConfig { coverage: 0.9, ..half_next() }, other]);
    assert_eq!(killed(&lab), 0.0);
}
