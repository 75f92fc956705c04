//! How codebook entries are placed, follow the latents, and are placed anew when no item chooses them.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::nearest::nearest;

/// How the entries are placed and follow.
pub(super) struct CodebookSettings {
    /// M, D, L.
    pub shape: [usize; 3],
    /// Rounds of k-means that place the entries.
    pub kmeans_rounds: usize,
    /// What the moving average keeps at each step.
    pub decay: f32,
    /// An entry chosen by less than this share of the mean is dead.
    pub dead_share: f32,
    /// Vectors a step.
    pub batch: usize,
}

/// The entries of all codebooks on the host, with the moving sums behind them.
///
/// Everything is summed per codebook in the order of the items, so the outcome does not depend on the thread count.
pub(super) struct CodebookLearning {
    shape: [usize; 3],
    decay: f32,
    dead_share: f32,
    /// `[M, D, L]`
    pub entries: Vec<f32>,
    /// Moving count of choices, `[M, D]`.
    counts: Vec<f32>,
    /// Moving sum of the latents that chose the entry, `[M, D, L]`.
    sums: Vec<f32>,
    /// Choices in this epoch, `[M, D]`.
    chosen: Vec<u32>,
}

impl CodebookLearning {
    /// Places the entries among `latents` (`[M, rows, L]`) by k-means++ and rounds of k-means.
    pub fn place<B: Backend>(
        settings: &CodebookSettings,
        latents: &[f32],
        random: &mut ChaCha8Rng,
        device: &B::Device,
    ) -> CodebookLearning {
        let [codebooks, _, latent] = settings.shape;
        let mut learning = Self::spread_out(settings.shape, latents, random);
        for _ in 0..settings.kmeans_rounds {
            learning.kmeans_round::<B>(latents, device);
            learning.place_dead_anew(latents, latents.len() / codebooks / latent, random);
        }
        learning.decay = settings.decay;
        learning.dead_share = settings.dead_share;
        learning.start_averages(settings.batch.min(latents.len() / codebooks / latent));
        learning
    }

    /// Places the entries among `latents` (`[M, rows, L]`) by k-means++, for rounds of k-means to follow.
    pub fn spread_out(shape: [usize; 3], latents: &[f32], random: &mut ChaCha8Rng) -> CodebookLearning {
        let [codebooks, entries, latent] = shape;
        let rows = latents.len() / codebooks / latent;
        let starts: Vec<(usize, Vec<f32>)> = (0..codebooks)
            .map(|_| (random.random_range(0..rows), (1..entries).map(|_| random.random::<f32>()).collect()))
            .collect();
        let placed: Vec<f32> = starts
            .par_iter()
            .zip(latents.par_chunks(rows * latent))
            .flat_map_iter(|((first, draws), latents)| spread_out(latents, latent, *first, draws))
            .collect();
        Self {
            shape,
            decay: 0.0,
            dead_share: 1e-9,
            entries: placed,
            counts: vec![0.0; codebooks * entries],
            sums: vec![0.0; codebooks * entries * latent],
            chosen: vec![0; codebooks * entries],
        }
    }

    /// One round of k-means over `latents` (`[M, rows, L]`): each entry becomes the mean of the vectors nearest to it.
    /// Says which entry was nearest: `[M, rows]`.
    pub fn kmeans_round<B: Backend>(&mut self, latents: &[f32], device: &B::Device) -> Vec<u16> {
        let [codebooks, _, latent] = self.shape;
        let rows = latents.len() / codebooks / latent;
        let points = Tensor::<B, 3>::from_data(TensorData::new(latents.to_vec(), [codebooks, rows, latent]), device);
        let centres = Tensor::<B, 3>::from_data(TensorData::new(self.entries.clone(), self.shape), device);
        let codes = nearest(points, centres);
        self.absorb(latents, &codes);
        codes
    }

    /// `levels` codebooks, at least one, placed one after the other, as one.
    pub fn joined(levels: usize, mut place: impl FnMut() -> CodebookLearning) -> CodebookLearning {
        let mut all = place();
        for _ in 1..levels {
            let level = place();
            all.shape[0] += level.shape[0];
            all.entries.extend(level.entries);
            all.counts.extend(level.counts);
            all.sums.extend(level.sums);
            all.chosen.extend(level.chosen);
        }
        all
    }

    /// Counts as of an evenly used codebook, so that the first batches do not throw the entries about.
    fn start_averages(&mut self, batch: usize) {
        let even = batch as f32 / self.shape[1] as f32;
        self.counts.fill(even);
        self.sums.iter_mut().zip(&self.entries).for_each(|(sum, value)| *sum = value * even);
    }

