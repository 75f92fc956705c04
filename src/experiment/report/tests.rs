//! The statistics against values worked out by hand and against chance; the join, each thing counted once.

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::comparison::ratio_bounds;
use super::*;
use crate::domain::{AssignmentReason, Design, Event, EventKind, ExposedArm, Exposure, UserEvent};

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

fn rate(outcomes: &[(f64, f64)]) -> Rate {
    let mut rate = Rate::default();
    outcomes.iter().for_each(|&(y, x)| rate.change(None, Outcome { y, x }));
    rate
}

#[test]
fn a_band_reaches_as_far_as_robbins_mixture_says() {
    let sequence = ConfidenceSequence::new(0.05, 10_000).unwrap();
    // sqrt((1 + 1/u) ln((u + 1) / alpha^2)) with u = n rho^2, in another program.
    assert!(near(sequence.reach(10_000), 3.035_446_396_635_931), "{}", sequence.reach(10_000));
    assert!(near(sequence.reach(100), 8.675_255_992_813_673), "{}", sequence.reach(100));
    let stricter = ConfidenceSequence::new(0.01, 1000).unwrap();
    assert!(near(stricter.reach(4000), 3.660_725_744_987_514), "{}", stricter.reach(4000));
    assert_eq!(sequence.reach(0), f64::INFINITY);
    // Looking once reaches 1.96 standard errors; looking always costs more, least where it was asked for.
    let width = |n: u64| sequence.reach(n) / (n as f64).sqrt();
    assert!(sequence.reach(10_000) > 1.96 && width(20_000) < width(10_000));
    let tightest = |at: u64| ConfidenceSequence::new(0.05, at).unwrap().reach(10_000);
    assert!([100, 1000, 4000, 25_000, 100_000].iter().all(|&at| tightest(at) > tightest(10_000)));
}

#[test]
fn levels_that_are_none_are_named() {
    for alpha in [0.0, -0.1, 0.6, f64::NAN, f64::INFINITY] {
        let wrong = ConfidenceSequence::new(alpha, 0).unwrap_err();
        let named: Vec<&str> = wrong.iter().map(|wrong| wrong.field.as_str()).collect();
        assert_eq!(named, ["alpha", "tightest_at"], "{alpha}");
    }
    ConfidenceSequence::new(0.5, 1).unwrap();
}

#[test]
fn a_rates_variance_is_that_of_its_units() {
    // 4 of 6; residuals -1/3, -2/3, 1 with squares of 14/9 in sum; 3/2 * 14/9 / 36.
    let three = rate(&[(1.0, 2.0), (0.0, 1.0), (3.0, 3.0)]);
    assert!(near(three.value().unwrap(), 2.0 / 3.0) && near(three.variance().unwrap(), 7.0 / 108.0));
    // A mean per unit: s^2 / n, here of 2, 4, 9: (9 + 1 + 16) / 2 / 3.
    let mean = rate(&[(2.0, 1.0), (4.0, 1.0), (9.0, 1.0)]);
    assert!(near(mean.value().unwrap(), 5.0) && near(mean.variance().unwrap(), 13.0 / 3.0));
    let mut grown = rate(&[(0.0, 1.0), (0.0, 1.0)]);
    grown.change(Some(Outcome { y: 0.0, x: 1.0 }), Outcome { y: 1.0, x: 2.0 });
    grown.change(None, Outcome { y: 3.0, x: 3.0 });
    assert_eq!((grown, grown.units()), (three, 3), "outcomes that grow end where those that are told at once do");
    assert_eq!((Rate::default().value(), rate(&[(1.0, 1.0)]).variance()), (None, None));
}

#[test]
fn bounds_are_those_worked_out_by_hand() {
    // 10 of 100 and 20 of 100 units: variances p (1 - p) / 99.
    let of = |hits: usize| rate(&(0..100).map(|at| (f64::from(u8::from(at < hits)), 1.0)).collect::<Vec<_>>());
    let found = compare(&of(10), &of(20), 2.0).unwrap();
    let margin = 2.0 * ((0.09 + 0.16) / 99.0f64).sqrt();
    assert!(near(found.difference, 0.1) && near(found.difference_low, 0.1 - margin), "{found:?}");
    assert!(near(found.difference_high, 0.1 + margin) && near(found.lift.unwrap(), 1.0));
    assert!(!found.is_conclusive() && found.lift_low.unwrap() < 0.0);
    let surer = compare(&of(10), &of(20), 1.9).unwrap();
    assert!(surer.is_conclusive() && surer.lift_low.unwrap() > 0.0);
    // g of (0.12 - 0.1 g)^2 <= 0.0009 + 0.0004 g^2: 0.0096 g^2 - 0.024 g + 0.0135 <= 0, whose roots are 1.25 -+ 0.395...
    let (low, high) = ratio_bounds(0.1, 0.12, 0.0004, 0.0009).unwrap();
    let root = (1.25f64 * 1.25 - 0.0135 / 0.0096).sqrt();
    assert!(near(low, 1.25 - root) && near(high, 1.25 + root), "{low} {high}");
    assert_eq!(ratio_bounds(0.02, 0.12, 0.0004, 0.0009), None, "the control may be 0");
}

