//! What is added to the scorer's scores before the search begins, and how many of a kind may come out: how a caller steers
//! it.

use crate::catalog::{Candidates, Index};
use crate::domain::{CodeTable, ItemNumber, Token};

use super::limits::{Limits, Room};

/// Nats added to scores. Sets move all their items alike; a token moves every item that holds it, which is how an item
/// draws its likes: by the tokens that they share. Adding keeps every item possible, and what is added to all items
/// changes nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bias {
    /// Sets of items, and what each adds to s(i) of its items.
    pub sets: Vec<(Candidates, f32)>,
    /// Tokens, and what each adds to s(i) of the items that hold it.
    pub tokens: Vec<(Token, f32)>,
    /// How many items of a kind may be answered.
    pub limits: Limits,
}

impl Bias {
    /// Whether nothing is added to any score, and nothing limited.
    pub fn is_neutral(&self) -> bool {
        let nothing =
            self.sets.iter().all(|(_, nats)| *nats == 0.0) && self.tokens.iter().all(|(_, nats)| *nats == 0.0);
        nothing && self.limits.is_none()
    }

    /// What is added to the item's score.
    pub fn of(&self, item: ItemNumber, codes: &CodeTable) -> f32 {
        let code = codes.code(item);
        let held = |token: &Token| code[usize::from(token.codebook)] == token.entry;
        let tokens = self.tokens.iter().filter(|(token, _)| held(token)).map(|(_, nats)| nats).sum::<f32>();
        self.of_sets(item) + tokens
    }

    /// Of items in their order, best first, those that the limits let pass, at most `k`.
    pub fn let_pass<T>(&self, index: &Index, ordered: Vec<T>, k: usize, item: impl Fn(&T) -> ItemNumber) -> Vec<T> {
        let mut room = Room::new(&self.limits, index);
        ordered.into_iter().filter(|one| room.take(item(one))).take(k).collect()
    }

    /// Adds to the scores of all items, `[items]`.
    pub(super) fn add_to(&self, index: &Index, scores: &mut [f32]) {
        for (set, nats) in &self.sets {
            set.iter().for_each(|number| scores[number as usize] += nats);
        }
        for &(token, nats) in &self.tokens {
            index.postings(token).iter().for_each(|number| scores[number as usize] += nats);
        }
    }

    fn of_sets(&self, item: ItemNumber) -> f32 {
        self.sets.iter().filter(|(set, _)| set.contains(item)).map(|(_, nats)| nats).sum()
    }
}
