//! From codes, features and residuals to item vectors, and the gradient's way back: both once a step, outside the graph.

use std::ops::Range;

use burn::module::Param;
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use super::kernels::{Kernels, floats, token_gradients};
use super::learner::PretrainError;
use crate::domain::CodeTable;
use crate::model::{Network, NetworkConfig, flat_codes, token_sums};

/// What is known of the items beside their codes.
#[derive(Debug, Clone, Copy)]
pub struct ItemFeatures<'a> {
    /// x, `[items, width]`, columns standardised.
    pub rows: &'a [f32],
    /// Numbers in a row; 0 when features are not read.
    pub width: usize,
    /// The columns that only items with a past have, such as co-occurrence: none of a newcomer's are known.
    pub of_the_past: &'a [Range<usize>],
}

/// What makes item vectors: v_i = sum over r of Z_r,j_r(i) + W x_i + e_i.
///
/// The catalogue is the same at every step, and so are its gathers; the graph sees the vectors as constants, and the gradient
/// by them is handed on to Z, W and e here.
///
/// At each step a share of the items is shown as newcomers: without e_i and without what only a past tells of them. So
/// the network learns to say of an item that has just arrived what can be said.
#[derive(Debug)]
pub struct ItemTower<'a, B: AutodiffBackend> {
    config: &'a NetworkConfig,
    codes: &'a CodeTable,
    flat: Tensor<B::InnerBackend, 1, Int>,
    features: Option<Columns<B::InnerBackend>>,
    kernels: Kernels,
}

/// Feature rows on the device, `[items, features]`, scaled to length one or so.
#[derive(Debug)]
struct Columns<B: Backend> {
    all: Tensor<B, 2>,
    /// The same with zeros in all columns but those of the past.
    past: Tensor<B, 2>,
}

/// The item vectors of one step, constants to the graph.
#[derive(Debug)]
pub struct ItemVectors<B: Backend> {
    /// v, `[items, d]`.
    pub vectors: Tensor<B, 2>,
    /// The tokens' part of it, `[items, d]`.
    pub token_sums: Tensor<B, 2>,
    newcomers: Option<Newcomers<B>>,
}

#[derive(Debug)]
struct Newcomers<B: Backend> {
    /// Their numbers.
    items: Tensor<B, 1, Int>,
    /// `[items, 1]`: 0 at newcomers, 1 elsewhere.
    known: Tensor<B, 2>,
}

impl<'a, B: AutodiffBackend> ItemTower<'a, B> {
    /// A tower over the items of `codes`.
    pub fn new(
        config: &'a NetworkConfig,
        codes: &'a CodeTable,
        features: ItemFeatures<'_>,
        kernels: Kernels,
        device: &B::Device,
    ) -> Self {
        let width = config.feature_width;
        let features = (width > 0).then(|| {
            // Standardised columns: a row so scaled has a length of about one, as an item vector has at the start.
            let scale = 1.0 / (width as f32).sqrt();
            let table =
                |rows: Vec<f32>| Tensor::from_data(TensorData::new(rows, [codes.items(), width]), device) * scale;
            let mut past = vec![0.0; features.rows.len()];
            for (past, row) in past.chunks_exact_mut(width).zip(features.rows.chunks_exact(width)) {
                for columns in features.of_the_past {
                    past[columns.clone()].copy_from_slice(&row[columns.clone()]);
                }
            }
            Columns { all: table(features.rows.to_vec()), past: table(past) }
        });
        Self { config, codes, flat: flat_codes(codes, device), features, kernels }
    }

