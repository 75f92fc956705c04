//! A vector for items that nobody has taken yet, from what is known of the items likest to them.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::domain::{CodeTable, HistoryEntry, Violation};
use crate::evaluation::{Trial, last_states};
use crate::model::{Network, NetworkConfig, flat_codes};
use crate::tokenizer::Likeness;

/// Histories that say in which direction all score alike.
const HISTORIES: usize = 2_000;

/// How newcomers start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Known items whose vectors a newcomer's is the mean of.
    pub neighbours: usize,
    /// What a newcomer's score gets on top, in nats: without it the many known items that many people take leave it no
    /// place. It costs known items theirs.
    pub boost: f32,
}

impl Default for Launch {
    fn default() -> Self {
        Self { neighbours: 32, boost: 0.0 }
    }
}

/// The items that are known, as newcomers see them.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Their features.
    pub likeness: &'a Likeness,
    /// Their v, `[known, d]`.
    pub vectors: &'a [f32],
    /// d.
    pub width: usize,
    /// Some h, `[histories, d]`, for the direction in which all histories score alike.
    pub states: &'a [f32],
}

impl Launch {
    /// Every setting that cannot be.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        if self.neighbours == 0 {
            wrong.push(Violation::new("neighbours", "0: expected at least 1"));
        }
        if !self.boost.is_finite() {
            wrong.push(Violation::new("boost", format!("{}: expected a number", self.boost)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// v of the newcomers, `[newcomers, d]`: the mean over their likest known items, weighted by likeness, drawn out to the
    /// length that those have (a mean is shorter, and would lose to every known item), and `boost` on top.
    pub fn vectors(self, newcomers: &Likeness, known: Known<'_>) -> Vec<f32> {
        let d = known.width;
        let alike = if self.boost == 0.0 { vec![0.0; d] } else { constant_direction(known.states, d) };
        newcomers
            .rows()
            .flat_map_iter(|row| {
                let like = known.likeness.nearest(row, self.neighbours);
                let (mut mean, mut lengths) = (vec![0.0f32; d], 0.0);
                for (item, share) in like {
                    let vector = &known.vectors[item * d..(item + 1) * d];
                    lengths += share * length(vector);
                    mean.iter_mut().zip(vector).for_each(|(sum, value)| *sum += share * value);
                }
                let scale = lengths / length(&mean).max(f32::MIN_POSITIVE);
                let boost = self.boost;
                mean.into_iter().zip(alike.clone()).map(move |(value, alike)| value * scale + boost * alike)
            })
            .collect()
    }
}

/// Items of a network that learnt, and those that it has not met.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// The network's sizes, with all items.
    pub config: &'a NetworkConfig,
    /// Codes of all items.
    pub codes: &'a CodeTable,
    /// Numbers and features of the items that it has met.
    pub known: (&'a [u32], &'a Likeness),
    /// Numbers and features of those that it has not.
    pub newcomers: (&'a [u32], &'a Likeness),
    /// Histories of items that it has met.
    pub histories: &'a [Trial],
}

impl Arrival<'_> {
    /// The network with residuals that bring the newcomers' vectors to where `launch` starts them. Residuals that `network` has
    /// for newcomers do not matter.
    pub fn settle<B: Backend>(
        self,
        network: Network<B>,
        launch: Launch,
        device: &B::Device,
    ) -> anyhow::Result<Network<B>> {
        let width = self.config.width;
        let floats = |tensor: Tensor<B, 2>| {
            tensor.into_data().convert::<f32>().into_vec::<f32>().map_err(|error| anyhow::anyhow!("reading: {error:?}"))
        };
        let table = network.item_vectors(flat_codes(self.codes, device)); // [items, d]
        let every = self.histories.len().div_ceil(HISTORIES).max(1);
        let histories: Vec<&[HistoryEntry]> =
            self.histories.iter().step_by(every).map(|trial| trial.history.as_slice()).collect();
        let mut states = Vec::new();
        for histories in histories.chunks(256) {
            states.extend(floats(last_states(&network, &table, histories, self.config.max_history, device))?);
        }
        let row = |rows: &[f32], item: u32| rows[item as usize * width..(item as usize + 1) * width].to_vec();
        let table = floats(table)?;
        let vectors: Vec<f32> = self.known.0.iter().flat_map(|&item| row(&table, item)).collect();
        let known = Known { likeness: self.known.1, vectors: &vectors, width, states: &states };
        let vectors = launch.vectors(self.newcomers.1, known);

        // A newcomer's tokens stay; its residual is what is left.
        let mut residuals = floats(network.residuals())?;
        let now = vectors.chunks_exact(width);
        for (&item, vector) in self.newcomers.0.iter().zip(now) {
            let at = item as usize * width..(item as usize + 1) * width;
            let before = &table[at.clone()];
            residuals[at]
                .iter_mut()
                .zip(vector)
                .zip(before)
                .for_each(|((residual, now), before)| *residual += now - before);
        }
        let shape = [self.config.items, width];
        Ok(network.with_residuals(Tensor::from_data(TensorData::new(residuals, shape), device)))
    }
}