#[test]
fn too_little_is_not_compared() {
    let of = |hits: usize, units: usize| {
        rate(&(0..units).map(|at| (f64::from(u8::from(at < hits)), 1.0)).collect::<Vec<_>>())
    };
    let fewest = FEWEST_UNITS as usize;
    assert_eq!(compare(&of(1, fewest), &of(1, fewest - 1), 2.0), None);
    assert_eq!(compare(&of(1, fewest - 1), &of(1, fewest), 2.0), None);
    assert_eq!(compare(&of(0, 100), &of(100, 100), 2.0), None, "no variance says nothing");
    let found = compare(&of(0, 100), &of(50, 100), 2.0).unwrap();
    assert_eq!((found.lift, found.lift_low, found.lift_high), (None, None, None));
    assert!(found.is_conclusive());
}

/// How units behave: they come, come back, and do something at some visits.
struct Crowd {
    /// Share of visits by a unit that was there before.
    back: f64,
    /// What a visit brings; each unit has a leaning of its own, 0 to 1.
    visit: fn(&mut ChaCha8Rng, f64) -> f64,
    /// Whether the rate is per visit or per unit.
    per_visit: bool,
    /// What an arm adds.
    added: f64,
}

impl Crowd {
    /// Looks after every one of `visits`, with bounds so many standard errors away as `reach` says after so many.
    fn look(&self, seed: u64, visits: u64, reach: impl Fn(u64) -> f64, see: &mut dyn FnMut(Comparison)) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut arms = [Rate::default(); 2];
        let mut units: Vec<(usize, f64, Outcome)> = Vec::new();
        for visit in 1..=visits {
            let returns = !units.is_empty() && random.random::<f64>() < self.back;
            let at = if returns { random.random_range(0..units.len()) } else { units.len() };
            if !returns {
                units.push((random.random_range(0..2), random.random(), Outcome::default()));
            }
            let (arm, leaning, before) = units[at];
            let added = if arm == 1 && random.random::<f64>() < self.added { 1.0 } else { 0.0 };
            let y = before.y + (self.visit)(&mut random, leaning).max(added);
            let x = if self.per_visit { before.x + 1.0 } else { 1.0 };
            let now = Outcome { y, x };
            units[at].2 = now;
            arms[arm].change(returns.then_some(before), now);
            if let Some(found) = compare(&arms[0], &arms[1], reach(visit)) {
                see(found);
            }
        }
    }

    /// In how many of 300 streams the bounds leave out that there is no difference, at any look.
    fn false_alarms(&self, visits: u64, reach: impl Fn(u64) -> f64) -> usize {
        let alarmed = |seed: u64| {
            let mut alarm = false;
            self.look(seed, visits, &reach, &mut |found| alarm |= found.is_conclusive());
            alarm
        };
        (0..300).filter(|&seed| alarmed(seed)).count()
    }
}

fn clicks(random: &mut ChaCha8Rng, leaning: f64) -> f64 {
    f64::from(u8::from(random.random::<f64>() < 0.3 * leaning * leaning))
}

fn spends(random: &mut ChaCha8Rng, leaning: f64) -> f64 {
    // One in ten buys, for amounts of a long tail.
    if random.random::<f64>() < 0.2 * leaning {
        (2.0 - 6.0 * random.random::<f64>().max(1e-9).ln()).powf(1.2)
    } else {
        0.0
    }
}

#[test]
fn bands_of_arms_that_are_alike_leave_out_zero_in_at_most_alpha_of_streams_that_are_looked_at_always() {
    let crowds = [
        ("each unit once", Crowd { back: 0.0, visit: clicks, per_visit: true, added: 0.0 }),
        ("units that come back", Crowd { back: 0.7, visit: clicks, per_visit: true, added: 0.0 }),
        ("value a unit", Crowd { back: 0.5, visit: spends, per_visit: false, added: 0.0 }),
    ];
    // Tightest well within the streams, where false alarms are likeliest.
    let sequence = ConfidenceSequence::new(0.05, 500).unwrap();
    for (name, crowd) in crowds {
        let alarms = crowd.false_alarms(2000, |visits| sequence.reach(visits));
        assert!(alarms <= 15, "{name}: {alarms} of 300");
        let fixed = crowd.false_alarms(2000, |_| 1.96);
        assert!(fixed > 45, "{name}: a test for one look would do as well, {fixed} of 300");
    }
}