    /// All item vectors under the network's present weights, the items of `newcomers` shown as such.
    pub fn vectors(
        &self,
        network: &Network<B>,
        newcomers: &[u32],
    ) -> Result<ItemVectors<B::InnerBackend>, PretrainError> {
        let (items, width) = (self.codes.items(), self.config.width);
        let table = network.tokens().inner();
        let device = table.device();
        let token_sums: Tensor<B::InnerBackend, 2> = if !self.config.reads_codes {
            Tensor::zeros([items, width], &device)
        } else if self.kernels == Kernels::Host {
            let sums = token_sums(&floats(table.into_data())?, self.codes, width);
            Tensor::from_data(TensorData::new(sums, [items, width]), &device)
        } else {
            let tokens = table.select(0, self.flat.clone()); // [items * M, d]
            tokens.reshape([items, self.config.codes.codebooks, width]).sum_dim(1).reshape([items, width])
        };
        let newcomers = (!newcomers.is_empty()).then(|| {
            let mut known = vec![1.0f32; items];
            newcomers.iter().for_each(|&item| known[item as usize] = 0.0);
            let numbers: Vec<i32> = newcomers.iter().map(|&item| item as i32).collect();
            Newcomers {
                items: Tensor::from_data(TensorData::new(numbers, [newcomers.len()]), &device),
                known: Tensor::from_data(TensorData::new(known, [items, 1]), &device),
            }
        });
        let residuals = network.residuals().inner();
        let residuals = match &newcomers {
            Some(newcomers) => residuals * newcomers.known.clone(),
            None => residuals,
        };
        let mut vectors = token_sums.clone() + residuals;
        if let (Some(features), Some(head)) = (&self.features, &network.feature_head) {
            let head = head.val().inner();
            vectors = vectors + features.all.clone().matmul(head.clone());
            if let Some(newcomers) = &newcomers {
                let hidden = features.past.clone().select(0, newcomers.items.clone()).matmul(head).neg();
                vectors = vectors.select_assign(0, newcomers.items.clone(), hidden, IndexingUpdateOp::Add);
            }
        }
        Ok(ItemVectors { vectors, token_sums, newcomers })
    }

    /// Adds to `gradients` what `by_vectors`, the gradient by `of`'s vectors `[items, d]`, says of Z, W and e.
    pub fn hand_on(
        &self,
        network: &Network<B>,
        of: &ItemVectors<B::InnerBackend>,
        by_vectors: Tensor<B::InnerBackend, 2>,
        gradients: &mut GradientsParams,
    ) -> Result<(), PretrainError> {
        let (items, width, codebooks) = (self.codes.items(), self.config.width, self.config.codes.codebooks);
        let device = by_vectors.device();
        if let (Some(features), Some(head)) = (&self.features, &network.feature_head) {
            let mut by_head = features.all.clone().transpose().matmul(by_vectors.clone());
            if let Some(newcomers) = &of.newcomers {
                let past = features.past.clone().select(0, newcomers.items.clone());
                by_head = by_head - past.transpose().matmul(by_vectors.clone().select(0, newcomers.items.clone()));
            }
            add(gradients, head, by_head);
        }
        if self.config.own_residuals {
            let by_residuals = match &of.newcomers {
                Some(newcomers) => by_vectors.clone() * newcomers.known.clone(),
                None => by_vectors.clone(),
            };
            add(gradients, &network.residuals, by_residuals);
        }
        if self.config.reads_codes {
            let shape = [self.config.codes.tokens(), width];
            let by_tokens = if self.kernels == Kernels::Host {
                let gradients = token_gradients(&floats(by_vectors.into_data())?, self.codes, width);
                Tensor::from_data(TensorData::new(gradients, shape), &device)
            } else {
                let each = by_vectors.unsqueeze_dim::<3>(1).expand([items, codebooks, width]);
                let each = each.reshape([items * codebooks, width]);
                Tensor::zeros(shape, &device).select_assign(0, self.flat.clone(), each, IndexingUpdateOp::Add)
            };
            add(gradients, &network.tokens, by_tokens);
        }
        Ok(())
    }

    /// x of all items as the feature head reads it, for folding into a network that is done.
    pub fn features(&self) -> Option<Tensor<B::InnerBackend, 2>> {
        self.features.as_ref().map(|features| features.all.clone())
    }
}

