//! What comes back from a step, made out.

use crate::decode::{Ask, Depth, Heavy, Step, Told};
use crate::domain::{CodeShape, ItemNumber};

use super::{CHILD, HEAD};
use crate::model::ScorerError;

/// Numbers that are told of a path, its candidates aside.
pub(super) fn stride(most: usize) -> usize {
    HEAD + most * CHILD
}

/// Puts what was told of these paths of a catalogue behind what a step holds. `told` is what [`Kernels`](super::Kernels) says;
/// `divergences` has one number for each path, or none at all.
///
/// # Errors
/// Another number of numbers than was asked for; items, codebooks or entries that the catalogue does not have.
pub(super) fn make_out(
    step: &mut Step,
    told: &[u32],
    asks: &[Ask],
    most: usize,
    depth: Depth,
    divergences: &[f32],
    (items, shape): (usize, CodeShape),
) -> Result<(), ScorerError> {
    let below = |found: u32, most: usize, what: &str| {
        let told = || ScorerError::Device(format!("it tells of {what} {found}, expected one below {most}"));
        if (found as usize) < most { Ok(found) } else { Err(told()) }
    };
    let listed: usize = asks.iter().filter_map(|ask| ask.listed).sum();
    if told.len() != asks.len() * stride(most) + 2 * listed {
        let expected = asks.len() * stride(most) + 2 * listed;
        return Err(ScorerError::Device(format!("{} numbers, expected {expected}", told.len())));
    }
    let (rows, mut candidates) = told.split_at(asks.len() * stride(most));
    step.listed.reserve(listed);
    step.paths.reserve(asks.len());
    for (at, (row, ask)) in rows.chunks_exact(stride(most)).zip(asks).enumerate() {
        let (first_child, first_listed) = (step.children.len(), step.listed.len());
        let (head, children) = row.split_at(HEAD);
        let children = children.chunks_exact(CHILD).take(depth.children);
        for child in children.take_while(|child| f32::from_bits(child[1]) > 0.0) {
            step.children.push(Heavy {
                entry: below(child[0], shape.entries, "the entry")? as u16,
                weight: f32::from_bits(child[1]),
                held: child[2] as usize,
                first: below(child[3], items, "item")? as ItemNumber,
            });
        }
        let own;
        (own, candidates) = candidates.split_at(2 * ask.listed.unwrap_or(0));
        for pair in own.chunks_exact(2) {
            step.listed.push((below(pair[0], items, "item")? as ItemNumber, f32::from_bits(pair[1])));
        }
        step.paths.push(Told {
            best: f32::from_bits(head[0]),
            sum: f32::from_bits(head[1]),
            codebook: below(head[2], shape.codebooks, "the codebook")? as u8,
            children: first_child..step.children.len(),
            listed: first_listed..step.listed.len(),
            divergence: divergences.get(at).copied().unwrap_or(0.0),
            non_finite: head[3],
        });
    }
    Ok(())
}
