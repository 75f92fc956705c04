//! The network's linear layers: their weights, their names, their K-FAC traces.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};

use super::format::Format;
use crate::model::{Heard, Network};

/// tr(A) and tr(G) of a layer's Kronecker factors.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Traces {
    /// Mean squared length of its inputs.
    pub inputs: f64,
    /// Mean squared length of the gradients of its outputs, for a loss that is a sum over rows.
    pub outputs: f64,
}

/// Visits weights of linear layers with their paths.
struct Weights<F> {
    path: Vec<String>,
    kinds: Vec<bool>,
    tell: F,
}

impl<B: Backend, F: FnMut(String, ParamId, Tensor<B, 2>)> ModuleVisitor<B> for Weights<F> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        // A field is entered by its name and, a level below, by its type's.
        self.path.push(name.to_owned());
        self.kinds.push(container_type == "Struct:Linear");
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
        self.kinds.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        // Its weight is a matrix, its bias is not.
        if D == 2 && self.kinds.last() == Some(&true) {
            let layer = self.path[..self.path.len() - 1].join(".");
            let [rows, columns] = [0, 1].map(|axis| param.dims()[axis]);
            (self.tell)(layer, param.id, param.val().reshape([rows, columns]));
        }
    }
}

fn visit<B: Backend>(network: &Network<B>, tell: impl FnMut(String, ParamId, Tensor<B, 2>)) {
    network.visit(&mut Weights { path: Vec::new(), kinds: Vec::new(), tell });
}

/// Every linear layer's path, id, and weights.
pub fn layers<B: Backend>(network: &Network<B>) -> Vec<(String, ParamId, Vec<f32>)> {
    let mut found = Vec::new();
    visit(network, |name, id, weights| {
        let weights = weights.into_data().convert::<f32>().into_vec::<f32>().unwrap_or_default();
        found.push((name, id, weights));
    });
    found
}

/// Whether every weight is a finite number.
pub fn finite<B: Backend>(network: &Network<B>) -> bool {
    struct Finite(bool);
    impl<B: Backend> ModuleVisitor<B> for Finite {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let sum = param.val().abs().sum().into_data().convert::<f32>().into_vec::<f32>().unwrap_or_default();
            self.0 &= sum.iter().all(|sum| sum.is_finite()) && !sum.is_empty();
        }
    }
    let mut all = Finite(true);
    network.visit(&mut all);
    all.0
}

/// The network with its layers' weights as their formats hold them, under the same ids: gradients by them are gradients by
/// the weights that are kept (straight through).
pub fn rounded<B: Backend>(network: Network<B>, formats: &HashMap<ParamId, Format>) -> Network<B> {
    struct Rounder<'a>(&'a HashMap<ParamId, Format>);
    impl<B: Backend> ModuleMapper<B> for Rounder<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let Some(&format) = self.0.get(&param.id).filter(|format| **format != Format::Fp32) else { return param };
            param.map(|weights| {
                let (device, learns) = (weights.device(), weights.is_require_grad());
                let shape = weights.dims();
                let mut numbers = weights.into_data().convert::<f32>().into_vec::<f32>().unwrap_or_default();
                format.round(&mut numbers);
                let held = Tensor::from_data(TensorData::new(numbers, shape), &device);
                if learns { held.require_grad() } else { held }
            })
        }
    }
    network.map(&mut Rounder(formats))
}