    /// Takes one batch into the moving averages. latents: `[M, batch, L]`; codes: `[M, batch]`.
    pub fn absorb(&mut self, latents: &[f32], codes: &[u16]) {
        let [codebooks, entries, latent] = self.shape;
        let batch = codes.len() / codebooks;
        self.count(codes);
        let decay = self.decay;
        self.entries
            .par_chunks_mut(entries * latent)
            .zip(self.sums.par_chunks_mut(entries * latent))
            .zip(self.counts.par_chunks_mut(entries))
            .zip(latents.par_chunks(batch * latent).zip(codes.par_chunks(batch)))
            .for_each(|(((values, sums), counts), (latents, codes))| {
                sums.iter_mut().for_each(|sum| *sum *= decay);
                counts.iter_mut().for_each(|count| *count *= decay);
                for (point, &entry) in latents.chunks_exact(latent).zip(codes) {
                    let at = usize::from(entry);
                    counts[at] += 1.0 - decay;
                    let sum = &mut sums[at * latent..(at + 1) * latent];
                    sum.iter_mut().zip(point).for_each(|(sum, value)| *sum += (1.0 - decay) * value);
                }
                for ((value, sum), count) in
                    values.chunks_exact_mut(latent).zip(sums.chunks_exact(latent)).zip(counts.iter())
                {
                    // An entry that nobody chose for long stays where it is until it is placed anew.
                    if *count > 1e-4 {
                        value.iter_mut().zip(sum).for_each(|(value, sum)| *value = sum / count);
                    }
                }
            });
    }

    /// Counts who was chosen, for finding the dead.
    pub fn count(&mut self, codes: &[u16]) {
        let [codebooks, entries, _] = self.shape;
        let batch = codes.len() / codebooks;
        codes.iter().enumerate().for_each(|(at, &entry)| self.chosen[at / batch * entries + usize::from(entry)] += 1);
    }

    /// Moves each entry chosen by fewer than `dead_share` of the mean, since the last call, to a latent of the batch
    /// (`[M, batch, L]`). Says how many moved.
    pub fn place_dead_anew(&mut self, latents: &[f32], batch: usize, random: &mut ChaCha8Rng) -> usize {
        let [codebooks, entries, latent] = self.shape;
        let mut moved = 0;
        for codebook in 0..codebooks {
            let span = codebook * entries..(codebook + 1) * entries;
            let total: u32 = self.chosen[span.clone()].iter().sum();
            let floor = self.dead_share * total as f32 / entries as f32;
            let even = self.counts[span.clone()].iter().sum::<f32>() / entries as f32;
            let mut rows: Vec<usize> = (0..batch).collect();
            rows.shuffle(random);
            let dead = span.filter(|&entry| self.chosen[entry] as f32 <= floor);
            for (entry, row) in dead.zip(rows).collect::<Vec<_>>() {
                let from = (codebook * batch + row) * latent;
                let to = entry * latent..(entry + 1) * latent;
                self.entries[to.clone()].copy_from_slice(&latents[from..from + latent]);
                self.counts[entry] = even;
                self.sums[to].iter_mut().zip(&latents[from..]).for_each(|(sum, value)| *sum = value * even);
                moved += 1;
            }
        }
        self.chosen.fill(0);
        moved
    }

    /// Mean perplexity of the choices since the dead were last placed anew.
    pub fn perplexity(&self) -> f32 {
        let [codebooks, entries, _] = self.shape;
        let each = self.chosen.chunks_exact(entries).map(|counts| {
            let total = counts.iter().sum::<u32>().max(1) as f32;
            let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f32 / total);
            shares.map(|share| -share * share.ln()).sum::<f32>().exp()
        });
        each.sum::<f32>() / codebooks as f32
    }
}

/// k-means++: each next entry is a point drawn by its squared distance to the entries before. points: `[rows, L]`.
fn spread_out(points: &[f32], latent: usize, first: usize, draws: &[f32]) -> Vec<f32> {
    let point = |row: usize| &points[row * latent..(row + 1) * latent];
    let mut entries = point(first).to_vec();
    let mut distances = vec![f32::INFINITY; points.len() / latent];
    let mut newest = first;
    for draw in draws {
        let mut total = 0.0f64;
        for (row, distance) in distances.iter_mut().enumerate() {
            let square: f32 = point(row).iter().zip(point(newest)).map(|(a, b)| (a - b) * (a - b)).sum();
            *distance = distance.min(square);
            total += f64::from(*distance);
        }
        let mut left = f64::from(*draw) * total;
        newest = distances
            .iter()
            .position(|&distance| {
                left -= f64::from(distance);
                left < 0.0
            })
            .unwrap_or(first);
        entries.extend_from_slice(point(newest));
    }
    entries
}
