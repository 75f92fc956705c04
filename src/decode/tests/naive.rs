//! Every item's path followed one by one, the straightforward way, in f64.

use crate::catalog::{Candidates, Index};
use crate::domain::{ItemNumber, Token};

use super::fake::Fake;

/// ln p(item | history) along the item's own confidence path, which ends when at most `finish_at` candidates are left
/// or the code is complete.
pub fn log_probability(
    model: &Fake,
    index: &Index,
    root: &Candidates,
    key: u64,
    item: ItemNumber,
    finish_at: usize,
) -> f64 {
    let shape = model.shape;
    let query = (model.query)(key);
    let code = |item: ItemNumber, r: usize| Token { codebook: r as u8, entry: index.codes().code(item)[r] };
    let mut path: Vec<Token> = vec![];
    let mut score = 0.0;
    loop {
        let unused: Vec<usize> =
            (0..shape.codebooks).filter(|&r| path.iter().all(|t| t.codebook as usize != r)).collect();
        let candidates: Vec<ItemNumber> =
            root.iter().filter(|&i| path.iter().all(|t| code(i, t.codebook as usize) == *t)).collect();
        let state = (model.read)(key, &path);
        let logits: Vec<f64> = candidates
            .iter()
            .map(|&i| {
                let of = |table: &[f32], r: usize| f64::from(table[shape.flat(code(i, r))]);
                let row = &model.rows[i as usize * model.width..(i as usize + 1) * model.width];
                let residual: f64 = row.iter().zip(&query.residual).map(|(a, b)| f64::from(a * b)).sum();
                let scorer: f64 = (0..shape.codebooks).map(|r| of(&query.token_scores, r)).sum();
                residual + scorer + unused.iter().map(|&r| of(&state.token_refinements, r)).sum::<f64>()
            })
            .collect();
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let share = |keep: &dyn Fn(ItemNumber) -> bool| -> f64 {
            let kept = candidates.iter().zip(&logits).filter(|(i, _)| keep(**i));
            kept.map(|(_, logit)| logit.exp()).sum::<f64>() / sum
        };
        if unused.is_empty() || candidates.len() <= finish_at {
            return score + share(&|i| i == item).ln();
        }
        let confidence =
            |r: usize| (0..shape.entries as u16).map(|entry| share(&|i| code(i, r).entry == entry)).fold(0.0, f64::max);
        let mut surest = unused[0];
        for &r in &unused {
            if confidence(r) > confidence(surest) {
                surest = r;
            }
        }
        let token = code(item, surest);
        score += share(&|i| code(i, surest) == token).ln();
        path.push(token);
    }
}
