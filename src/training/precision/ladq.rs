//! The state of LADQ along a run: when to sample, what to give, what was given.

use std::collections::{BTreeMap, HashMap};

use burn::module::ParamId;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::assign::{LayerFacts, assign};
use super::format::Format;
use super::layers::{Traces, layers, rounded};
use crate::domain::Violation;
use crate::model::Network;

/// How much a new sample of a trace counts against what was known.
const FRESH: f32 = 0.5;

/// A loss this many times its running mean is a divergence.
const DIVERGED: f32 = 1.5;

/// Steps over which the running mean of the loss forgets.
const MEMORY: f32 = 50.0;

/// Settings of layer-adaptive precision.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LadqConfig {
    /// Share of the layers that compute in reduced precision; 0 leaves all in fp32.
    pub reduced: f64,
    /// Share of those that go down to fp8.
    pub fp8: f64,
    /// P: steps between two samples of the traces.
    pub period: usize,
    /// How much cheaper, as a share, another format must be before a layer changes.
    pub hysteresis: f64,
}

impl Default for LadqConfig {
    fn default() -> Self {
        Self { reduced: 0.0, fp8: 0.25, period: 100, hysteresis: 0.1 }
    }
}

impl LadqConfig {
    /// Every setting that cannot be.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let shares = [("ladq.reduced", self.reduced), ("ladq.fp8", self.fp8), ("ladq.hysteresis", self.hysteresis)];
        let mut wrong: Vec<Violation> = shares
            .into_iter()
            .filter(|(_, value)| !(0.0..=1.0).contains(value))
            .map(|(field, value)| Violation::new(field, format!("{value}: expected 0 to 1")))
            .collect();
        if self.period == 0 {
            wrong.push(Violation::new("ladq.period", "0: expected at least 1"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// The formats of all layers from one step on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The first step that computed with it.
    pub step: usize,
    /// Whether a divergence asked for it.
    pub after_divergence: bool,
    /// By layer.
    pub formats: BTreeMap<String, Format>,
}

/// What LADQ did, for manifest and report.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LadqReport {
    /// Whether formats were emulated: weights rounded, everything else f32.
    pub emulated: bool,
    /// Steps of layers in reduced precision, and of layers at all.
    pub reduced_layer_steps: u64,
    /// Steps times layers that learn.
    pub layer_steps: u64,
    /// Divergences that were met by sampling again.
    pub divergences: u32,
    /// Every change, the first one first.
    pub assignments: Vec<Assignment>,
}

/// What LADQ knows, as a checkpoint keeps it; f32, so that it reads back to the same bits.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LadqState {
    /// Smoothed sensitivities by layer.
    known: BTreeMap<String, f32>,
    /// Running mean of the loss.
    loss: Option<f32>,
    /// Whether the next step is sampled whatever its number.
    sample_now: bool,
    /// What was done.
    pub report: LadqReport,
}

/// Layer-adaptive precision of one run.
#[derive(Debug, Clone)]
pub struct Ladq {
    config: LadqConfig,
    formats: HashMap<ParamId, Format>,
    state: LadqState,
}

impl Ladq {
    /// All layers in fp32 until the first sample; or as `state`, of a checkpoint, left it.
    pub fn new<B: Backend>(config: LadqConfig, state: Option<LadqState>, network: &Network<B>) -> Self {
        let fresh = || {
            let report = LadqReport { emulated: true, ..LadqReport::default() };
            LadqState { sample_now: true, report, ..LadqState::default() }
        };
        let state = state.unwrap_or_else(fresh);
        let mut formats = HashMap::new();
        if let Some(last) = state.report.assignments.last() {
            let by_name = layers(network).into_iter().filter_map(|(name, id, _)| Some((id, *last.formats.get(&name)?)));
            formats.extend(by_name);
        }
        Self { config, formats, state }
    }

    /// Whether anything is reduced at all.
    pub fn is_on(&self) -> bool {
        self.config.reduced > 0.0
    }

    /// Whether step `step` is to be listened to.
    pub fn samples(&self, step: usize) -> bool {
        self.is_on() && (self.state.sample_now || step.is_multiple_of(self.config.period))
    }

