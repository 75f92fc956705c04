//! The experiments of a server and what has come of them so far.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use crate::domain::{AssignmentReason, Design, Failure, ForcedArm, RecommendRequest, Secret, Violation};

use super::config::{ExperimentsConfig, KillSwitchConfig};
use super::draw::{Draw, Experiment, Subject};
use super::kill_switch::{Attempt, Tally, Window};
use super::metrics::ExperimentMetrics;
use super::sample_ratio::{ALARM, SampleRatio};
use super::trial::{Trial, Verdict};

/// All experiments of a server.
#[derive(Debug)]
pub struct Experiments {
    force_token: Secret,
    pub(super) list: Vec<Arc<Running>>,
    kill_switch: KillSwitchConfig,
    metrics: ExperimentMetrics,
    units: RandomState,
}

/// One experiment and what has come of it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) experiment: Experiment,
    pub(super) design: Arc<Design>,
    arms: Vec<Watched>,
    ratio: Mutex<SampleRatio>,
}

/// One arm and whether it does harm.
#[derive(Debug)]
struct Watched {
    window: Mutex<Window>,
    killed: AtomicBool,
}

impl Experiments {
    /// The experiments of these settings, as if nothing had come of them yet.
    ///
    /// # Errors
    /// A violation for every wrong field; see [`ExperimentsConfig::validate`].
    pub fn new(config: &ExperimentsConfig, metrics: ExperimentMetrics) -> Result<Self, Vec<Violation>> {
        Self::following(None, config, metrics)
    }

    /// The experiments of these settings in place of others. One whose settings stay the same goes on: an arm of it that was
    /// killed stays so, and its units go on being counted.
    ///
    /// # Errors
    /// As [`Experiments::new`].
    pub fn following(
        before: Option<&Self>,
        config: &ExperimentsConfig,
        metrics: ExperimentMetrics,
    ) -> Result<Self, Vec<Violation>> {
        config.validate()?;
        let now = Instant::now();
        let kept = before.filter(|before| before.kill_switch == config.kill_switch);
        let kept = |next: &Experiment| {
            let same = |running: &&Arc<Running>| {
                running.experiment.key == next.key && running.experiment.version == next.version
            };
            kept.and_then(|before| before.list.iter().find(same)).cloned()
        };
        let running = |one: &super::config::ExperimentConfig| {
            let experiment = Experiment::new(one);
            let window = || Mutex::new(Window::new(config.kill_switch, now));
            let watched = || Watched { window: window(), killed: AtomicBool::new(false) };
            kept(&experiment).unwrap_or_else(|| {
                Arc::new(Running {
                    arms: experiment.arms.iter().map(|_| watched()).collect(),
                    ratio: Mutex::new(SampleRatio::new(experiment.weights.clone())),
                    design: Arc::new(experiment.design()),
                    experiment,
                })
            })
        };
        let list: Vec<Arc<Running>> = config.experiment.iter().map(running).collect();
        metrics.show(list.iter().map(|running| &running.experiment));
        for running in &list {
            let killed = running.experiment.arms.iter().zip(&running.arms).filter(|(_, watched)| watched.killed());
            killed.for_each(|(arm, _)| metrics.kill(&running.experiment.key, &arm.name));
            metrics.p_value(&running.experiment.key, locked(&running.ratio).p());
        }
        // Units are told apart by their marks, also by those who count on.
        let units = before.map_or_else(RandomState::new, |before| before.units.clone());
        let (force_token, kill_switch) = (config.force_token.clone(), config.kill_switch);
        Ok(Self { force_token, list, kill_switch, metrics, units })
    }

    /// Draws for a request that arrives `now`. One that names a variant is in no experiment; one that forces an arm is
    /// in that arm's experiment alone.
    ///
    /// # Errors
    /// `Denied` when the request forces an arm without the right to, `Invalid` when there is no such arm, or when it
    /// names a variant too.
    pub fn enter(self: Arc<Self>, request: &RecommendRequest, now: SystemTime) -> Result<Trial, Failure> {
        let subject = Subject { user_id: &request.user_id, attributes: &request.attributes };
        let verdicts = if let Some(forced) = &request.forced {
            vec![self.force(forced, request)?]
        } else if !request.variant.is_empty() {
            Vec::new()
        } else {
            let now = unix_seconds(now);
            let draw = |(at, running): (usize, &Arc<Running>)| {
                let draw = running.experiment.draw(subject, now)?;
                let unit = running.experiment.unit(subject).map_or(0, |unit| self.units.hash_one(unit));
                Some(running.verdict(at, draw, unit))
            };
            self.list.iter().enumerate().filter_map(draw).collect()
        };
        Ok(Trial::new(self, verdicts, request))
    }

