//! Collision-aware assignment: items that share a code move to the free code that costs them least.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use rayon::prelude::*;

use super::{FeatureTable, Tokenizer, TokenizerError};
use crate::domain::{Code, CodeTable};

/// Where one item may move.
pub(super) trait Choices: Send + Sync {
    /// What the cheapest move adds to the squared distance between the item's latents and its entries.
    fn cheapest_move(&self) -> f32;

    /// The first code, in rising order of cost, that is free.
    fn first_free(&self, free: &dyn Fn(&[u16]) -> bool) -> Option<Vec<u16>>;
}

/// Codes after assignment.
pub(super) struct Assignment {
    /// The codes, none shared by more than `max_collisions` items.
    pub codes: CodeTable,
    /// Items whose code is not their nearest.
    pub moved: usize,
}

/// Moves items out of groups larger than `max_collisions`, each to the free code with the least extra squared distance
/// between its latents and its entries. Of a group, those stay whom moving would cost most; ties go to the lower number.
pub(super) fn assign(
    tokenizer: &Tokenizer,
    features: &FeatureTable,
    nearest: &CodeTable,
    max_collisions: usize,
) -> Result<Assignment, TokenizerError> {
    let shape = nearest.shape();
    let capacity =
        (shape.entries as u128).saturating_pow(shape.codebooks as u32).saturating_mul(max_collisions as u128);
    if nearest.items() as u128 > capacity {
        return Err(TokenizerError::Capacity { items: nearest.items(), capacity });
    }
    let mut groups: HashMap<Vec<u16>, Vec<usize>> = HashMap::new();
    for (item, code) in nearest.entries().chunks_exact(shape.codebooks).enumerate() {
        groups.entry(code.to_vec()).or_default().push(item);
    }
    let mut crowded: Vec<&Vec<usize>> = groups.values().filter(|group| group.len() > max_collisions).collect();
    crowded.sort_unstable();
    let crowded: Vec<usize> = crowded.into_iter().flatten().copied().collect();
    let mut room: HashMap<Vec<u16>, usize> = groups.iter().map(|(code, group)| (code.clone(), group.len())).collect();
    let mut entries = nearest.entries().into_owned();
    let moved = tokenizer.with_choices(features, nearest, &crowded, |choices| {
        let costs: Vec<f32> = choices.par_iter().map(|choices| choices.cheapest_move()).collect();
        let mut leaving = leaving(&crowded, &costs, nearest, max_collisions);
        // The cheapest moves first: they can least afford to find their place taken.
        leaving.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]).then(crowded[a].cmp(&crowded[b])));
        for &at in &leaving {
            let free = |code: &[u16]| room.get(code).is_none_or(|&taken| taken < max_collisions);
            if let Some(code) = choices[at].first_free(&free) {
                let item = crowded[at];
                entries[item * shape.codebooks..(item + 1) * shape.codebooks].copy_from_slice(&code);
                *room.entry(code).or_default() += 1;
            }
        }
        leaving.len()
    });
    let codes = CodeTable::new(shape, entries).map_err(TokenizerError::Rows)?;
    Ok(Assignment { codes, moved })
}

/// Positions in `crowded` of the items that must leave their group; `costs` are those of their cheapest moves.
fn leaving(crowded: &[usize], costs: &[f32], nearest: &CodeTable, max_collisions: usize) -> Vec<usize> {
    let mut by_code: HashMap<Code<'_>, Vec<usize>> = HashMap::new();
    for (at, &item) in crowded.iter().enumerate() {
        by_code.entry(nearest.code(item as u32)).or_default().push(at);
    }
    let mut leaving = Vec::new();
    for mut group in by_code.into_values() {
        group.sort_by(|&a, &b| costs[b].total_cmp(&costs[a]).then(crowded[a].cmp(&crowded[b])));
        leaving.extend_from_slice(&group[max_collisions..]);
    }
    leaving
}

/// The choices of items whose codebooks choose independently, from the squared distances of their latents to every entry
/// (`[items, M, D]`), less what is common to a row and codebook.
pub(super) fn independent(distances: &[f32], codebooks: usize, entries: usize) -> Vec<Box<dyn Choices>> {
    let choices = |distances| Box::new(IndependentChoices::new(distances, entries)) as Box<dyn Choices>;
    distances.par_chunks(codebooks * entries).map(choices).collect()
}

/// Entries and their squared distances, nearest first, ties to the lower entry.
pub(super) fn ranked(distances: &[f32]) -> Vec<(f32, u16)> {
    let mut ranked: Vec<(f32, u16)> = distances.iter().zip(0u16..=u16::MAX).map(|(&d, entry)| (d, entry)).collect();
    ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    ranked
}

/// One item's entries in every codebook, nearest first, with what each costs beyond the nearest.
struct IndependentChoices {
    /// `[M][D]`
    ranked: Vec<Vec<(f32, u16)>>,
}

impl IndependentChoices {
    fn new(distances: &[f32], entries: usize) -> Self {
        let rank = |distances: &[f32]| {
            let mut ranked = ranked(distances);
            let least = ranked[0].0;
            ranked.iter_mut().for_each(|(distance, _)| *distance -= least);
            ranked
        };
        Self { ranked: distances.chunks_exact(entries).map(rank).collect() }
    }
}

impl Choices for IndependentChoices {
    fn cheapest_move(&self) -> f32 {
        self.ranked.iter().map(|ranked| ranked[1].0).fold(f32::INFINITY, f32::min)
    }

    fn first_free(&self, free: &dyn Fn(&[u16]) -> bool) -> Option<Vec<u16>> {
        let start = Candidate { cost: 0.0, ranks: vec![0; self.ranked.len()], last: 0 };
        let mut heap = BinaryHeap::from([Reverse(start)]);
        while let Some(Reverse(candidate)) = heap.pop() {
            let ranks = candidate.ranks.iter().zip(&self.ranked);
            let code: Vec<u16> = ranks.map(|(&rank, ranked)| ranked[rank as usize].1).collect();
            if free(&code) {
                return Some(code);
            }
            // Raising only codebooks from the last raised one on reaches every combination exactly once.
            for codebook in candidate.last..self.ranked.len() {
                let (ranked, rank) = (&self.ranked[codebook], candidate.ranks[codebook] as usize);
                if rank + 1 < ranked.len() {
                    let mut ranks = candidate.ranks.clone();
                    ranks[codebook] += 1;
                    let cost = candidate.cost + ranked[rank + 1].0 - ranked[rank].0;
                    heap.push(Reverse(Candidate { cost, ranks, last: codebook }));
                }
            }
        }
        None
    }
}

/// A combination of ranks, one per codebook.
struct Candidate {
    cost: f32,
    ranks: Vec<u32>,
    last: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cost.total_cmp(&other.cost).then_with(|| self.ranks.cmp(&other.ranks))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}
