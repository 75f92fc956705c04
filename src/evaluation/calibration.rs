//! Whether a stated belief is met as often as it says (reliability diagram: DeGroot and Fienberg 1983).

use serde::{Deserialize, Serialize};

const BINS: usize = 10;

/// The category head's strongest beliefs against what came, in ten bins of equal width by belief.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CategoryCalibration {
    /// From beliefs below 0.1 to those of 0.9 and more.
    pub bins: Vec<CalibrationBin>,
}

/// What was said, and how often it was so.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Mean belief in the top category, in `[0, 1]`; zero where nothing was counted.
    pub belief: f64,
    /// Share of the targets that were of that category; zero where nothing was counted.
    pub accuracy: f64,
    /// Beliefs in the bin.
    pub count: usize,
}

impl CategoryCalibration {
    /// Sorts `(belief in the top category, whether the target was of it)` into bins. Says which belief is not a
    /// probability.
    pub fn of(pairs: &[(f32, bool)]) -> Result<Self, String> {
        let mut bins = vec![CalibrationBin::default(); BINS];
        for (at, &(belief, hit)) in pairs.iter().enumerate() {
            // A softmax in f32 may pass one by a rounding.
            if !(0.0..=1.0 + 1.0e-4).contains(&belief) {
                return Err(format!("belief {at} is {belief}, expected 0 to 1"));
            }
            let bin = &mut bins[((belief * BINS as f32) as usize).min(BINS - 1)];
            bin.belief += f64::from(belief).min(1.0);
            bin.accuracy += f64::from(u8::from(hit));
            bin.count += 1;
        }
        for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
            bin.belief /= bin.count as f64;
            bin.accuracy /= bin.count as f64;
        }
        Ok(Self { bins })
    }

    /// Mean of |accuracy - belief| over all beliefs (expected calibration error, Naeini et al. 2015).
    pub fn expected_error(&self) -> f64 {
        let count: usize = self.bins.iter().map(|bin| bin.count).sum();
        let sum: f64 = self.bins.iter().map(|bin| bin.count as f64 * (bin.accuracy - bin.belief).abs()).sum();
        sum / count.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beliefs_fall_into_ten_bins_with_their_means() {
        let pairs = [(0.05, false), (0.0, true), (0.1, true), (0.95, true), (1.0, true), (0.55, false)];
        let found = CategoryCalibration::of(&pairs).unwrap();
        let counts: Vec<usize> = found.bins.iter().map(|bin| bin.count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!((found.bins[0].accuracy, found.bins[9].accuracy), (0.5, 1.0));
        assert!((found.bins[9].belief - 0.975).abs() < 1e-6);
    }

    #[test]
    fn saying_what_is_so_has_no_error() {
        let sure = CategoryCalibration::of(&[(1.0, true), (0.0, false)]).unwrap();
        assert_eq!(sure.expected_error(), 0.0);
        let wrong = CategoryCalibration::of(&[(1.0, false)]).unwrap();
        assert_eq!(wrong.expected_error(), 1.0);
        assert_eq!(CategoryCalibration::of(&[]).unwrap().expected_error(), 0.0);
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for belief in [f32::NAN, -0.1, 1.5] {
            let told = CategoryCalibration::of(&[(0.5, true), (belief, true)]).unwrap_err();
            assert!(told.starts_with("belief 1 is"), "{told}");
        }
    }
}
