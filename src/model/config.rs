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
    /// Numbers in one token's embedding Z_r,j, shared by input and scorer.
    pub code_width: usize,
    /// Numbers in one item's residual e_i; 0 leaves the residual out.
    pub residual_width: usize,
    /// d: the width of encoder and decoder.
    pub width: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
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
    /// Share of items whose whole residual is dropped from the input while training.
    pub residual_dropout: f64,
    /// Where the learned temperatures tau_r start.
    pub temperature: f64,
}

impl NetworkConfig {
    /// Time-gap buckets: powers of two of seconds, the last one open.
    pub const TIME_GAPS: usize = 32;

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
        at_least("code_width", self.code_width, 1);
        at_least("width", self.width, 1);
        at_least("heads", self.heads, 1);
        at_least("encoder_layers", self.encoder_layers, 1);
        at_least("decoder_layers", self.decoder_layers, 1);
        at_least("feed_forward", self.feed_forward, 1);
        at_least("max_history", self.max_history, 1);
        if self.codes.codebooks > 64 {
            wrong.push(Violation::new("codes.codebooks", format!("{}: expected at most 64", self.codes.codebooks)));
        }
        if self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            wrong.push(Violation::new("heads", format!("{}: expected a divisor of width {}", self.heads, self.width)));
        }
        for (field, value) in [("dropout", self.dropout), ("residual_dropout", self.residual_dropout)] {
            if !(0.0..1.0).contains(&value) {
                wrong.push(Violation::new(field, format!("{value}: expected 0 to below 1")));
            }
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            wrong.push(Violation::new("temperature", format!("{}: expected above 0", self.temperature)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Numbers in an item's row of the item matrix: its M token embeddings, then its residual.
    pub fn item_width(&self) -> usize {
        self.codes.codebooks * self.code_width + self.residual_width
    }

    /// The bucket of a gap of `seconds` between two events: 0 for none, else one more for each doubling.
    pub fn time_gap(seconds: i64) -> usize {
        let doublings = u64::BITS - seconds.max(0).unsigned_abs().leading_zeros();
        (doublings as usize).min(Self::TIME_GAPS - 1)
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