/// The traces of every layer that was heard, gathered over all its passes.
pub fn traces<B: AutodiffBackend>(heard: &[Heard<B>], gradients: &B::Gradients) -> HashMap<ParamId, Traces> {
    let mut sums: HashMap<ParamId, (Traces, f64)> = HashMap::new();
    let square = |tensor: Tensor<B::InnerBackend, 2>| -> f64 {
        let sum = tensor.powf_scalar(2.0).sum().into_data().convert::<f32>().into_vec::<f32>().unwrap_or_default();
        sum.first().copied().map_or(f64::NAN, f64::from)
    };
    for pass in heard {
        let Some(outputs) = pass.outputs.grad(gradients) else { continue };
        let rows = pass.inputs.dims()[0] as f64;
        let (sum, all) = sums.entry(pass.weight).or_default();
        sum.inputs += square(pass.inputs.clone().inner());
        // The loss is a mean: a row's own gradient is as many times what came back.
        sum.outputs += square(outputs) * rows * rows;
        *all += rows;
    }
    sums.into_iter()
        .map(|(id, (sum, rows))| (id, Traces { inputs: sum.inputs / rows, outputs: sum.outputs / rows }))
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Distribution;

    use super::*;
    use crate::domain::{CodeShape, EventKind, HistoryEntry};
    use crate::model::{Listener, NetworkConfig, encoder_batch, save_weights};

    type B = Autodiff<Flex>;

    fn network() -> Network<B> {
        let config = NetworkConfig {
            items: 6,
            codes: CodeShape { codebooks: 2, entries: 3 },
            encoder_layers: 2,
            feed_forward: 16,
            max_history: 4,
            ..NetworkConfig::tiny()
        };
        config.init(&Default::default())
    }

    #[test]
    fn every_linear_layer_is_found_by_its_path() {
        let names: Vec<String> = layers(&network()).into_iter().map(|(name, ..)| name).collect();
        // Six an encoder block, ten the decoder's, and three around it.
        assert_eq!(names.len(), 2 * 6 + 10 + 3, "{names:?}");
        for name in ["encoder.0.attention.query", "encoder.1.feed_forward.up", "refinement_head", "category_head"] {
            assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
        }
    }

    #[test]
    fn rounding_touches_the_layers_told_and_keeps_ids() {
        let network = network();
        let before = layers(&network);
        let formats = [(before[0].1, Format::Fp8), (before[3].1, Format::Bf16)].into();
        let after = layers(&rounded(network.clone(), &formats));
        for (at, (old, new)) in before.iter().zip(&after).enumerate() {
            assert_eq!((&old.0, old.1), (&new.0, new.1));
            assert_eq!(at == 0 || at == 3, old.2 != new.2, "{}", old.0);
        }
        assert_eq!(save_weights(&network).unwrap(), save_weights(&rounded(network, &HashMap::new())).unwrap());
    }

    #[test]
    fn traces_are_mean_squares_of_inputs_and_output_gradients() {
        let network = network();
        let device = Default::default();
        let history = [HistoryEntry { item: 1, kind: EventKind::View, time: 0 }; 3];
        let batch = encoder_batch::<B>(&[&history], 3, 4, &device);
        let events = Tensor::<B, 2>::random([3, 8], Distribution::Normal(0.0, 1.0), &device);
        let listener = Listener::<B>::start();
        let states = network.encode(&batch, events);
        let heard = listener.stop();
        // A mean over the three rows.
        let gradients = (states.powf_scalar(2.0).sum() / 3.0).backward();
        let found = traces(&heard, &gradients);
        assert_eq!(found.len(), 12);
        let last = &heard[heard.len() - 1];
        let mean = |tensor: Tensor<Flex, 2>| f64::from(tensor.powf_scalar(2.0).sum().into_scalar()) / 3.0;
        let traces = found[&last.weight];
        assert!((traces.inputs - mean(last.inputs.clone().inner())).abs() < 1e-4);
        let gradient = last.outputs.grad(&gradients).unwrap();
        assert!((traces.outputs - mean(gradient * 3.0)).abs() < 1e-3 * traces.outputs.max(1.0));
        assert!(traces.inputs > 0.0 && traces.outputs > 0.0);
    }

    #[test]
    fn a_weight_that_is_no_number_is_seen() {
        let network = network();
        assert!(finite(&network));
        let broken = network.with_residuals(Tensor::full([6, 8], f32::NAN, &Default::default()));
        assert!(!finite(&broken));
    }
}
