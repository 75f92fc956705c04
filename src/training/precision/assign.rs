//! Which layer gets which format.

use serde::{Deserialize, Serialize};

use super::format::Format;

/// What is known of one layer when formats are given out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Its path in the network, such as `encoder.0.feed_forward.up`.
    pub name: String,
    /// tr(A) tr(G) / weights: the K-FAC trace of its curvature for one weight.
    pub sensitivity: f64,
    /// The squared error that bf16 and fp8 add to its weights.
    pub errors: [f64; 2],
}

impl LayerFacts {
    /// What a format is expected to add to the loss, up to a factor that is the same for all layers.
    fn cost(&self, format: Format) -> f64 {
        match format {
            Format::Fp32 => 0.0,
            Format::Bf16 => self.sensitivity * self.errors[0],
            Format::Fp8 => self.sensitivity * self.errors[1],
        }
    }
}

/// Formats of least total cost with a share `reduced` of the layers (rounded up) in bf16 or fp8 and, of those, a share `fp8`
/// (rounded down) in fp8. A layer keeps the format it has unless changing it is cheaper by more than `hysteresis` of its
/// cost: noise in the traces must not make formats flap.
pub fn assign(layers: &[LayerFacts], now: &[Format], reduced: f64, fp8: f64, hysteresis: f64) -> Vec<Format> {
    let wanted = (reduced * layers.len() as f64).ceil() as usize;
    let smallest = (fp8 * wanted as f64).floor() as usize;
    let mut formats = vec![Format::Fp32; layers.len()];
    let cheapest = |format: Format, count: usize, formats: &mut Vec<Format>, from: &dyn Fn(Format) -> bool| {
        let cost = |at: usize| {
            let stays = now.get(at).is_some_and(|&has| has >= format);
            let cost = layers[at].cost(format);
            // A layer without a trace costs what it may: it goes last.
            let cost = if cost.is_finite() { cost } else { f64::MAX };
            if stays { cost * (1.0 - hysteresis) } else { cost }
        };
        let mut order: Vec<usize> = (0..layers.len()).filter(|&at| from(formats[at])).collect();
        order.sort_by(|&a, &b| cost(a).total_cmp(&cost(b)).then(a.cmp(&b)));
        order.into_iter().take(count).for_each(|at| formats[at] = format);
    };
    cheapest(Format::Bf16, wanted, &mut formats, &|_| true);
    cheapest(Format::Fp8, smallest, &mut formats, &|format| format == Format::Bf16);
    formats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(sensitivity: f64) -> LayerFacts {
        LayerFacts { name: format!("of {sensitivity}"), sensitivity, errors: [1.0, 4.0] }
    }

    #[test]
    fn the_least_sensitive_layers_get_the_fewest_bits() {
        let layers = [layer(5.0), layer(1.0), layer(3.0), layer(2.0), layer(9.0)];
        let found = assign(&layers, &[], 0.6, 0.4, 0.0);
        use Format::{Bf16, Fp8, Fp32};
        assert_eq!(found, [Fp32, Fp8, Bf16, Bf16, Fp32]);
        assert_eq!(assign(&layers, &[], 0.0, 1.0, 0.0), [Fp32; 5]);
        assert_eq!(assign(&layers, &[], 1.0, 1.0, 0.0), [Fp8; 5]);
    }

    #[test]
    fn a_small_change_of_the_traces_changes_no_format() {
        let before = assign(&[layer(1.0), layer(1.1)], &[], 0.5, 0.0, 0.2);
        assert_eq!(before, [Format::Bf16, Format::Fp32]);
        let nearly = [layer(1.1), layer(1.0)];
        assert_eq!(assign(&nearly, &before, 0.5, 0.0, 0.2), before);
        let far = [layer(2.0), layer(1.0)];
        assert_eq!(assign(&far, &before, 0.5, 0.0, 0.2), [Format::Fp32, Format::Bf16]);
    }

    #[test]
    fn a_layer_without_a_trace_is_rounded_last() {
        let found = assign(&[layer(f64::NAN), layer(7.0)], &[], 0.5, 0.0, 0.1);
        assert_eq!(found, [Format::Fp32, Format::Bf16]);
    }
}
