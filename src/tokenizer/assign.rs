//! Collision-aware assignment: items that share a code move to the free code that costs them least.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use rayon::prelude::*;

use super::{FeatureTable, Tokenizer, TokenizerError};
use crate::domain::CodeTable;

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
    let tokens = shape.tokens();
    let distances = tokenizer.distances(features, &crowded);
    let choices: Vec<Choices> =
        distances.par_chunks(tokens).map(|distances| Choices::new(distances, shape.entries)).collect();

    let mut room: HashMap<Vec<u16>, usize> = groups.iter().map(|(code, group)| (code.clone(), group.len())).collect();
    let mut leaving = leaving(&crowded, &choices, nearest, max_collisions);
    let mut entries = nearest.entries().to_vec();
    // The cheapest moves first: they can least afford to find their place taken.
    leaving.sort_by(|&a, &b| {
        choices[a].cheapest_move().total_cmp(&choices[b].cheapest_move()).then(crowded[a].cmp(&crowded[b]))
    });
    for &at in &leaving {
        let item = crowded[at];
        if let Some(code) = choices[at].first_free(|code| room.get(code).is_none_or(|&taken| taken < max_collisions)) {
            entries[item * shape.codebooks..(item + 1) * shape.codebooks].copy_from_slice(&code);
            *room.entry(code).or_default() += 1;
        }
    }
    let codes = CodeTable::new(shape, entries).map_err(TokenizerError::Rows)?;
    Ok(Assignment { codes, moved: leaving.len() })
}

/// Positions in `crowded` of the items that must leave their group.
fn leaving(crowded: &[usize], choices: &[Choices], nearest: &CodeTable, max_collisions: usize) -> Vec<usize> {
    let mut by_code: HashMap<&[u16], Vec<usize>> = HashMap::new();
    for (at, &item) in crowded.iter().enumerate() {
        by_code.entry(nearest.code(item as u32)).or_default().push(at);
    }
    let mut leaving = Vec::new();
    for mut group in by_code.into_values() {
        group.sort_by(|&a, &b| {
            choices[b].cheapest_move().total_cmp(&choices[a].cheapest_move()).then(crowded[a].cmp(&crowded[b]))
        });
        leaving.extend_from_slice(&group[max_collisions..]);
    }
    leaving
}

/// One item's entries in every codebook, nearest first, with what each costs beyond the nearest.
struct Choices {
    /// `[M][D]`
    ranked: Vec<Vec<(f32, u16)>>,
}

impl Choices {
    fn new(distances: &[f32], entries: usize) -> Self {
        let rank = |distances: &[f32]| {
            let mut ranked: Vec<(f32, u16)> =
                distances.iter().zip(0u16..=u16::MAX).map(|(&d, entry)| (d, entry)).collect();
            ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let least = ranked[0].0;
            ranked.iter_mut().for_each(|(distance, _)| *distance -= least);
            ranked
        };
        Self { ranked: distances.chunks_exact(entries).map(rank).collect() }
    }

    fn cheapest_move(&self) -> f32 {
        self.ranked.iter().map(|ranked| ranked[1].0).fold(f32::INFINITY, f32::min)
    }

    /// Codes in rising order of cost, until one is free.
    fn first_free(&self, free: impl Fn(&Vec<u16>) -> bool) -> Option<Vec<u16>> {
        let start = Candidate { cost: 0.0, ranks: vec![0; self.ranked.len()], last: 0 };
        let mut heap = BinaryHeap::from([Reverse(start)]);
        while let Some(Reverse(candidate)) = heap.pop() {
            let code =
                candidate.ranks.iter().zip(&self.ranked).map(|(&rank, ranked)| ranked[rank as usize].1).collect();
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
