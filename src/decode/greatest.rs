//! The k-th greatest of many numbers, without sorting them.

use pulp::{Arch, Simd, WithSimd};

/// Numbers that are looked at first, evenly spread: one of so many, within these bounds.
const SHARE: usize = 16;
const SAMPLE: std::ops::RangeInclusive<usize> = 256..=4096;

/// Numbers that are compared at once; the rare block that holds one to keep is looked at again.
const BLOCK: usize = 64;

/// Room for the numbers that may be among the greatest.
#[derive(Debug, Default)]
pub(super) struct Greatest {
    sample: Vec<f32>,
    kept: Vec<f32>,
}

impl Greatest {
    /// The `count`-th greatest of `values`, NaN as the least; none when there are not so many, or none is asked for.
    ///
    /// A sample says below which number few of them are greater, those are collected, and only among them is chosen.
    pub(super) fn kth(&mut self, values: &[f32], count: usize) -> Option<f32> {
        if count == 0 || count > values.len() {
            return None;
        }
        let step = values.len().div_ceil((values.len() / SHARE).clamp(*SAMPLE.start(), *SAMPLE.end()));
        self.sample.clear();
        self.sample.extend(values.iter().copied().step_by(step));
        // Where the count-th would be in the sample, and four deviations of chance further down.
        let expected = count as f64 / step as f64;
        let mut place = (expected + 4.0 * expected.sqrt()) as usize + 4;
        loop {
            let floor = nth(&mut self.sample, place).filter(|floor| !floor.is_nan()).unwrap_or(f32::NEG_INFINITY);
            self.kept.clear();
            each_from(values, floor, |_, value| self.kept.push(value));
            if self.kept.len() >= count {
                return nth(&mut self.kept, count - 1);
            }
            if floor == f32::NEG_INFINITY {
                // The rest are no numbers.
                return Some(f32::NAN);
            }
            place = (place + 1).saturating_mul(4);
        }
    }

    /// How many of the values asked for last are greater than the one answered, `kth`.
    pub(super) fn above(&self, kth: f32) -> usize {
        self.kept.iter().filter(|value| **value > kth).count()
    }
}

/// What has so many greater ones before it; none where there are not so many. Reorders the values.
fn nth(values: &mut [f32], before: usize) -> Option<f32> {
    (before < values.len()).then(|| *values.select_nth_unstable_by(before, |a, b| b.total_cmp(a)).1)
}

/// Calls `found` with the place and the value of every one of `values` that is at least `floor`, in order.
pub(super) fn each_from(values: &[f32], floor: f32, mut found: impl FnMut(usize, f32)) {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    let arch = Arch::new();
    for (at, block) in blocks.iter().enumerate() {
        if arch.dispatch(AnyFrom { block, floor }) {
            let values = block.iter().enumerate().filter(|(_, value)| **value >= floor);
            values.for_each(|(place, value)| found(at * BLOCK + place, *value));
        }
    }
    let values = rest.iter().enumerate().filter(|(_, value)| **value >= floor);
    values.for_each(|(place, value)| found(blocks.len() * BLOCK + place, *value));
}

/// Whether any of a block is at least `floor`.
struct AnyFrom<'a> {
    block: &'a [f32; BLOCK],
    floor: f32,
}

impl WithSimd for AnyFrom<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        self.block.iter().fold(false, |any, value| any | (*value >= self.floor))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_kth_greatest_is_that_of_the_sorted_list(
            mut values in prop::collection::vec(prop_oneof![8 => -3i32..3, 1 => Just(7)], 1..9000),
            share in 0.0f64..1.0,
        ) {
            let numbers: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            let count = ((values.len() as f64 * share) as usize).max(1);
            let found = Greatest::default().kth(&numbers, count).unwrap();
            values.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(found, values[count - 1] as f32);
        }
    }

    #[test]
    fn a_sample_that_misses_the_greatest_is_looked_past() {
        // The greatest lie between the places of the sample, so that its first guess is too high or too low.
        const SAMPLE: usize = *super::SAMPLE.end();
        let mut values = vec![0.0f32; 10 * SAMPLE];
        values.iter_mut().step_by(10).for_each(|value| *value = 1.0);
        (0..SAMPLE).for_each(|at| values[at * 10 + 1] = -1.0 - at as f32);
        let mut greatest = Greatest::default();
        assert_eq!(greatest.kth(&values, SAMPLE), Some(1.0));
        assert_eq!(greatest.kth(&values, SAMPLE + 1), Some(0.0));
        assert_eq!(greatest.kth(&values, 9 * SAMPLE), Some(0.0));
        assert_eq!(greatest.kth(&values, 9 * SAMPLE + 1), Some(-1.0));
        assert_eq!(greatest.kth(&values, 10 * SAMPLE), Some(-(SAMPLE as f32)));
        assert_eq!(greatest.kth(&values, 10 * SAMPLE + 1), None);
        assert_eq!(greatest.kth(&values, 0), None);
    }

    #[test]
    fn no_numbers_come_last() {
        let mut greatest = Greatest::default();
        let values = [f32::NAN, 2.0, f32::NEG_INFINITY, 3.0];
        assert_eq!(greatest.kth(&values, 2), Some(2.0));
        assert_eq!(greatest.kth(&values, 3), Some(f32::NEG_INFINITY));
        assert!(greatest.kth(&values, 4).is_some_and(f32::is_nan));
    }
}
