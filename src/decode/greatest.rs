//! The k-th greatest of many numbers, and those from a number on, without sorting them.

use pulp::{Arch, Simd, WithSimd};

/// Numbers that are looked at first, evenly spread: one of so many, within these bounds.
const SHARE: usize = 16;
const SAMPLE: std::ops::RangeInclusive<usize> = 256..=4096;

/// Numbers that are compared at once; a block that holds one to keep is looked at again.
const BLOCK: usize = 64;

/// Room for the numbers that may be the one that is sought.
#[derive(Debug, Default)]
pub(super) struct Greatest {
    sample: Vec<f32>,
    kept: Vec<f32>,
}

impl Greatest {
    /// The `count`-th greatest of `values`, NaN as the least; none when there are not so many, or none is asked for.
    ///
    /// A sample says between which two numbers it surely is. What is greater is counted, what is between is collected, and
    /// only among that is chosen (Floyd and Rivest 1975).
    pub(super) fn kth(&mut self, values: &[f32], count: usize) -> Option<f32> {
        if count == 0 || count > values.len() {
            return None;
        }
        let step = values.len().div_ceil((values.len() / SHARE).clamp(*SAMPLE.start(), *SAMPLE.end()));
        self.sample.clear();
        self.sample.extend(values.iter().copied().step_by(step));
        // Where the count-th would be in the sample, and four deviations of chance to both sides.
        let expected = count as f64 / step as f64;
        let mut slack = (4.0 * expected.sqrt()) as usize + 4;
        let expected = expected as usize;
        loop {
            let number = |found: Option<f32>| found.filter(|found| !found.is_nan());
            let floor = number(nth(&mut self.sample, expected.saturating_add(slack))).unwrap_or(f32::NEG_INFINITY);
            let above = expected.checked_sub(slack).and_then(|place| nth(&mut self.sample, place));
            let ceiling = number(above).unwrap_or(f32::INFINITY);
            self.kept.clear();
            let greater = collect_between(values, floor, ceiling, &mut self.kept);
            match count.checked_sub(greater + 1) {
                Some(place) if place < self.kept.len() => return nth(&mut self.kept, place),
                // The rest are no numbers.
                Some(_) if floor == f32::NEG_INFINITY => return Some(f32::NAN),
                _ => slack = (slack + 1).saturating_mul(4),
            }
        }
    }
}

/// What has so many greater ones before it; none where there are not so many. Reorders the values.
fn nth(values: &mut [f32], before: usize) -> Option<f32> {
    (before < values.len()).then(|| *values.select_nth_unstable_by(before, |a, b| b.total_cmp(a)).1)
}

/// Appends the values from `floor` to `ceiling` to `kept`, in order; answers how many are greater.
fn collect_between(values: &[f32], floor: f32, ceiling: f32, kept: &mut Vec<f32>) -> usize {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    let (arch, mut room, mut greater) = (Arch::new(), [0.0; BLOCK], 0);
    for block in blocks {
        let (within, above) = arch.dispatch(Between { block, floor, ceiling, room: &mut room });
        kept.extend_from_slice(&room[..within]);
        greater += above;
    }
    kept.extend(rest.iter().filter(|value| (floor..=ceiling).contains(*value)));
    greater + rest.iter().filter(|value| **value > ceiling).count()
}

/// Copies those of a block that are from `floor` to `ceiling` to the front of `room`: how many they are, and how many are
/// greater.
struct Between<'a> {
    block: &'a [f32; BLOCK],
    floor: f32,
    ceiling: f32,
    room: &'a mut [f32; BLOCK],
}

impl WithSimd for Between<'_> {
    type Output = (usize, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
        let Self { block, floor, ceiling, room } = self;
        let (mut from, mut above) = (0u32, 0u32);
        for value in block {
            from += u32::from(*value >= floor);
            above += u32::from(*value > ceiling);
        }
        if from == above {
            return (0, above as usize);
        }
        // Without a branch that nobody can foretell.
        let mut within = 0;
        for value in block {
            room[within % BLOCK] = *value;
            within += usize::from((*value >= floor) & (*value <= ceiling));
        }
        (within, above as usize)
    }
}

/// Calls `found` with the place and the value of every one of `values` that is at least `floor`, in order: for few.
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

/// Appends the places and the values of all of `values` that are at least `floor`, in order: for many.
pub(super) fn list_from(values: &[f32], floor: f32, places: &mut Vec<u32>, listed: &mut Vec<f32>) {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    let (arch, mut room) = (Arch::new(), ([0; BLOCK], [0.0; BLOCK]));
    for (at, block) in blocks.iter().enumerate() {
        let found = arch.dispatch(From { block, first: (at * BLOCK) as u32, floor, room: &mut room });
        places.extend_from_slice(&room.0[..found]);
        listed.extend_from_slice(&room.1[..found]);
    }
    let first = (blocks.len() * BLOCK) as u32;
    for (place, &value) in (first..).zip(rest).filter(|(_, value)| **value >= floor) {
        places.push(place);
        listed.push(value);
    }
}

/// Copies those of a block that are at least `floor` to the front of `room`, with their places: how many they are.
struct From<'a> {
    block: &'a [f32; BLOCK],
    first: u32,
    floor: f32,
    room: &'a mut ([u32; BLOCK], [f32; BLOCK]),
}

impl WithSimd for From<'_> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        let Self { block, first, floor, room } = self;
        let mut found = 0;
        for (place, value) in (first..).zip(block) {
            (room.0[found % BLOCK], room.1[found % BLOCK]) = (place, *value);
            found += usize::from(*value >= floor);
        }
        found
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