    /// The network that a step computes with.
    pub fn applied<B: Backend>(&mut self, network: &Network<B>) -> Network<B> {
        if !self.is_on() {
            return network.clone();
        }
        let reduced = self.formats.values().filter(|format| **format != Format::Fp32).count();
        self.state.report.reduced_layer_steps += reduced as u64;
        self.state.report.layer_steps += self.formats.len() as u64;
        rounded(network.clone(), &self.formats)
    }

    /// Takes in the traces of step `step`, and gives formats anew to the layers that learn. `network` holds the kept weights.
    pub fn sample<B: Backend>(&mut self, network: &Network<B>, traces: &HashMap<ParamId, Traces>, step: usize) {
        let state = &mut self.state;
        let after_divergence = state.sample_now && !state.known.is_empty();
        state.sample_now = false;
        let mut all = layers(network);
        for (name, id, weights) in &all {
            let Some(traces) = traces.get(id) else { continue };
            let fresh = (traces.inputs * traces.outputs / weights.len().max(1) as f64) as f32;
            if fresh.is_finite() {
                let known = state.known.entry(name.clone()).or_insert(fresh);
                *known += FRESH * (fresh - *known);
            }
        }
        // A layer that no step was seen to compute with and learn, such as a frozen encoder's, has no say in shares.
        all.retain(|(name, ..)| state.known.contains_key(name));
        let facts: Vec<LayerFacts> = all
            .iter()
            .map(|(name, _, weights)| LayerFacts {
                name: name.clone(),
                sensitivity: f64::from(state.known[name]),
                errors: [Format::Bf16, Format::Fp8].map(|format| format.squared_error(weights)),
            })
            .collect();
        let now: Vec<Format> = all.iter().map(|(_, id, _)| self.formats.get(id).copied().unwrap_or_default()).collect();
        let formats = assign(&facts, &now, self.config.reduced, self.config.fp8, self.config.hysteresis);
        self.formats = all.iter().zip(&formats).map(|((_, id, _), &format)| (*id, format)).collect();
        let named: BTreeMap<String, Format> = all.into_iter().map(|(name, ..)| name).zip(formats).collect();
        if state.report.assignments.last().is_none_or(|last| last.formats != named) {
            state.report.assignments.push(Assignment { step: step + 1, after_divergence, formats: named });
        }
    }

    /// Takes in a step's loss. A loss far above its running mean asks for a sample at once.
    pub fn watch(&mut self, loss: f32) {
        if !self.is_on() {
            return;
        }
        let state = &mut self.state;
        let mean = *state.loss.get_or_insert(loss);
        if loss > DIVERGED * mean.abs().max(1.0e-3) {
            state.sample_now = true;
            state.report.divergences += 1;
        }
        state.loss = Some(mean + (loss - mean) / MEMORY);
    }

    /// What a checkpoint keeps; none while nothing is reduced.
    pub fn state(&self) -> Option<LadqState> {
        self.is_on().then(|| self.state.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_jumps_asks_for_a_sample() {
        let config = LadqConfig { reduced: 0.5, period: 1_000, ..LadqConfig::default() };
        let mut ladq = Ladq { config, formats: HashMap::new(), state: LadqState::default() };
        (0..20).for_each(|_| ladq.watch(2.0));
        assert!(!ladq.samples(7));
        ladq.watch(3.5);
        assert!(ladq.samples(7));
        assert_eq!(ladq.state().unwrap().report.divergences, 1);
    }

    #[test]
    fn it_is_off_unless_asked_for() {
        let mut ladq = Ladq { config: LadqConfig::default(), formats: HashMap::new(), state: LadqState::default() };
        ladq.watch(1.0);
        ladq.watch(100.0);
        assert!(!ladq.samples(0) && ladq.state().is_none());
    }

    #[test]
    fn shares_out_of_range_are_named() {
        let config = LadqConfig { reduced: 1.5, period: 0, ..LadqConfig::default() };
        let told: Vec<String> = config.validate().unwrap_err().iter().map(|wrong| wrong.field.clone()).collect();
        assert_eq!(told, ["ladq.reduced", "ladq.period"]);
    }
}
