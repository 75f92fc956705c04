//! One experiment as it went, step by step in the order of time: sums of each arm at the end, and its lift on the way.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::sample_ratio::p_value;
use super::comparison::{Comparison, compare};
use super::ledger::{Ledger, Mark, Part};
use super::rate::{Outcome, Rate};
use super::sequence::ConfidenceSequence;
use super::summary::{ArmReport, ExperimentReport, Lifts, Point};
use crate::domain::{AssignmentReason, Design, EventKind};

/// Times at which the lift is told for the picture.
const POINTS: i64 = 120;

/// Something that happens to the sums.
struct Step {
    at_ms: i64,
    /// Which exposure.
    exposure: usize,
    what: What,
}

enum What {
    Shown { arm: usize, unit: Mark },
    Did { kind: EventKind, value: f64 },
}

/// The report of the experiment that has these designs.
pub(super) fn experiment(ledger: &Ledger, designs: &[usize], sequence: ConfidenceSequence) -> ExperimentReport {
    let parts: Vec<(usize, i64, &Part)> = parts(ledger, designs);
    // A design is known by an exposure, so there is one.
    let newest = parts.iter().max_by_key(|(_, at_ms, _)| *at_ms).map_or(designs[0], |(_, _, part)| part.design);
    let newest = ledger.design(newest);
    let agrees = |part: &Part| ledger.design(part.design).agrees(newest);

    let mut beside = vec![HashMap::<AssignmentReason, u64>::new(); newest.arms.len()];
    let (mut steps, mut assigned) = (Vec::new(), HashSet::new());
    let (mut versions, mut superseded) = (BTreeSet::new(), 0);
    let (mut first_ms, mut last_ms) = (i64::MAX, i64::MIN);
    for &(exposure, at_ms, part) in &parts {
        if !agrees(part) {
            superseded += 1;
            continue;
        }
        versions.insert(ledger.design(part.design).version.clone());
        (first_ms, last_ms) = (first_ms.min(at_ms), last_ms.max(at_ms));
        if part.reason == AssignmentReason::Assigned {
            assigned.insert(exposure);
            steps.push(Step { at_ms, exposure, what: What::Shown { arm: part.arm, unit: part.unit } });
        } else {
            *beside[part.arm].entry(part.reason).or_default() += 1;
        }
    }
    for (exposure, event) in ledger.joined().filter(|(exposure, _)| assigned.contains(exposure)) {
        // The log may hold the event first, and clocks may be set back.
        let at_ms = event.at_ms.max(ledger.shown()[exposure].at_ms);
        steps.push(Step { at_ms, exposure, what: What::Did { kind: event.kind, value: event.value } });
    }
    steps.sort_by_key(|step| (step.at_ms, matches!(step.what, What::Did { .. })));

    let mut course = Course::new(newest.arms.len(), sequence);
    let timeline = course.run(&steps);
    let units: Vec<u64> = course.arms.iter().map(|arm| arm.ctr.units()).collect();
    ExperimentReport {
        experiment: newest.experiment.clone(),
        versions,
        first_ms,
        last_ms,
        superseded,
        crossed: course.crossed,
        sample_ratio_p: p_value(&units, &newest.weights),
        arms: (0..newest.arms.len()).map(|arm| course.arm(arm, newest, &beside[arm])).collect(),
        timeline,
    }
}

/// The parts that the designs have in exposures: which exposure, when, what.
fn parts<'a>(ledger: &'a Ledger, designs: &[usize]) -> Vec<(usize, i64, &'a Part)> {
    let part = |(exposure, shown): (usize, &'a super::ledger::Shown)| {
        let part = shown.parts.iter().find(|part| designs.contains(&part.design))?;
        Some((exposure, shown.at_ms, part))
    };
    ledger.shown().iter().enumerate().filter_map(part).collect()
}

/// The sums at one time.
struct Course {
    sequence: ConfidenceSequence,
    arms: Vec<Arm>,
    units: HashMap<Mark, Unit>,
    /// The answers that count, each with its unit and whether it was clicked.
    answers: HashMap<usize, (Mark, bool)>,
    crossed: u64,
}

#[derive(Debug, Clone, Default)]
struct Arm {
    impressions: u64,
    clicks: u64,
    clicked: u64,
    conversions: u64,
    value: f64,
    /// Answers clicked of answers shown.
    ctr: Rate,
    /// Purchases a unit.
    purchases: Rate,
    /// Value a unit.
    worth: Rate,
}

#[derive(Debug, Clone, Copy)]
struct Unit {
    arm: usize,
    impressions: u64,
    clicked: u64,
    conversions: u64,
    value: f64,
}

impl Unit {
    /// Answers clicked of answers shown, purchases, value.
    fn outcomes(&self) -> [Outcome; 3] {
        let ctr = Outcome { y: self.clicked as f64, x: self.impressions as f64 };
        [ctr, Outcome { y: self.conversions as f64, x: 1.0 }, Outcome { y: self.value, x: 1.0 }]
    }
}

