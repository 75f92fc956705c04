//! What is wrong with the settings of experiments, each alone and between them.

use std::collections::BTreeSet;
use std::f32::consts::LN_2;

use crate::domain::Violation;

use super::bucket::weight_problems;
use super::config::{
    ArmConfig, ArmDecode, Condition, ExperimentConfig, ExperimentsConfig, KillSwitchConfig, ShadowConfig,
};
use super::metrics::NO_ARM;

/// Most experiments, and most arms of one: each pair has metrics of its own.
const MOST: usize = 50;
/// Shorter tokens can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Every violation.
pub(super) fn all(config: &ExperimentsConfig) -> Vec<Violation> {
    let mut wrong = Wrong::default();
    let token = config.force_token.len();
    if (1..SHORTEST_TOKEN).contains(&token) {
        wrong.note("force_token", format!("{token} bytes long: expected none, or at least {SHORTEST_TOKEN}"));
    }
    wrong.within("kill_switch", |wrong| kill_switch(wrong, &config.kill_switch));
    if config.experiment.len() > MOST {
        wrong.note("experiment", format!("{} experiments: expected at most {MOST}", config.experiment.len()));
    }
    if config.shadow.len() > MOST {
        wrong.note("shadow", format!("{} shadow arms: expected at most {MOST}", config.shadow.len()));
    }
    for (at, one) in config.shadow.iter().enumerate() {
        wrong.within(&format!("shadow[{at}]"), |wrong| shadow(wrong, one, &config.shadow[..at]));
    }
    for (at, one) in config.experiment.iter().enumerate() {
        wrong.within(&format!("experiment[{at}]"), |wrong| {
            alone(wrong, one);
            for other in &config.experiment[..at] {
                beside(wrong, one, other);
            }
        });
    }
    wrong.found
}

fn alone(wrong: &mut Wrong, one: &ExperimentConfig) {
    wrong.name("key", &one.key);
    for (field, text) in [("seed", &one.seed), ("layer", &one.layer), ("holdout_seed", &one.holdout_seed)] {
        if text.as_ref().is_some_and(String::is_empty) {
            wrong.note(field, "empty: expected a text, or no such field");
        }
    }
    if one.unit.is_empty() {
        wrong.note("unit", "empty: expected user_id, or the name of an attribute");
    }
    wrong.share("coverage", one.coverage);
    wrong.share("holdout", one.holdout);
    let [start, end] = one.namespace;
    if !(start >= 0.0 && start < end && end <= 1.0) {
        wrong.note("namespace", format!("[{start}, {end}]: expected two numbers from 0 to 1, the smaller first"));
    }
    if one.layer.is_none() && one.namespace != [0.0, 1.0] {
        wrong.note("namespace", format!("[{start}, {end}] without a layer: expected a layer whose part it is"));
    }
    if let (Some(start), Some(end)) = (one.start, one.end)
        && start >= end
    {
        wrong.note("end", format!("{} s: expected later than start, {} s", end.0, start.0));
    }
    for (at, condition) in one.eligibility.iter().enumerate() {
        wrong.within(&format!("eligibility[{at}]"), |wrong| eligibility(wrong, condition));
    }
    arms(wrong, &one.arms);
}

fn arms(wrong: &mut Wrong, arms: &[ArmConfig]) {
    if !(1..=MOST).contains(&arms.len()) {
        wrong.note("arms", format!("{} arms: expected 1 to {MOST}", arms.len()));
    }
    for (at, arm) in arms.iter().enumerate() {
        wrong.within(&format!("arms[{at}]"), |wrong| {
            wrong.name("name", &arm.name);
            if arm.name == NO_ARM {
                wrong.note("name", format!("{NO_ARM:?}: expected another, metrics name requests without an arm so"));
            }
            if arms[..at].iter().any(|other| other.name == arm.name) {
                wrong.note("name", format!("{:?}: expected one that no other arm has", arm.name));
            }
            if let Some(variant) = &arm.variant {
                wrong.name("variant", variant);
            }
            decode(wrong, &arm.decode);
        });
    }
    let given: Vec<f64> = arms.iter().filter_map(|arm| arm.weight).collect();
    if given.is_empty() {
        return;
    }
    for (at, description) in weight_problems(&given, arms.len()) {
        // A place among the given weights is one among the arms only when every arm has one.
        let of_arm = |at: &usize| (given.len() == arms.len()).then(|| format!("arms[{at}].weight"));
        wrong.note(&at.as_ref().and_then(of_arm).unwrap_or_else(|| "arms.weight".into()), description);
    }
}

fn shadow(wrong: &mut Wrong, one: &ShadowConfig, before: &[ShadowConfig]) {
    wrong.name("name", &one.name);
    if before.iter().any(|other| other.name == one.name) {
        wrong.note("name", format!("{:?}: expected one that no other shadow arm has", one.name));
    }
    if let Some(variant) = &one.variant {
        wrong.name("variant", variant);
    }
    wrong.share("share", one.share);
    decode(wrong, &one.decode);
}