    fn force(&self, forced: &ForcedArm, request: &RecommendRequest) -> Result<Verdict, Failure> {
        if self.force_token.is_empty() {
            return Err(Failure::Denied("nobody may force an arm, as experiments.force_token is not set"));
        }
        if !self.force_token.matches(&forced.token) {
            return Err(Failure::Denied("an arm is forced without the token that gives the right to"));
        }
        let invalid = |field: &str, description: String| Failure::Invalid(vec![Violation::new(field, description)]);
        if !request.variant.is_empty() {
            let description = format!("is {:?} beside a forced arm, expected one of the two", request.variant);
            return Err(invalid("variant", description));
        }
        let found = self.list.iter().position(|running| running.experiment.key == forced.experiment);
        let found = found.and_then(|at| {
            let mut arms = self.list[at].experiment.arms.iter();
            arms.position(|arm| arm.name == forced.arm).map(|arm| (at, arm))
        });
        let unknown = || {
            let description =
                format!("is {}={}, expected an experiment and one of its arms", forced.experiment, forced.arm);
            invalid(ForcedArm::FIELD, description)
        };
        let (experiment, arm) = found.ok_or_else(unknown)?;
        let reason = AssignmentReason::Forced;
        Ok(Verdict { experiment, arm: Some(arm), applied: Some(arm), reason, unit: 0 })
    }

    pub(super) fn metrics(&self) -> &ExperimentMetrics {
        &self.metrics
    }

    /// Counts how a request went at an arm; where that shows harm, the arm gets no more.
    pub(super) fn attempt(&self, verdict: &Verdict, arm: usize, attempt: Attempt) {
        let running = &self.list[verdict.experiment];
        let (key, name) = (&running.experiment.key, &running.experiment.arms[arm].name);
        self.metrics.attempt(key, name, attempt.took, attempt.failed, attempt.empty);
        // What people try by hand proves nothing of the traffic.
        if verdict.reason == AssignmentReason::Forced {
            return;
        }
        let (watched, now) = (&running.arms[arm], Instant::now());
        let tally = locked(&watched.window).count(attempt, now);
        let others = || {
            let others = running.arms.iter().enumerate().filter(|(other, watched)| *other != arm && !watched.killed());
            others.map(|(_, other)| locked(&other.window).tally(now)).fold(Tally::default(), Tally::and)
        };
        let Some(harm) = tally.harm(others, &self.kill_switch) else { return };
        if !watched.killed.swap(true, Ordering::SeqCst) {
            // What the others suffered beside this arm is no measure of what they do without it.
            let others = running.arms.iter().enumerate().filter(|(other, _)| *other != arm);
            others.for_each(|(_, other)| *locked(&other.window) = Window::new(self.kill_switch, now));
            self.metrics.kill(key, name);
            tracing::warn!(experiment = key, arm = name, "the arm gets no more traffic: {harm}");
        }
    }

    /// Counts that an arm was delivered to the unit that drew it.
    pub(super) fn deliver(&self, verdict: &Verdict, arm: usize) {
        let running = &self.list[verdict.experiment];
        // Once an arm is killed the ratio is off by intention, and says nothing any more.
        if running.arms.iter().any(Watched::killed) {
            return;
        }
        let mut ratio = locked(&running.ratio);
        let change = ratio.deliver(arm, verdict.unit);
        let p = ratio.p();
        drop(ratio);
        let key = &running.experiment.key;
        self.metrics.p_value(key, p);
        let Some(change) = change else { return };
        let (units, weights) = (&change.counts, &running.experiment.weights);
        if change.alarmed {
            tracing::warn!(
                experiment = key,
                p,
                ?units,
                ?weights,
                "units are not delivered to arms by their weights (p < {ALARM}): do not compare the arms",
            );
        } else {
            tracing::warn!(experiment = key, p, ?units, ?weights, "units are delivered to arms by their weights again");
        }
    }
}

impl Running {
    fn verdict(&self, experiment: usize, draw: Draw, unit: u64) -> Verdict {
        match draw {
            Draw::Out(reason) => Verdict { experiment, arm: None, applied: None, reason, unit },
            Draw::Arm(arm) if !self.arms[arm].killed() => {
                Verdict { experiment, arm: Some(arm), applied: Some(arm), reason: AssignmentReason::Assigned, unit }
            }
            Draw::Arm(arm) => {
                let control = Some(0).filter(|&control| !self.arms[control].killed());
                Verdict { experiment, arm: Some(arm), applied: control, reason: AssignmentReason::Killed, unit }
            }
        }
    }
}

impl Watched {
    fn killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }
}

/// What is counted stays usable even when a panic interrupted a count.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_seconds(now: SystemTime) -> i64 {
    match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}