fn add<B: AutodiffBackend>(
    gradients: &mut GradientsParams,
    parameter: &Param<Tensor<B, 2>>,
    gradient: Tensor<B::InnerBackend, 2>,
) {
    let gradient = match gradients.remove::<B::InnerBackend, 2>(parameter.id) {
        Some(before) => before + gradient,
        None => gradient,
    };
    gradients.register::<B::InnerBackend, 2>(parameter.id, gradient);
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Distribution;

    use super::*;

    type B = Autodiff<Flex>;

    const ITEMS: usize = 11;

    fn config() -> NetworkConfig {
        NetworkConfig {
            items: ITEMS,
            feature_width: 5,
            width: 6,
            feed_forward: 6,
            max_history: 4,
            ..NetworkConfig::tiny()
        }
    }

    fn codes() -> CodeTable {
        let entries = (0..ITEMS as u16 * 3).map(|at| at * 7 % 4).collect();
        CodeTable::new(config().codes, entries).unwrap()
    }

    fn rows() -> Vec<f32> {
        (0..ITEMS * 5).map(|at| (at * 31 % 17) as f32 / 8.0 - 1.0).collect()
    }

    fn network() -> Network<B> {
        let mut network = config().init::<B>(&Default::default());
        network.residuals = network.residuals.map(|x| x.random_like(Distribution::Normal(0.0, 0.5)).detach());
        network.residuals = network.residuals.map(|x| x.require_grad());
        network
    }

    fn close(a: Tensor<Flex, 2>, b: Tensor<Flex, 2>) {
        assert_eq!(a.dims(), b.dims());
        let difference: Vec<f32> = (a - b).abs().into_data().into_vec().unwrap();
        assert!(difference.iter().all(|&by| by < 1.0e-4), "{difference:?}");
    }

    #[test]
    fn vectors_and_their_gradients_are_those_of_the_formula_by_either_hand() {
        let (config, codes, rows, device, network) = (config(), codes(), rows(), Default::default(), network());
        let past = [1..3, 4..5];
        let newcomers = [2u32, 7];
        // The formula on the graph: newcomers have no residual and no columns of the past.
        let mut seen = rows.clone();
        let mut known = vec![1.0f32; ITEMS];
        for &item in &newcomers {
            known[item as usize] = 0.0;
            for column in past.iter().cloned().flatten() {
                seen[item as usize * 5 + column] = 0.0;
            }
        }
        let x = Tensor::<B, 2>::from_data(TensorData::new(seen, [ITEMS, 5]), &device) / 5.0f32.sqrt();
        let known = Tensor::<B, 2>::from_data(TensorData::new(known, [ITEMS, 1]), &device);
        let head = network.feature_head.as_ref().unwrap().val();
        let plain = network.token_sums(flat_codes(&codes, &device)) + x.matmul(head) + network.residuals() * known;
        let weights = Tensor::<B, 2>::random([ITEMS, 6], Distribution::Normal(0.0, 1.0), &device);
        let expected = GradientsParams::from_grads((plain.clone() * weights.clone()).sum().backward(), &network);

        for kernels in [Kernels::Host, Kernels::Device] {
            let features = ItemFeatures { rows: &rows, width: 5, of_the_past: &past };
            let tower = ItemTower::<B>::new(&config, &codes, features, kernels, &device);
            let items = tower.vectors(&network, &newcomers).unwrap();
            close(items.vectors.clone(), plain.clone().inner());
            close(items.token_sums.clone(), network.token_sums(flat_codes(&codes, &device)).inner());
            let mut found = GradientsParams::new();
            tower.hand_on(&network, &items, weights.clone().inner(), &mut found).unwrap();
            for id in [network.tokens.id, network.residuals.id, network.feature_head.as_ref().unwrap().id] {
                close(found.get::<Flex, 2>(id).unwrap(), expected.get::<Flex, 2>(id).unwrap());
            }
        }
    }

    #[test]
    fn a_folded_network_needs_no_features_and_a_newcomer_gets_what_its_features_give() {
        let (config, codes, rows, device, network) = (config(), codes(), rows(), Default::default(), network());
        let past = [1..3, 4..5];
        let features = ItemFeatures { rows: &rows, width: 5, of_the_past: &past };
        let tower = ItemTower::<B>::new(&config, &codes, features, Kernels::Host, &device);
        let vectors = tower.vectors(&network, &[]).unwrap().vectors;
        use burn::module::AutodiffModule;
        let folded = network.valid().folded(tower.features().unwrap());
        close(folded.item_vectors(flat_codes(&codes, &device)), vectors);

        let newcomer = Tensor::<Flex, 2>::from_data(TensorData::new(vec![0.5f32; 5], [1, 5]), &device);
        let given = newcomer.clone().matmul(network.feature_head.as_ref().unwrap().val().inner());
        close(folded.given_residuals(newcomer), given);
    }
}
