//! The network's sizes.

use serde::{Deserialize, Serialize};

use crate::domain::{CodeShape, Violation};

/// The sizes of a [`Network`](super::Network). Stored in the manifest: weights fit only the sizes they were made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Rows of the residual table: items of the catalogue.
    pub items: usize,
    /// Classes of the category head.
    pub categories: usize,
    /// M and D.
    pub codes: CodeShape,
    /// Whether an item's vector holds its tokens; without them the network is a sequence model over items alone.
    pub reads_codes: bool,
    /// Whether an item's residual has a part of its own, learnt for that item alone.
    pub own_residuals: bool,
    /// Numbers in a feature row that the residual is partly made of; 0 leaves features out.
    pub feature_width: usize,
    /// d: the width of items, tokens, encoder and decoder.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Numbers of a query, key or value in one head; none for `width / heads`, which then must be whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_width: Option<usize>,
    /// Encoder blocks.
    pub encoder_layers: usize,
    /// Decoder blocks.
    pub decoder_layers: usize,
    /// Inner width of the feed-forward layers.
    pub feed_forward: usize,
    /// Longest history that is read; older events are dropped.
    pub max_history: usize,
    /// Dropout of activations while training, 0 to below 1.
    pub dropout: f64,
}

impl NetworkConfig {
    /// Time-gap buckets: powers of two of seconds, the last one open.
    pub const TIME_GAPS: usize = 32;
    /// The widest head.
    pub const WIDEST_HEAD: usize = 1024;

    /// Every setting that no network can have.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut at_least = |field: &str, value: usize, least: usize| {
            if value < least {
                wrong.push(Violation::new(field, format!("{value}: expected at least {least}")));
            }
        };
        at_least("items", self.items, 1);
        at_least("categories", self.categories, 1);
        at_least("codes.codebooks", self.codes.codebooks, 1);
        at_least("codes.entries", self.codes.entries, 2);
        at_least("width", self.width, 1);
        at_least("heads", self.heads, 1);
        at_least("encoder_layers", self.encoder_layers, 1);
        at_least("decoder_layers", self.decoder_layers, 1);
        at_least("feed_forward", self.feed_forward, 1);
        at_least("max_history", self.max_history, 1);
        if self.codes.codebooks > 64 {
            wrong.push(Violation::new("codes.codebooks", format!("{}: expected at most 64", self.codes.codebooks)));
        }
        match self.head_width {
            None if self.heads == 0 || !self.width.is_multiple_of(self.heads) => wrong
                .push(Violation::new("heads", format!("{}: expected a divisor of width {}", self.heads, self.width))),
            Some(width) if !(1..=Self::WIDEST_HEAD).contains(&width) => {
                let expected = format!("{width}: expected 1 to {}", Self::WIDEST_HEAD);
                wrong.push(Violation::new("head_width", expected));
            }
            _ => {}
        }
        if !(0.0..1.0).contains(&self.dropout) {
            wrong.push(Violation::new("dropout", format!("{}: expected 0 to below 1", self.dropout)));
        }
        if !self.reads_codes && !self.own_residuals && self.feature_width == 0 {
            wrong.push(Violation::new("own_residuals", "false: expected an item to be codes, features or a residual"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Numbers of a query, key or value in one head.
    pub fn head_width(&self) -> usize {
        self.head_width.unwrap_or(self.width / self.heads.max(1))
    }

    /// Numbers of a query, key or value in all heads.
    pub fn attention_width(&self) -> usize {
        self.heads.saturating_mul(self.head_width())
    }

    /// The bucket of a gap of `seconds` between two events: 0 for none, else one more for each doubling.
    pub fn time_gap(seconds: i64) -> usize {
        let doublings = u64::BITS - seconds.max(0).unsigned_abs().leading_zeros();
        (doublings as usize).min(Self::TIME_GAPS - 1)
    }
}

#[cfg(test)]
impl NetworkConfig {
    /// The least network that has all its parts, for tests to name what they change.
    pub(crate) fn tiny() -> Self {
        Self {
            items: 40,
            categories: 2,
            codes: CodeShape { codebooks: 3, entries: 4 },
            reads_codes: true,
            own_residuals: true,
            feature_width: 0,
            width: 8,
            heads: 2,
            head_width: None,
            encoder_layers: 1,
            decoder_layers: 1,
            feed_forward: 8,
            max_history: 6,
            dropout: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_gaps_double_and_stay_inside_the_table() {
        assert_eq!(NetworkConfig::time_gap(-5), 0);
        assert_eq!(NetworkConfig::time_gap(0), 0);
        assert_eq!(NetworkConfig::time_gap(1), 1);
        assert_eq!(NetworkConfig::time_gap(86_400), 17);
        assert_eq!(NetworkConfig::time_gap(i64::MAX), NetworkConfig::TIME_GAPS - 1);
    }
}
