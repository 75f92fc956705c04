//! Number formats of weights, and what rounding to them costs.

use half::bf16;
use serde::{Deserialize, Serialize};

/// A number format for a layer's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// 32 bits, as weights are kept.
    #[default]
    Fp32,
    /// 16 bits, eight of them significant.
    Bf16,
    /// 8 bits, four of them significant (1-4-3, largest value 448), with one scale a tensor.
    Fp8,
}

/// The largest value of e4m3.
const LARGEST: f32 = 448.0;

/// The smallest normal exponent of e4m3.
const LEAST_EXPONENT: i32 = -6;

impl Format {
    /// Every format, the widest first.
    pub const ALL: [Format; 3] = [Format::Fp32, Format::Bf16, Format::Fp8];

    /// The weights as the format holds them, to the nearest value, ties to even. Numbers that are not finite stay so.
    pub fn round(self, weights: &mut [f32]) {
        match self {
            Format::Fp32 => {}
            Format::Bf16 => weights.iter_mut().for_each(|weight| *weight = bf16::from_f32(*weight).to_f32()),
            Format::Fp8 => {
                let largest = weights.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
                if largest == 0.0 || !largest.is_finite() {
                    return;
                }
                // The tensor's largest weight becomes the format's largest value.
                let scale = LARGEST / largest;
                weights.iter_mut().for_each(|weight| *weight = e4m3(*weight * scale) / scale);
            }
        }
    }

    /// Sum of squared differences between the weights and what the format holds of them.
    pub fn squared_error(self, weights: &[f32]) -> f64 {
        let mut held = weights.to_vec();
        self.round(&mut held);
        held.iter().zip(weights).map(|(held, weight)| f64::from(held - weight).powi(2)).sum()
    }
}

/// The nearest value of e4m3 (OCP 8-bit floating point): three bits of fraction, subnormals below 2^-6, no infinities.
fn e4m3(value: f32) -> f32 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    // The exponent by its bits: a logarithm is a bit off just below powers of two.
    let exponent = ((value.to_bits() >> 23 & 0xFF) as i32 - 127).max(LEAST_EXPONENT);
    let unit = (2.0f32).powi(exponent - 3);
    ((value / unit).round_ties_even() * unit).clamp(-LARGEST, LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of e4m3, by its bits.
    fn values() -> Vec<f32> {
        let mut all: Vec<f32> = (0..=0x7Eu8)
            .map(|bits| {
                let (exponent, fraction) = (i32::from(bits >> 3), f32::from(bits & 7));
                if exponent == 0 {
                    fraction * 2.0f32.powi(-9)
                } else {
                    (1.0 + fraction / 8.0) * 2.0f32.powi(exponent - 7)
                }
            })
            .collect();
        all.extend(all.clone().iter().map(|value| -value));
        all.sort_by(f32::total_cmp);
        all
    }

    #[test]
    fn e4m3_holds_its_own_values_and_rounds_to_the_nearest() {
        let values = values();
        assert_eq!(values.last(), Some(&448.0));
        for &value in &values {
            assert_eq!(e4m3(value), value);
        }
        for at in 0..20_000 {
            let x = (at as f32 / 20_000.0 - 0.5) * 900.0;
            let nearest = values.iter().map(|value| (value - x).abs()).fold(f32::MAX, f32::min);
            assert!((e4m3(x) - x).abs() <= nearest + 1e-6, "{x} became {}", e4m3(x));
        }
        assert_eq!((e4m3(1e9), e4m3(-1e9)), (448.0, -448.0));
    }

    #[test]
    fn fewer_bits_cost_more() {
        let weights: Vec<f32> = (0..500).map(|at| ((at * 7919 % 997) as f32 - 498.0) / 3000.0).collect();
        let errors = Format::ALL.map(|format| format.squared_error(&weights));
        assert!(errors[0] == 0.0 && errors[0] < errors[1] && errors[1] < errors[2], "{errors:?}");
        let mut zeros = vec![0.0; 4];
        Format::Fp8.round(&mut zeros);
        assert_eq!(zeros, [0.0; 4]);
    }
}
