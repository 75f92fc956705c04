//! An asymptotic confidence sequence: a band that may be looked at after every observation, and holds the truth at all
//! times at once with probability 1 - alpha.
//!
//! Robbins' normal mixture in the form of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
//! theory and asymptotic confidence sequences" (arXiv 2103.06476), theorem 2.2: after t observations an asymptotically
//! linear estimate lies within
//!
//!   se_t * sqrt(2 (1 + 1 / (t rho^2)) ln(sqrt(t rho^2 + 1) / alpha))
//!
//! of the truth, for all t at once, where se_t is its standard error. rho is chosen ahead: with
//! rho^2 = (-2 ln alpha + ln(-2 ln alpha) + 1) / t* the band is nearly the tightest there is at t = t*.

use crate::domain::Violation;

/// The largest alpha: above, nobody would call it confidence.
const LARGEST_ALPHA: f64 = 0.5;

/// A level and where the band is tightest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfidenceSequence {
    alpha: f64,
    rho_squared: f64,
}

impl ConfidenceSequence {
    /// The sequence that leaves the truth out with probability `alpha` at most, and is tightest after `tightest_at`
    /// observations. Both are chosen before anybody looks.
    ///
    /// # Errors
    /// Names what is out of range: alpha lies above 0 and is at most 0.5, `tightest_at` is at least 1.
    pub fn new(alpha: f64, tightest_at: u64) -> Result<Self, Vec<Violation>> {
        let mut wrong = Vec::new();
        if !(alpha > 0.0 && alpha <= LARGEST_ALPHA) {
            wrong.push(Violation::new("alpha", format!("{alpha}: expected a number above 0, at most {LARGEST_ALPHA}")));
        }
        if tightest_at == 0 {
            wrong.push(Violation::new("tightest_at", "0: expected at least 1"));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let exponent = -2.0 * alpha.ln();
        Ok(Self { alpha, rho_squared: (exponent + exponent.ln() + 1.0) / tightest_at as f64 })
    }

    /// How far the band reaches to each side after so many observations, in standard errors; infinite after none.
    pub fn reach(self, observations: u64) -> f64 {
        let scaled = observations as f64 * self.rho_squared;
        (2.0 * (1.0 + 1.0 / scaled) * ((scaled + 1.0).sqrt() / self.alpha).ln()).sqrt()
    }
}
