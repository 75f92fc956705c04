//! An arm's rate beside the control's.

use serde::Serialize;

use super::rate::Rate;

/// Fewer units in either arm are not compared: the band's guarantee begins once means are near normal.
pub const FEWEST_UNITS: u64 = 30;

/// How far an arm's rate is from the control's, with bounds that may be looked at at any time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// The arm's rate less the control's.
    pub difference: f64,
    /// The least that the difference may be.
    pub difference_low: f64,
    /// The most.
    pub difference_high: f64,
    /// The difference as a share of the control's rate. None: that is 0.
    pub lift: Option<f64>,
    /// The least that the lift may be. None: the control's rate cannot be told from 0 yet, and the lift is anything.
    pub lift_low: Option<f64>,
    /// The most.
    pub lift_high: Option<f64>,
}

impl Comparison {
    /// Whether the bounds leave out that both rates are equal.
    pub fn is_conclusive(&self) -> bool {
        self.difference_low > 0.0 || self.difference_high < 0.0
    }
}

/// Compares an arm with the control, with bounds `reach` standard errors away. None: fewer than [`FEWEST_UNITS`] units in
/// either, or both without any variance.
///
/// The bounds of the lift are Fieller's ("Some problems in interval estimation", 1954): every ratio g for which
/// r1 - g r0 lies within `reach` of its own standard errors of 0. They hold at all times as those of the difference do, and
/// leave out a lift of 0 exactly where those leave out a difference of 0.
pub fn compare(control: &Rate, arm: &Rate, reach: f64) -> Option<Comparison> {
    if control.units().min(arm.units()) < FEWEST_UNITS {
        return None;
    }
    let (r0, r1) = (control.value()?, arm.value()?);
    let (v0, v1) = (control.variance()?, arm.variance()?);
    if v0 + v1 <= 0.0 {
        return None;
    }
    let (difference, margin) = (r1 - r0, reach * (v0 + v1).sqrt());
    let (lift_low, lift_high) =
        ratio_bounds(r0, r1, reach * reach * v0, reach * reach * v1).map(|(low, high)| (low - 1.0, high - 1.0)).unzip();
    Some(Comparison {
        difference,
        difference_low: difference - margin,
        difference_high: difference + margin,
        lift: (r0 != 0.0).then(|| difference / r0),
        lift_low,
        lift_high,
    })
}

/// The ratios g with (r1 - g r0)^2 <= w1 + g^2 w0, where that is one stretch of numbers: r0^2 > w0.
pub(super) fn ratio_bounds(r0: f64, r1: f64, w0: f64, w1: f64) -> Option<(f64, f64)> {
    let square = r0 * r0 - w0;
    if square <= 0.0 {
        return None;
    }
    // Not below 0, as r0^2 > w0.
    let root = (r0 * r0 * w1 + r1 * r1 * w0 - w0 * w1).max(0.0).sqrt();
    Some(((r0 * r1 - root) / square, (r0 * r1 + root) / square))
}