#[test]
fn a_true_lift_is_found_and_stays_within_the_band() {
    let even = |random: &mut ChaCha8Rng, _: f64| f64::from(u8::from(random.random::<f64>() < 0.1));
    // 0.1 and 1 - 0.9 * 0.95 = 0.145.
    let crowd = Crowd { back: 0.0, visit: even, per_visit: true, added: 0.05 };
    let sequence = ConfidenceSequence::new(0.05, 5000).unwrap();
    let (mut found, mut strayed) = (0, 0);
    for seed in 0..300 {
        let (mut last, mut out) = (None, false);
        crowd.look(seed, 10_000, |visits| sequence.reach(visits), &mut |comparison| {
            out |= comparison.difference_low > 0.045 || comparison.difference_high < 0.045;
            let (low, high) = (comparison.lift_low.unwrap_or(-1.0), comparison.lift_high.unwrap_or(1.0));
            out |= low > 0.45 || high < 0.45;
            last = Some(comparison);
        });
        let last = last.unwrap();
        found += usize::from(last.is_conclusive() && last.difference > 0.0);
        strayed += usize::from(out);
    }
    assert!(found >= 285 && strayed <= 15, "found in {found} of 300, left the band in {strayed}");
}

fn design(version: &str, weights: [f64; 2]) -> Arc<Design> {
    let arms = vec!["control".into(), "next".into()];
    Arc::new(Design { experiment: "test".into(), version: version.into(), arms, weights: weights.to_vec() })
}

/// An exposure of one arm; its request is named after who and number.
fn exposure(user: &str, number: usize, arm: usize, reason: AssignmentReason) -> Exposure {
    let arms = vec![ExposedArm { design: design("v1", [0.5, 0.5]), arm, unit: None, reason }];
    Exposure {
        request_id: format!("{user}-{number}"),
        user_id: user.into(),
        arms,
        variant: "main".into(),
        bundle_version: "7".into(),
        item_ids: vec!["i1".into(), "i2".into()],
    }
}

fn event(kind: EventKind, request: &str, id: &str, value: Option<f32>) -> UserEvent {
    let event = Event { item_id: "i1".into(), kind, time: 5, value };
    UserEvent { user_id: "u".into(), event, event_id: id.into(), request_id: request.into() }
}

fn report(ledger: &Ledger) -> Report {
    ledger.report(0.05, 1000, None).unwrap()
}

const ASSIGNED: AssignmentReason = AssignmentReason::Assigned;

#[test]
fn everything_counts_once_in_whatever_order_it_is_told() {
    let shown = [exposure("a", 1, 0, ASSIGNED), exposure("a", 2, 0, ASSIGNED), exposure("b", 1, 1, ASSIGNED)];
    let events = [
        event(EventKind::Click, "a-1", "e1", None),
        event(EventKind::Click, "a-1", "e2", None),
        event(EventKind::Purchase, "a-2", "e3", Some(12.5)),
        event(EventKind::View, "b-1", "e4", None),
        event(EventKind::Click, "", "e5", None),
        event(EventKind::Click, "unheard", "e6", None),
        event(EventKind::Click, "b-1", "", None),
    ];
    let mut straight = Ledger::default();
    shown.iter().enumerate().for_each(|(at, one)| straight.exposed(10 * at as i64, one));
    events.iter().enumerate().for_each(|(at, one)| straight.happened(100 + at as i64, one));
    let told = report(&straight);
    assert_eq!((told.exposures, told.events, told.joined), (3, 7, 5));
    assert_eq!(told.unjoined, Unjoined { without_request_id: 1, unknown_request_id: 1 });
    let [one] = told.experiments.as_slice() else { panic!("{told:?}") };
    assert_eq!((one.first_ms, one.last_ms, one.superseded, one.crossed), (0, 20, 0, 0));
    let [control, next] = one.arms.as_slice() else { panic!("{one:?}") };
    assert_eq!((control.units, control.impressions, control.clicks, control.clicked), (1, 2, 2, 1));
    assert_eq!((control.conversions, control.value, control.ctr), (1, 12.5, Some(0.5)));
    assert_eq!((next.units, next.impressions, next.clicks, next.ctr), (1, 1, 1, Some(1.0)));
    assert_eq!((control.over_control, next.over_control), (None, Some(Lifts::default())));

    let mut other = Ledger::default();
    events.iter().enumerate().rev().for_each(|(at, one)| other.happened(100 + at as i64, one));
    shown.iter().enumerate().rev().for_each(|(at, one)| other.exposed(10 * at as i64, one));
    assert_eq!(report(&other), told);
    // All but the event without a name.
    shown.iter().for_each(|one| other.exposed(999, one));
    events[..6].iter().for_each(|one| other.happened(999, one));
    let twice = report(&other);
    assert_eq!((twice.repeated_exposures, twice.repeated_events), (3, 6));
    assert_eq!(Report { repeated_exposures: 0, repeated_events: 0, ..twice }, told);
}

