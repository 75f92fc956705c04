//! Measures a fitted tokenizer on the items it was fitted on.

use std::collections::HashMap;

use rayon::prelude::*;

use super::assign::Assignment;
use super::matrix::dot;
use super::{Diagnostics, FeatureTable, Quantiser, Tokenizer, TokenizerError};
use crate::domain::{Code, CodeTable};

/// Items whose neighbours are looked up.
const NEIGHBOUR_SAMPLE: usize = 500;
/// Neighbours an item.
const NEIGHBOURS: usize = 10;

impl Diagnostics {
    /// Measures the tokenizer on the items it was fitted on.
    pub(super) fn measure(
        tokenizer: &Tokenizer,
        features: &FeatureTable,
        nearest: &CodeTable,
        assignment: &Assignment,
    ) -> Result<Self, TokenizerError> {
        let codes = &assignment.codes;
        let shape = codes.shape();
        let (usage, perplexity) = (0..shape.codebooks).map(|codebook| spread(codes, codebook)).unzip();
        let (distinct_codes, largest_group) = groups(nearest);
        let (assigned_distinct_codes, assigned_largest_group) = groups(codes);
        let shared = SharedTokens::measure(features, codes);
        Ok(Self {
            items: codes.items(),
            codebooks: shape.codebooks,
            entries: shape.entries,
            usage,
            perplexity,
            baseline_error: baseline_error(features),
            reconstruction_error: mean_square(&features.rows, &tokenizer.reconstruct(features, nearest)?),
            assigned_error: mean_square(&features.rows, &tokenizer.reconstruct(features, codes)?),
            pairwise_cosine: match tokenizer.quantiser() {
                Quantiser::Mpq(_) | Quantiser::Rq(_) => {
                    let latents = tokenizer.latents(features)?;
                    let latent = latents.len() / (codes.items() * shape.codebooks);
                    pairwise_cosine(&latents, shape.codebooks, latent)
                }
                // Sub-spaces at right angles, and no vectors at all.
                Quantiser::Opq(_) | Quantiser::Random { .. } => 0.0,
            },
            distinct_codes,
            assigned_distinct_codes,
            largest_group,
            assigned_largest_group,
            moved_items: assignment.moved,
            neighbour_shared_tokens: shared.neighbours,
            random_shared_tokens: shared.random,
        })
    }
}

/// Share of entries used, and perplexity, of one codebook.
fn spread(codes: &CodeTable, codebook: usize) -> (f32, f32) {
    let shape = codes.shape();
    let mut counts = vec![0u32; shape.entries];
    codes.entries().iter().skip(codebook).step_by(shape.codebooks).for_each(|&entry| counts[usize::from(entry)] += 1);
    let items = codes.items() as f64;
    let used = counts.iter().filter(|&&count| count > 0).count();
    let shares = counts.iter().filter(|&&count| count > 0).map(|&count| f64::from(count) / items);
    let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
    (used as f32 / shape.entries as f32, entropy.exp() as f32)
}

/// Distinct codes, and the size of the largest group.
fn groups(codes: &CodeTable) -> (usize, usize) {
    let mut groups: HashMap<Code<'_>, usize> = HashMap::new();
    (0..codes.items() as u32).for_each(|item| *groups.entry(codes.code(item)).or_default() += 1);
    (groups.len(), groups.values().copied().max().unwrap_or(0))
}

fn mean_square(left: &[f32], right: &[f32]) -> f32 {
    let sum: f64 = left.iter().zip(right).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / left.len().max(1) as f64) as f32
}

fn baseline_error(features: &FeatureTable) -> f32 {
    let items = features.items() as f64;
    let mut mean = vec![0.0f64; features.width];
    for row in features.rows.chunks_exact(features.width) {
        mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value) / items);
    }
    let rows = features.rows.chunks_exact(features.width);
    let sum: f64 =
        rows.flat_map(|row| row.iter().zip(&mean)).map(|(&value, mean)| (f64::from(value) - mean).powi(2)).sum();
    (sum / features.rows.len() as f64) as f32
}

/// latents: `[items, M, latent]`.
fn pairwise_cosine(latents: &[f32], codebooks: usize, latent: usize) -> f32 {
    let pairs = codebooks * (codebooks - 1) / 2;
    if pairs == 0 {
        return 0.0;
    }
    let mut sum = 0.0f64;
    for item in latents.chunks_exact(codebooks * latent) {
        let parts: Vec<&[f32]> = item.chunks_exact(latent).collect();
        let lengths: Vec<f32> = parts.iter().map(|part| dot(part, part).sqrt().max(1e-12)).collect();
        for r in 0..codebooks {
            for s in 0..r {
                sum += f64::from((dot(parts[r], parts[s]) / (lengths[r] * lengths[s])).abs());
            }
        }
    }
    (sum / (latents.len() / (codebooks * latent)) as f64 / pairs as f64) as f32
}

/// Mean numbers of tokens that two items share.
struct SharedTokens {
    neighbours: f32,
    random: f32,
}

impl SharedTokens {
    /// Over an even sample of items; neighbours by cosine of whole feature rows.
    fn measure(features: &FeatureTable, codes: &CodeTable) -> Self {
        let items = features.items();
        if items < 2 {
            return Self { neighbours: 0.0, random: 0.0 };
        }
        let lengths: Vec<f32> = (0..items).map(|i| dot(features.row(i), features.row(i)).sqrt().max(1e-12)).collect();
        let sample = NEIGHBOUR_SAMPLE.min(items);
        let sums: Vec<(usize, usize, usize)> = (0..sample)
            .into_par_iter()
            .map(|at| {
                let item = at * items / sample;
                let mut others: Vec<(f32, usize)> = (0..items)
                    .filter(|&other| other != item)
                    .map(|other| (dot(features.row(item), features.row(other)) / lengths[other], other))
                    .collect();
                let near = NEIGHBOURS.min(others.len());
                others.select_nth_unstable_by(near - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                let close = others[..near].iter().map(|&(_, other)| shared(codes, item, other)).sum();
                // A fixed stride is as good as chance here, and needs no generator.
                let far =
                    (1..=near).map(|step| shared(codes, item, (item + step * (items / 12).max(1) + 7) % items)).sum();
                (close, far, near)
            })
            .collect();
        let total = sums.iter().map(|sum| sum.2).sum::<usize>().max(1) as f32;
        Self {
            neighbours: sums.iter().map(|sum| sum.0).sum::<usize>() as f32 / total,
            random: sums.iter().map(|sum| sum.1).sum::<usize>() as f32 / total,
        }
    }
}

fn shared(codes: &CodeTable, left: usize, right: usize) -> usize {
    codes.code(left as u32).iter().zip(codes.code(right as u32)).filter(|(a, b)| a == b).count()
}
