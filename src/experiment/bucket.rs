//! Units to buckets and buckets to arms, as GrowthBook's SDKs do it (<https://docs.growthbook.io/lib/build-your-own>), so
//! that they put a unit into the same arm. Seed and unit are hashed as bytes of UTF-8; GrowthBook's JavaScript SDK hashes
//! UTF-16 code units, so that it may differ where they are not ASCII. `tests/vectors/assignment.json` holds examples for
//! other languages.

use serde::{Deserialize, Serialize};

/// How a seed and a unit become a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum HashVersion {
    /// fnv1a32(unit + seed) mod 1000 / 1000. Biased between experiments whose seeds are alike; for units that were
    /// assigned by it.
    V1,
    /// fnv1a32(decimal text of fnv1a32(seed + unit)) mod 10000 / 10000.
    #[default]
    V2,
}

impl TryFrom<u8> for HashVersion {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            _ => Err(format!("{number} is no hash version, expected 1 or 2")),
        }
    }
}

impl From<HashVersion> for u8 {
    fn from(version: HashVersion) -> u8 {
        match version {
            HashVersion::V1 => 1,
            HashVersion::V2 => 2,
        }
    }
}

impl HashVersion {
    /// The bucket of a unit, in [0, 1).
    pub fn bucket(self, seed: &str, unit: &str) -> f64 {
        match self {
            Self::V1 => f64::from(fnv1a32([unit, seed]) % 1_000) / 1_000.0,
            Self::V2 => {
                let first = fnv1a32([seed, unit]).to_string();
                f64::from(fnv1a32([first.as_str()]) % 10_000) / 10_000.0
            }
        }
    }
}

/// The FNV-1a hash of 32 bits over the UTF-8 bytes of the texts, one after the other.
/// Source: <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn fnv1a32<'a>(texts: impl IntoIterator<Item = &'a str>) -> u32 {
    let bytes = texts.into_iter().flat_map(str::bytes);
    bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The part of [0, 1) that leads to one arm: from `start`, up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketRange {
    /// The first bucket inside.
    pub start: f64,
    /// The first bucket past it; not above `start` when the range is empty.
    pub end: f64,
}

impl BucketRange {
    /// Whether the bucket lies inside.
    pub fn contains(self, bucket: f64) -> bool {
        bucket >= self.start && bucket < self.end
    }
}

/// Equal weights for so many arms.
pub fn equal_weights(arms: usize) -> Vec<f64> {
    vec![1.0 / arms as f64; arms]
}

/// The range of each arm: it starts where the weights before it end and is `coverage * weight` wide, so that a growing
/// coverage adds units to arms and never moves one from arm to arm. A coverage below 0 counts as 0, one above 1 as 1.
pub fn bucket_ranges(weights: &[f64], coverage: f64) -> Vec<BucketRange> {
    let coverage = coverage.clamp(0.0, 1.0);
    let mut cumulative = 0.0;
    let range = |&weight: &f64| {
        let start = cumulative;
        cumulative += weight;
        BucketRange { start, end: start + coverage * weight }
    };
    weights.iter().map(range).collect()
}

/// The arm whose range holds the bucket, counted from 0; the first where several do, none where none does.
pub fn choose(bucket: f64, ranges: &[BucketRange]) -> Option<usize> {
    ranges.iter().position(|range| range.contains(bucket))
}

/// Whether a unit belongs to a part of a namespace: one bucket (hash version 1, seed `__` and the id) for all
/// experiments that share the namespace, so that disjoint parts have no unit in common.
pub fn in_namespace(unit: &str, id: &str, part: BucketRange) -> bool {
    part.contains(HashVersion::V1.bucket(&format!("__{id}"), unit))
}

/// Most arms that ranges are worked out for: the finest bucket is 1/10000.
pub const MAX_ARMS: usize = 10_000;

/// How far the sum of weights may be from 1.
const TOLERANCE: std::ops::RangeInclusive<f64> = 0.99..=1.01;

/// Says what is wrong with weights: at which place (none: with all of them), and what was expected. Nothing is corrected,
/// where GrowthBook's SDKs fall back to equal weights.
pub fn weight_problems(weights: &[f64], arms: usize) -> Vec<(Option<usize>, String)> {
    let wrong = |weight: f64| !(0.0..=f64::MAX).contains(&weight);
    let one = |(at, &weight): (usize, &f64)| {
        let description = || (Some(at), format!("{weight}: expected a finite number from 0 on"));
        wrong(weight).then(description)
    };
    let mut problems: Vec<_> = weights.iter().enumerate().filter_map(one).collect();
    if weights.len() != arms {
        problems.push((None, format!("{} weights: expected {arms}, one for each arm", weights.len())));
    }
    let sum: f64 = weights.iter().sum();
    if problems.is_empty() && !TOLERANCE.contains(&sum) {
        let (low, high) = (TOLERANCE.start(), TOLERANCE.end());
        problems.push((None, format!("{sum} in sum: expected 1 (from {low} to {high})")));
    }
    problems
}