fn decode(wrong: &mut Wrong, decode: &ArmDecode) {
    if let Some(beam) = decode.beam.filter(|beam| !(1..=1000).contains(beam)) {
        wrong.note("decode.beam", format!("{beam}: expected 1 to 1000"));
    }
    if let Some(theta) = decode.theta.filter(|theta| !(0.0..=LN_2).contains(theta)) {
        wrong.note("decode.theta", format!("{theta}: expected 0 to {LN_2}"));
    }
}

fn eligibility(wrong: &mut Wrong, condition: &Condition) {
    if condition.attribute.is_empty() {
        wrong.note("attribute", "empty: expected user_id, or the name of an attribute");
    }
    let lists = [&condition.one_of, &condition.not_in];
    let set = usize::from(condition.equals.is_some()) + lists.iter().filter(|list| list.is_some()).count();
    if set != 1 {
        wrong.note("equals, in, not_in", format!("set {set} times: expected exactly one of the three"));
    }
    for (field, list) in ["in", "not_in"].into_iter().zip(lists) {
        if list.as_ref().is_some_and(Vec::is_empty) {
            wrong.note(field, "an empty list: expected at least one value");
        }
    }
}

fn kill_switch(wrong: &mut Wrong, switch: &KillSwitchConfig) {
    wrong.whole("window_s", switch.window_s, 86_400);
    wrong.whole("min_requests", switch.min_requests, 1_000_000);
    wrong.whole("max_p99_ms", switch.max_p99_ms, 3_600_000);
    wrong.share("max_error_share", switch.max_error_share);
    wrong.share("max_empty_share", switch.max_empty_share);
}

/// What two experiments may not do beside each other.
fn beside(wrong: &mut Wrong, one: &ExperimentConfig, other: &ExperimentConfig) {
    let key = &other.key;
    if one.key == *key {
        wrong.note("key", format!("{key:?}: expected one that no other experiment has"));
    }
    let begins = one.start.max(other.start);
    let ends = [one.end, other.end].into_iter().flatten().min();
    if ends.is_some_and(|ends| begins.is_some_and(|begins| begins >= ends)) {
        return;
    }
    if one.layer.is_some() && one.layer == other.layer {
        if one.unit != other.unit {
            let expected = format!("{:?}: expected {:?}, as {key:?} of the same layer has", one.unit, other.unit);
            wrong.note("unit", expected);
        }
        let ([start, end], [from, to]) = (one.namespace, other.namespace);
        if start < to && from < end {
            let expected = format!("expected a part of the layer without [{from}, {to}], which {key:?} has");
            wrong.note("namespace", format!("[{start}, {end}]: {expected}"));
        }
        return;
    }
    if one.seed() == other.seed() {
        let expected = format!("{:?}: expected another than that of {key:?}, or both put units alike", one.seed());
        wrong.note("seed", expected);
    }
    // A unit may be in both. What both set could not be told apart in the outcome.
    for parameter in parameters(one).intersection(&parameters(other)) {
        let expected = format!("that {key:?} sets too: expected both in one layer, with parts of their own");
        wrong.note("arms", format!("some {parameter} {expected}"));
    }
}

/// What the arms of an experiment set.
fn parameters(experiment: &ExperimentConfig) -> BTreeSet<&'static str> {
    let set = |arm: &ArmConfig| {
        let decode = arm.decode;
        [
            ("variant", arm.variant.is_some()),
            ("decode.engine", decode.engine.is_some()),
            ("decode.beam", decode.beam.is_some()),
            ("decode.theta", decode.theta.is_some()),
            ("decode.corp", decode.corp.is_some()),
            ("decode.full_path", decode.full_path.is_some()),
        ]
    };
    experiment.arms.iter().flat_map(set).filter(|(_, set)| *set).map(|(name, _)| name).collect()
}

/// The violations found so far, and where the next ones are looked for.
#[derive(Debug, Default)]
struct Wrong {
    found: Vec<Violation>,
    place: String,
}

impl Wrong {
    fn note(&mut self, field: &str, description: impl Into<String>) {
        self.found.push(Violation::new(format!("{}{field}", self.place), description));
    }

    fn within(&mut self, part: &str, look: impl FnOnce(&mut Self)) {
        let outside = self.place.len();
        self.place.push_str(part);
        self.place.push('.');
        look(self);
        self.place.truncate(outside);
    }

    fn name(&mut self, field: &str, name: &str) {
        let legal = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if !(1..=64).contains(&name.len()) || !name.chars().all(legal) {
            self.note(field, format!("{name:?}: expected 1 to 64 of A-Z a-z 0-9 - _ ."));
        }
    }

    fn share(&mut self, field: &str, value: f64) {
        if !(0.0..=1.0).contains(&value) {
            self.note(field, format!("{value}: expected 0 to 1"));
        }
    }

    fn whole(&mut self, field: &str, value: u64, most: u64) {
        if !(1..=most).contains(&value) {
            self.note(field, format!("{value}: expected 1 to {most}"));
        }
    }
}