impl Course {
    fn new(arms: usize, sequence: ConfidenceSequence) -> Self {
        let arms = vec![Arm::default(); arms];
        Self { sequence, arms, units: HashMap::new(), answers: HashMap::new(), crossed: 0 }
    }

    /// Takes every step, and tells the lift at even times between the first and the last.
    fn run(&mut self, steps: &[Step]) -> Vec<Point> {
        let mut points = Vec::new();
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return points };
        let time = |point: i64| first.at_ms + (last.at_ms - first.at_ms).saturating_mul(point) / POINTS;
        let mut next = 1;
        for step in steps {
            while next < POINTS && time(next) < step.at_ms {
                points.push(self.point(time(next)));
                next += 1;
            }
            self.take(step);
        }
        points.push(self.point(last.at_ms));
        points
    }

    fn take(&mut self, step: &Step) {
        match step.what {
            What::Shown { arm, unit } => self.show(step.exposure, arm, unit),
            What::Did { kind, value } => self.happen(step.exposure, kind, value),
        }
    }

    fn show(&mut self, exposure: usize, arm: usize, unit: Mark) {
        if self.units.get(&unit).is_some_and(|known| known.arm != arm) {
            self.crossed += 1;
            return;
        }
        self.answers.insert(exposure, (unit, false));
        self.arms[arm].impressions += 1;
        let new = Unit { arm, impressions: 0, clicked: 0, conversions: 0, value: 0.0 };
        self.change(unit, new, |unit| unit.impressions += 1);
    }

    fn happen(&mut self, exposure: usize, kind: EventKind, value: f64) {
        let Some((unit, clicked)) = self.answers.get_mut(&exposure) else { return };
        let (mark, Some(&unit)) = (*unit, self.units.get(unit)) else { return };
        let arm = &mut self.arms[unit.arm];
        match kind {
            EventKind::Click => {
                arm.clicks += 1;
                if !std::mem::replace(clicked, true) {
                    arm.clicked += 1;
                    self.change(mark, unit, |unit| unit.clicked += 1);
                }
            }
            EventKind::Purchase => {
                arm.conversions += 1;
                arm.value += value;
                self.change(mark, unit, |unit| {
                    unit.conversions += 1;
                    unit.value += value;
                });
            }
            EventKind::View | EventKind::Cart | EventKind::Hide | EventKind::Rating => {}
        }
    }

    /// Changes a unit, which is `new` where it is not known yet, and its arm's rates with it.
    fn change(&mut self, mark: Mark, new: Unit, change: impl FnOnce(&mut Unit)) {
        let before = self.units.get(&mark).map(Unit::outcomes);
        let unit = self.units.entry(mark).or_insert(new);
        change(unit);
        let arm = &mut self.arms[unit.arm];
        for (at, (rate, now)) in
            [&mut arm.ctr, &mut arm.purchases, &mut arm.worth].into_iter().zip(unit.outcomes()).enumerate()
        {
            rate.change(before.map(|before| before[at]), now);
        }
    }

    fn point(&self, at_ms: i64) -> Point {
        Point { at_ms, ctr: (1..self.arms.len()).map(|arm| self.compare(arm, |arm| &arm.ctr)).collect() }
    }

    /// The band goes by the exposures of both arms, and its width by their units. Where every unit has one exposure that
    /// is the paper's; where units come back, the estimate's values at two times are at least as alike as those of a sum
    /// of independent draws, so that it leaves such a band no more often.
    fn compare(&self, arm: usize, rate: impl Fn(&Arm) -> &Rate) -> Option<Comparison> {
        let (control, arm) = (&self.arms[0], &self.arms[arm]);
        let reach = self.sequence.reach(control.impressions + arm.impressions);
        compare(rate(control), rate(arm), reach)
    }

    fn arm(&self, at: usize, design: &Design, beside: &HashMap<AssignmentReason, u64>) -> ArmReport {
        let arm = &self.arms[at];
        let count = |reason| beside.get(&reason).copied().unwrap_or_default();
        let over_control = (at > 0).then(|| Lifts {
            ctr: self.compare(at, |arm| &arm.ctr),
            conversions: self.compare(at, |arm| &arm.purchases),
            value: self.compare(at, |arm| &arm.worth),
        });
        ArmReport {
            arm: design.arms[at].clone(),
            weight: design.weights[at],
            units: arm.ctr.units(),
            impressions: arm.impressions,
            clicks: arm.clicks,
            clicked: arm.clicked,
            ctr: arm.ctr.value(),
            conversions: arm.conversions,
            value: arm.value,
            over_control,
            forced: count(AssignmentReason::Forced),
            killed: count(AssignmentReason::Killed),
            fallback_not_loaded: count(AssignmentReason::FallbackNotLoaded),
            fallback_error: count(AssignmentReason::FallbackError),
        }
    }
}
