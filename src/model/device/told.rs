//! What comes back from a step, made out.

use crate::decode::{Ask, Depth, Heavy, Step, Told};
use crate::domain::ItemNumber;

use super::{CHILD, HEAD};
use crate::model::ScorerError;

/// Numbers that are told of a path, its candidates aside.
pub(super) fn stride(most: usize) -> usize {
    HEAD + most * CHILD
}

/// Makes out what was told of these paths, in their order. `told` is what [`Kernels`](super::Kernels) says; `divergences` has one
/// number for each path, or none at all.
///
/// # Errors
/// Fewer numbers than were asked for; candidates of others than the path that they are told of.
pub(super) fn made_out(
    told: &[u32],
    asks: &[Ask],
    most: usize,
    depth: Depth,
    divergences: &[f32],
) -> Result<Step, ScorerError> {
    let listed: usize = asks.iter().filter_map(|ask| ask.listed).sum();
    if told.len() != asks.len() * stride(most) + 2 * listed {
        let expected = asks.len() * stride(most) + 2 * listed;
        return Err(ScorerError::Device(format!("{} numbers, expected {expected}", told.len())));
    }
    let (rows, mut candidates) = told.split_at(asks.len() * stride(most));
    let mut step = Step { listed: Vec::with_capacity(listed), ..Step::default() };
    step.paths.reserve(asks.len());
    for (at, (row, ask)) in rows.chunks_exact(stride(most)).zip(asks).enumerate() {
        let (first_child, first_listed) = (step.children.len(), step.listed.len());
        let (head, children) = row.split_at(HEAD);
        let children = children.chunks_exact(CHILD).take(depth.children).map(|child| Heavy {
            entry: child[0] as u16,
            weight: f32::from_bits(child[1]),
            held: child[2] as usize,
            first: child[3] as ItemNumber,
        });
        step.children.extend(children.take_while(|child| child.weight > 0.0));
        let own;
        (own, candidates) = candidates.split_at(2 * ask.listed.unwrap_or(0));
        step.listed.extend(own.chunks_exact(2).map(|pair| (pair[0] as ItemNumber, f32::from_bits(pair[1]))));
        step.paths.push(Told {
            best: f32::from_bits(head[0]),
            sum: f32::from_bits(head[1]),
            codebook: head[2] as u8,
            children: first_child..step.children.len(),
            listed: first_listed..step.listed.len(),
            divergence: divergences.get(at).copied().unwrap_or(0.0),
            non_finite: head[3],
        });
    }
    Ok(step)
}
