//! What a path may become.

use std::cmp::Ordering;

use crate::domain::Token;

/// A child that a path may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    /// Its parent's place among the live paths.
    pub(super) parent: usize,
    pub(super) token: Token,
    /// ln p(token | h, parent).
    pub(super) log_p: f64,
    /// S of the parent + `log_p`.
    pub(super) score: f64,
}

impl Child {
    /// Best first; ties: by the parents' order, then by token.
    pub(super) fn order(&self, other: &Child) -> Ordering {
        other.score.total_cmp(&self.score).then(self.parent.cmp(&other.parent)).then(self.token.cmp(&other.token))
    }
}