#[test]
fn only_assigned_answers_are_compared_and_the_others_shown_beside() {
    use AssignmentReason::{FallbackError, FallbackNotLoaded, Forced, Killed};
    let mut ledger = Ledger::default();
    for (at, reason) in [ASSIGNED, Forced, Forced, Killed, FallbackNotLoaded, FallbackError].into_iter().enumerate() {
        ledger.exposed(at as i64, &exposure("a", at, 1, reason));
        ledger.happened(50, &event(EventKind::Click, &format!("a-{at}"), "", None));
    }
    let told = report(&ledger);
    let next = &told.experiments[0].arms[1];
    assert_eq!((told.joined, next.impressions, next.clicks), (6, 1, 1));
    assert_eq!((next.forced, next.killed, next.fallback_not_loaded, next.fallback_error), (2, 1, 1, 1));
}

#[test]
fn answers_under_other_weights_and_units_that_changed_their_arm_are_left_out() {
    let mut ledger = Ledger::default();
    let under = |version: &str, weights: [f64; 2], user: &str, arm: usize| {
        let mut one = exposure(user, version.len() * 10 + arm, arm, ASSIGNED);
        one.arms[0].design = design(version, weights);
        one
    };
    ledger.exposed(1, &under("old", [0.9, 0.1], "a", 0));
    ledger.exposed(2, &under("newer", [0.5, 0.5], "b", 0));
    ledger.exposed(3, &under("ramped", [0.5, 0.5], "c", 1));
    ledger.exposed(4, &under("ramped", [0.5, 0.5], "b", 1));
    ledger.happened(5, &event(EventKind::Click, "b-61", "", None));
    let told = report(&ledger);
    let one = &told.experiments[0];
    assert_eq!(one.versions.iter().map(String::as_str).collect::<Vec<_>>(), ["newer", "ramped"]);
    assert_eq!((one.superseded, one.crossed, told.joined), (1, 1, 1));
    let sums: Vec<_> = one.arms.iter().map(|arm| (arm.units, arm.impressions, arm.clicks)).collect();
    assert_eq!(sums, [(1, 1, 0), (1, 1, 0)]);
    assert_eq!(one.sample_ratio_p, 1.0);
}

#[test]
fn a_unit_is_what_the_experiment_assigns_and_one_experiment_may_be_asked_for() {
    let mut ledger = Ledger::default();
    for at in 0..6 {
        let mut one = exposure(&format!("user-{at}"), at, 0, ASSIGNED);
        one.arms[0].unit = Some(format!("device-{}", at / 2));
        let other = Design { experiment: "other".into(), ..Design::clone(&one.arms[0].design) };
        one.arms.push(ExposedArm { design: Arc::new(other), arm: 1, unit: None, reason: ASSIGNED });
        ledger.exposed(at as i64, &one);
    }
    assert_eq!(ledger.experiments(), ["other", "test"]);
    let units =
        |report: &Report, at: usize| report.experiments[at].arms.iter().map(|arm| arm.units).collect::<Vec<_>>();
    let all = report(&ledger);
    assert_eq!((units(&all, 0), units(&all, 1)), (vec![0, 6], vec![3, 0]));
    let only = ledger.report(0.05, 1000, Some("test")).unwrap();
    assert_eq!((only.experiments.len(), units(&only, 0)), (1, vec![3, 0]));
    let wrong = ledger.report(0.05, 1000, Some("text")).unwrap_err();
    assert_eq!(wrong[0].description, "\"text\": one of other, test");
}

#[test]
fn the_lift_is_told_from_the_first_step_to_the_last() {
    let mut ledger = Ledger::default();
    for at in 0..400 {
        let user = format!("u{at}");
        ledger.exposed(1000 * at as i64, &exposure(&user, at, at % 2, ASSIGNED));
        if at % 5 == 0 || at % 6 == 1 {
            ledger.happened(1000 * at as i64 + 1, &event(EventKind::Click, &format!("{user}-{at}"), "", None));
        }
    }
    let told = report(&ledger);
    let one = &told.experiments[0];
    let times: Vec<i64> = one.timeline.iter().map(|point| point.at_ms).collect();
    assert_eq!((times.len(), times[119]), (120, 399_000 + i64::from(399 % 6 == 1)));
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    let shown: Vec<_> = one.timeline.iter().map(|point| point.ctr[0]).collect();
    assert_eq!(shown[0], None, "too little at first");
    assert_eq!(*shown.last().unwrap(), one.arms[1].over_control.unwrap().ctr);
    let widths: Vec<f64> = shown.iter().flatten().map(|one| one.difference_high - one.difference_low).collect();
    assert!(widths.len() > 90 && widths[widths.len() - 1] < 0.4 * widths[0]);
}