/// The c with <h, c> nearest to one over the rows of `states`, `[rows, d]`, by least squares: added to an item's vector it
/// moves the item's score alike for everyone. By conjugate gradients on the normal equations.
fn constant_direction(states: &[f32], d: usize) -> Vec<f32> {
    let rows = (states.len() / d).max(1) as f64;
    let mut moments = vec![0.0f64; d * d];
    let mut right = vec![0.0f64; d];
    for state in states.chunks_exact(d) {
        for (at, &a) in state.iter().enumerate() {
            right[at] += f64::from(a) / rows;
            let row = &mut moments[at * d..(at + 1) * d];
            row.iter_mut().zip(state).for_each(|(sum, &b)| *sum += f64::from(a) * f64::from(b) / rows);
        }
    }
    // Against directions in which no state lies.
    (0..d).for_each(|at| moments[at * d + at] += 1.0e-6);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut found, mut left, mut direction) = (vec![0.0; d], right.clone(), right.clone());
    let mut size = dot(&left, &left);
    let enough = size * 1.0e-16;
    for _ in 0..4 * d {
        if size <= enough {
            break;
        }
        let image: Vec<f64> = moments.chunks_exact(d).map(|row| dot(row, &direction)).collect();
        let step = size / dot(&direction, &image);
        found.iter_mut().zip(&direction).for_each(|(sum, by)| *sum += step * by);
        left.iter_mut().zip(&image).for_each(|(sum, by)| *sum -= step * by);
        let next = dot(&left, &left);
        direction.iter_mut().zip(&left).for_each(|(by, left)| *by = left + next / size * *by);
        size = next;
    }
    found.into_iter().map(|value| value as f32).collect()
}

fn length(row: &[f32]) -> f32 {
    row.iter().map(|value| value * value).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Distribution;

    use super::*;
    use crate::domain::CodeShape;

    fn likeness(rows: &[[f32; 2]]) -> Likeness {
        let unit = |row: &[f32; 2]| row.map(|value| value / length(row));
        Likeness::of_rows(2, rows.iter().flat_map(unit).collect())
    }

    /// h whose last number is always two, the others of either sign.
    fn states() -> Vec<f32> {
        (0..60).map(|at| if at % 3 == 2 { 2.0 } else { ((at * 37 % 11) as f32 - 5.0) / 3.0 }).collect()
    }

    #[test]
    fn a_mean_of_neighbours_is_as_long_as_they_are_and_leans_to_the_likest() {
        let known = likeness(&[[1.0, 0.0], [1.0, 0.4], [-1.0, 0.1]]);
        let vectors = [2.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 9.0];
        let known = Known { likeness: &known, vectors: &vectors, width: 3, states: &[] };
        let newcomers = likeness(&[[1.0, 0.05], [3.0, 0.0]]);
        let one = Launch { neighbours: 1, boost: 0.0 }.vectors(&newcomers, known);
        assert_eq!(one, [2.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
        let two = Launch { neighbours: 2, boost: 0.0 }.vectors(&newcomers, known);
        for vector in two.chunks(3) {
            let share = vector[0] / (vector[0] + vector[1] / 2.0); // of the first neighbour
            let lengths = 2.0 * share + 4.0 * (1.0 - share);
            assert!(vector[0] > 0.0 && vector[1] > 0.0 && vector[2] == 0.0, "{vector:?}");
            assert!((length(vector) - lengths).abs() < 1.0e-4, "{vector:?} against {lengths}");
        }
        assert!(two[0] / two[1] < two[3] / two[4], "the second newcomer is liker to the first item: {two:?}");
    }

    #[test]
    fn a_boost_moves_a_score_alike_for_everyone() {
        let (states, known) = (states(), likeness(&[[1.0, 0.0]]));
        let known = Known { likeness: &known, vectors: &[0.3, -0.2, 0.5], width: 3, states: &states };
        let newcomer = likeness(&[[1.0, 0.0]]);
        let vectors = [0.0, 0.7].map(|boost| Launch { neighbours: 1, boost }.vectors(&newcomer, known));
        for state in states.chunks(3) {
            let score = |vector: &[f32]| state.iter().zip(vector).map(|(a, b)| a * b).sum::<f32>();
            assert!((score(&vectors[1]) - score(&vectors[0]) - 0.7).abs() < 1.0e-4, "{state:?}");
        }
    }

    #[test]
    fn a_settled_newcomer_scores_as_its_likest_item_and_known_items_as_before() {
        let config = NetworkConfig {
            items: 4,
            codes: CodeShape { codebooks: 2, entries: 2 },
            width: 6,
            feed_forward: 6,
            max_history: 4,
            ..NetworkConfig::tiny()
        };
        let (codes, device) = (CodeTable::new(config.codes, vec![0, 1, 1, 1, 1, 0, 0, 0]).unwrap(), Default::default());
        let network = config.init::<Flex>(&device);
        let network = network.with_residuals(Tensor::random([4, 6], Distribution::Normal(0.0, 1.0), &device));
        let rows = |network: &Network<Flex>| -> Vec<f32> {
            network.item_vectors(flat_codes(&codes, &device)).into_data().into_vec().unwrap()
        };
        let before = rows(&network);
        let (known, newcomers) = (likeness(&[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), likeness(&[[0.1, 3.0]]));
        let arrival = Arrival {
            config: &config,
            codes: &codes,
            known: (&[0, 1, 3], &known),
            newcomers: (&[2], &newcomers),
            histories: &[],
        };
        let settled = arrival.settle(network, Launch { neighbours: 1, boost: 0.0 }, &device).unwrap();
        let after = rows(&settled);
        for (item, like) in [(0, 0), (1, 1), (2, 1), (3, 3)] {
            for column in 0..6 {
                let (now, then) = (after[item * 6 + column], before[like * 6 + column]);
                assert!((now - then).abs() < 1.0e-5, "item {item}: {now} and {then}");
            }
        }
    }
}
