//! The tree of the tokens that a search chose, from which paths are told.

use crate::domain::{Belief, Path, Step, Token};

/// How many of the likeliest categories a step tells.
const TOLD: usize = 3;

/// One chosen token.
#[derive(Debug, Clone)]
struct Node {
    parent: Option<usize>,
    token: Token,
    /// ln p(token | h, path before).
    log_p: f64,
    /// What was read after it; filled only when paths are told.
    reading: Reading,
}

/// What was read after a token.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// The likeliest categories, best first.
    pub(super) beliefs: Vec<Belief>,
    /// JS to the belief before, in nats.
    pub(super) divergence: Option<f32>,
    /// Children of the same parent that CORP pruned at this step.
    pub(super) pruned_siblings: u32,
    /// CORP would have pruned it, but nothing better was left.
    pub(super) inconsistent: bool,
}

/// Every token that one search chose.
#[derive(Debug, Default)]
pub(super) struct Trail {
    nodes: Vec<Node>,
}

impl Trail {
    /// Forgets all, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
    }

    /// A token chosen after `parent` (none: the first). Answers its place.
    pub(super) fn choose(&mut self, parent: Option<usize>, token: Token, log_p: f64) -> usize {
        self.nodes.push(Node { parent, token, log_p, reading: Reading::default() });
        self.nodes.len() - 1
    }

    /// Notes what was read after a token.
    pub(super) fn note(&mut self, node: usize, reading: Reading) {
        self.nodes[node].reading = reading;
    }

    /// The place of the token before.
    pub(super) fn parent(&self, node: Option<usize>) -> Option<usize> {
        node.and_then(|node| self.nodes[node].parent)
    }

    /// The tokens up to a node and one more, as a sorted set.
    pub(super) fn token_set(&self, node: Option<usize>, token: Token) -> Vec<Token> {
        let mut set: Vec<Token> = self.back(node).map(|node| node.token).collect();
        set.push(token);
        set.sort_unstable();
        set
    }

    /// A number that follows from the tokens up to a node, and from nothing else.
    pub(super) fn salt(&self, node: Option<usize>) -> u64 {
        self.back(node).fold(0x9E37_79B9_7F4A_7C15, |all, node| {
            let token = u64::from(node.token.codebook) << 16 | u64::from(node.token.entry);
            (all ^ token).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29)
        }) >> 7
    }

    /// The path to a node, and what the item took of it.
    pub(super) fn path(&self, node: Option<usize>, log_finish: f64) -> Path {
        let mut steps: Vec<Step> = self
            .back(node)
            .map(|node| Step {
                token: node.token,
                probability: probability(node.log_p),
                beliefs: node.reading.beliefs.clone(),
                divergence: node.reading.divergence,
                pruned_siblings: node.reading.pruned_siblings,
                inconsistent: node.reading.inconsistent,
            })
            .collect();
        steps.reverse();
        Path { steps, finish: probability(log_finish) }
    }

    /// From a node back to the first token.
    fn back(&self, node: Option<usize>) -> impl Iterator<Item = &Node> {
        std::iter::successors(node.map(|at| &self.nodes[at]), |node| node.parent.map(|at| &self.nodes[at]))
    }
}

/// The likeliest categories of a belief, best first; ties: lowest number first.
pub(super) fn likeliest(beliefs: &[f32]) -> Vec<Belief> {
    let mut best: Vec<Belief> = Vec::with_capacity(TOLD + 1);
    for (category, &probability) in beliefs.iter().enumerate() {
        let place = best.iter().position(|other| probability > other.probability).unwrap_or(best.len());
        if place < TOLD {
            best.insert(place, Belief { category: category as u32, probability });
            best.truncate(TOLD);
        }
    }
    best
}

/// In (0, 1], as promised: rounding may leave the range by a hair.
fn probability(log_p: f64) -> f32 {
    (log_p.exp() as f32).clamp(f32::MIN_POSITIVE, 1.0)
}
