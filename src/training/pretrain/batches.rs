//! Sequences into steps: like lengths together, in an order that follows from the seed and the epoch.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::domain::HistoryEntry;

/// Steps whose sequences are sorted by length together.
const POOL: usize = 16;

/// What pre-training learns from: the training part of every user's sequence.
#[derive(Debug, Clone, Default)]
pub struct TrainingSet {
    /// Windows of at most `max_history + 1` events; each but the first is a target.
    windows: Vec<Vec<HistoryEntry>>,
}

/// One step's sequences, padded to one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Places of the windows in the training set.
    pub windows: Vec<usize>,
    /// Encoder positions of each, padding included.
    pub length: usize,
}

/// All steps of one epoch.
pub type Batches = Vec<Batch>;

impl TrainingSet {
    /// Cuts sequences (oldest first, training part only) into windows, from the newest event back. Sequences of fewer
    /// than two events hold no target and are left out.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [HistoryEntry]>, max_history: usize) -> Self {
        let mut windows = Vec::new();
        for sequence in sequences {
            let mut end = sequence.len();
            while end >= 2 {
                let start = end.saturating_sub(max_history + 1);
                windows.push(sequence[start..end].to_vec());
                // The first event of this window is the last target of the one before it.
                end = if start == 0 { 0 } else { start + 1 };
            }
        }
        Self { windows }
    }

    /// The events of one window.
    pub fn window(&self, at: usize) -> &[HistoryEntry] {
        &self.windows[at]
    }

    /// The number of windows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// True when nothing can be learnt.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The steps of epoch `epoch`: about `positions` targets each.
    ///
    /// Like lengths go together, to spare padding, but only among the sequences of a random pool of a few steps: steps of
    /// one length alone would pull the weights to and fro.
    pub fn batches(&self, positions: usize, seed: u64, epoch: usize) -> Batches {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ (epoch as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut order: Vec<usize> = (0..self.windows.len()).collect();
        order.shuffle(&mut random);
        let mut batches = Vec::new();
        for mut pool in self.cut(order, POOL * positions) {
            // A stable sort keeps the shuffle among equals, so every epoch groups other sequences.
            pool.sort_by_key(|&at| self.windows[at].len());
            batches.extend(self.cut(pool, positions).into_iter().map(|windows| self.batch(windows)));
        }
        batches.shuffle(&mut random);
        batches
    }

    /// Cuts `order` where as many targets are reached.
    fn cut(&self, order: Vec<usize>, targets: usize) -> Vec<Vec<usize>> {
        let mut parts = Vec::new();
        let (mut current, mut held) = (Vec::new(), 0);
        for at in order {
            current.push(at);
            held += self.windows[at].len() - 1;
            if held >= targets {
                parts.push(std::mem::take(&mut current));
                held = 0;
            }
        }
        if !current.is_empty() {
            parts.push(current);
        }
        parts
    }

    fn batch(&self, windows: Vec<usize>) -> Batch {
        let length = windows.iter().map(|&at| self.windows[at].len() - 1).max().unwrap_or(1);
        Batch { windows, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EventKind;

    fn sequence(length: u32) -> Vec<HistoryEntry> {
        (0..length).map(|item| HistoryEntry { item, kind: EventKind::View, time: 0 }).collect()
    }

    #[test]
    fn every_event_but_a_users_first_is_a_target_once() {
        let long = sequence(25);
        let set = TrainingSet::new([long.as_slice(), &sequence(1)], 10);
        let mut targets: Vec<u32> =
            (0..set.len()).flat_map(|at| set.window(at)[1..].iter().map(|event| event.item)).collect();
        targets.sort_unstable();
        assert_eq!(targets, (1..25).collect::<Vec<_>>());
        assert!((0..set.len()).all(|at| set.window(at).len() <= 11));
    }

    #[test]
    fn batches_hold_every_window_once_and_follow_from_seed_and_epoch() {
        let sequences: Vec<_> = (2..60).map(sequence).collect();
        let set = TrainingSet::new(sequences.iter().map(Vec::as_slice), 50);
        let first = set.batches(64, 7, 0);
        assert_eq!(first, set.batches(64, 7, 0));
        assert_ne!(first, set.batches(64, 7, 1));
        let mut seen: Vec<usize> = first.iter().flat_map(|batch| batch.windows.clone()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..set.len()).collect::<Vec<_>>());
    }
}
