//! Weights of the rewards learnt from what users did next, so that no data set needs its own by hand.

use serde::{Deserialize, Serialize};

use super::reward::{RewardWeights, Rewards};

/// How fast what was seen is forgotten, a step.
const MEMORY: f32 = 0.99;

/// Ridge, as a share of the mean diagonal.
const RIDGE: f64 = 0.01;

/// Paths seen before the learnt weights are believed.
const ENOUGH: f32 = 2_000.0;

/// A linear model of how well a path does on the events after the next one, read off the rewards that it has for the next
/// one: what of a path tells that it goes on being right. Both are centred within each context's group, as advantages are.
/// Least squares with a ridge and a fading memory; no weight falls below zero.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardModel {
    /// Sums of products of rewards, row after row; f32, so that a checkpoint reads back to the same bits.
    gram: [[f32; 4]; 4],
    /// Sums of products of rewards with what came later.
    cross: [f32; 4],
    /// Paths that the sums remember.
    paths: f32,
}

impl RewardModel {
    /// Forgets a little; called once a step.
    pub fn fade(&mut self) {
        self.gram.iter_mut().flatten().for_each(|sum| *sum *= MEMORY);
        self.cross.iter_mut().for_each(|sum| *sum *= MEMORY);
        self.paths *= MEMORY;
    }

    /// Takes in the paths of one context: the rewards of each for the next event, and what it retrieved of later ones.
    pub fn add(&mut self, rewards: &[Rewards], later: &[f32]) {
        let count = rewards.len().max(1) as f64;
        let mut mean = [0.0f64; 4];
        for rewards in rewards {
            rewards.values().iter().zip(&mut mean).for_each(|(value, mean)| *mean += f64::from(*value) / count);
        }
        let later_mean = later.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        for (rewards, &later) in rewards.iter().zip(later) {
            let values = rewards.values();
            let centred = [0, 1, 2, 3].map(|at| f64::from(values[at]) - mean[at]);
            for (row, a) in self.gram.iter_mut().zip(centred) {
                row.iter_mut().zip(centred).for_each(|(sum, b)| *sum += (a * b) as f32);
            }
            let gain = f64::from(later) - later_mean;
            self.cross.iter_mut().zip(centred).for_each(|(sum, a)| *sum += (a * gain) as f32);
        }
        self.paths += count as f32;
    }

    /// The weights that it comes to, of the same sum as `fixed`; those themselves until enough was seen, or when nothing
    /// tells of later events.
    pub fn weights(&self, fixed: &RewardWeights) -> RewardWeights {
        let sum: f32 = fixed.values().iter().sum();
        if self.paths < ENOUGH {
            return *fixed;
        }
        // Non-negative least squares of four unknowns: the unknowns are dropped one by one while one is negative.
        let mut kept = [true; 4];
        loop {
            let solved = self.solve(kept);
            let least = (0..4).filter(|&at| kept[at]).min_by(|&a, &b| solved[a].total_cmp(&solved[b]));
            match least {
                Some(at) if solved[at] < 0.0 => kept[at] = false,
                Some(_) => {
                    let all: f64 = solved.iter().sum();
                    if !(all > 0.0 && all.is_finite()) {
                        return *fixed;
                    }
                    return Rewards::of(solved.map(|weight| (weight / all) as f32 * sum));
                }
                None => return *fixed,
            }
        }
    }

    /// The solution over the unknowns that are kept, zero for the others: Gauss-Seidel on the normal equations.
    fn solve(&self, kept: [bool; 4]) -> [f64; 4] {
        let gram = |a: usize, b: usize| f64::from(self.gram[a][b]);
        let ridge = RIDGE * (0..4).map(|at| gram(at, at)).sum::<f64>() / 4.0 + 1.0e-9;
        let mut solved = [0.0f64; 4];
        for _ in 0..500 {
            for at in (0..4).filter(|&at| kept[at]) {
                let others: f64 =
                    (0..4).filter(|&other| other != at).map(|other| gram(at, other) * solved[other]).sum();
                solved[at] = (f64::from(self.cross[at]) - others) / (gram(at, at) + ridge);
            }
        }
        solved
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn model(truth: [f32; 4]) -> RewardModel {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut model = RewardModel::default();
        for _ in 0..1_000 {
            let rewards: Vec<Rewards> = (0..8).map(|_| Rewards::of([(); 4].map(|()| random.random()))).collect();
            let later: Vec<f32> = rewards
                .iter()
                .map(|rewards| rewards.values().iter().zip(truth).map(|(value, weight)| value * weight).sum::<f32>())
                .map(|value| value + random.random::<f32>() * 0.1)
                .collect();
            model.add(&rewards, &later);
        }
        model
    }

    #[test]
    fn it_finds_what_tells_of_later_events() {
        let found = model([0.6, 0.0, 0.1, 0.3]).weights(&Rewards::of([1.0, 1.0, 1.0, 1.0])).values();
        for (found, wanted) in found.iter().zip([2.4, 0.0, 0.4, 1.2]) {
            assert!((found - wanted).abs() < 0.05, "{found} for {wanted}");
        }
    }

    #[test]
    fn no_weight_is_negative_and_nothing_told_keeps_the_fixed_ones() {
        let fixed = Rewards::default();
        let found = model([1.0, -0.5, 0.0, 0.0]).weights(&fixed);
        assert_eq!(found.category, 0.0);
        assert!((found.values().iter().sum::<f32>() - fixed.values().iter().sum::<f32>()).abs() < 1e-4);
        assert_eq!(model([-1.0, -1.0, -1.0, -1.0]).weights(&fixed), fixed);
        assert_eq!(RewardModel::default().weights(&fixed), fixed);
    }

    #[test]
    fn old_steps_fade() {
        let mut model = model([1.0, 0.0, 0.0, 0.0]);
        (0..1_000).for_each(|_| model.fade());
        assert_eq!(model.weights(&Rewards::default()), Rewards::default());
    }
}
