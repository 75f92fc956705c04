//! Checks of settings: what lies outside its range is named.

use std::fmt::Display;

use crate::domain::Violation;

/// A setting's name, its value, and the least and greatest that it may be.
pub(super) type Bounds<'a, N> = (&'a str, N, N, N);

/// Names every whole number and every fraction that is out of its range; a fraction that is no number is, too.
pub(super) fn within(whole: &[Bounds<'_, usize>], fractions: &[Bounds<'_, f64>]) -> Result<(), Vec<Violation>> {
    let wrong: Vec<Violation> = outside(whole).chain(outside(fractions)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn outside<N: PartialOrd + Display>(bounds: &[Bounds<'_, N>]) -> impl Iterator<Item = Violation> {
    bounds
        .iter()
        .filter(|(_, found, low, high)| !(low..=high).contains(&found))
        .map(|(name, found, low, high)| Violation::new(*name, format!("{found}: expected {low} to {high}")))
}
