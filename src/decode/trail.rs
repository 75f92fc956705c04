//! The tree of the tokens that a search chose, from which paths are told.

use crate::domain::{Attended, Belief, Path, Step, Token};

/// How many of the likeliest categories a step tells.
const TOLD: usize = 3;

/// How many of the events that were looked at most a path tells.
const EVENTS: usize = 5;

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
    /// How much each event was looked at.
    pub(super) attention: Vec<f32>,
}

/// Every token that one search chose.
#[derive(Debug, Default)]
pub(super) struct Trail {
    nodes: Vec<Node>,
    /// How much each event was looked at before the first token.
    begin: Vec<f32>,
}

impl Trail {
    /// Forgets all, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.begin.clear();
    }

    /// Notes how much each event was looked at before the first token.
    pub(super) fn begin(&mut self, attention: &[f32]) {
        self.begin.extend_from_slice(attention);
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

    /// The path to a node, and what the item took of it. `events` are those of the history, of which the decoder looked at
    /// the last ones.
    pub(super) fn path(&self, node: Option<usize>, log_finish: f64, events: usize) -> Path {
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
        Path { steps, finish: probability(log_finish), attended: self.attended(node, events) }
    }

    /// The events that were looked at most on the way to a node, its beginning included; ties: the newest first.
    fn attended(&self, node: Option<usize>, events: usize) -> Vec<Attended> {
        let read = || self.back(node).map(|node| &node.reading.attention).chain([&self.begin]);
        let positions = read().filter(|attention| !attention.is_empty()).count().max(1) as f32;
        let share = |at: usize| read().filter_map(|attention| attention.get(at)).sum::<f32>() / positions;
        let unread = events.saturating_sub(self.begin.len());
        let attended = |at: usize| Attended { event: unread + at, weight: share(at).clamp(0.0, 1.0) };
        let mut attended: Vec<Attended> = (0..self.begin.len().min(events)).map(attended).collect();
        attended.sort_by(|one, other| other.weight.total_cmp(&one.weight).then(other.event.cmp(&one.event)));
        attended.truncate(EVENTS);
        attended
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
