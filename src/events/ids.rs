//! Which events are in the log already, by their ids.

use std::collections::{HashSet, VecDeque};

use sha2::{Digest, Sha256};

/// The id of one event, as 128 bits of its SHA-256: among 10^9 ids two are alike with a probability below 10^-20.
type Mark = u128;

/// The ids of the newest events, bounded.
#[derive(Debug)]
pub(super) struct KnownIds {
    limit: usize,
    marks: HashSet<Mark>,
    /// Oldest first. May still hold marks that were taken out.
    order: VecDeque<Mark>,
}

impl KnownIds {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, marks: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether an event of this id is known. An empty id never is.
    pub(super) fn contains(&self, id: &str) -> bool {
        !id.is_empty() && self.marks.contains(&mark(id))
    }

    /// Takes the id in; the oldest goes when there are too many.
    pub(super) fn insert(&mut self, id: &str) {
        if id.is_empty() || !self.marks.insert(mark(id)) {
            return;
        }
        self.order.push_back(mark(id));
        while self.order.len() > self.limit {
            let Some(oldest) = self.order.pop_front() else { break };
            self.marks.remove(&oldest);
        }
    }

    /// Takes the ids of forgotten events out.
    pub(super) fn remove_all<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        let gone: HashSet<Mark> = ids.into_iter().map(mark).filter(|mark| self.marks.remove(mark)).collect();
        if !gone.is_empty() {
            self.order.retain(|mark| !gone.contains(mark));
        }
    }
}

fn mark(id: &str) -> Mark {
    let digest = Sha256::digest(id.as_bytes());
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    Mark::from_le_bytes(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_id_goes_first_and_an_empty_one_is_never_known() {
        let mut ids = KnownIds::new(2);
        for id in ["", "a", "b", "a", "c"] {
            ids.insert(id);
        }
        let known = ["", "a", "b", "c"].map(|id| ids.contains(id));
        assert_eq!(known, [false, false, true, true]);
    }

    #[test]
    fn a_forgotten_id_may_come_again_and_leaves_no_gap() {
        let mut ids = KnownIds::new(2);
        ids.insert("a");
        ids.insert("b");
        ids.remove_all(["a", "never seen"]);
        assert!(!ids.contains("a") && ids.contains("b"));
        ids.insert("a");
        assert!(ids.contains("a") && ids.contains("b"));
    }
}
