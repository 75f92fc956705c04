//! How good a fitted tokenizer is: entries used, error, overlap of the experts, collisions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a fit came to. Errors are per number of a feature row, whose mean variance is about 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// Items tokenised.
    pub items: usize,
    /// M.
    pub codebooks: usize,
    /// D.
    pub entries: usize,
    /// Per codebook, the share of its entries that some item has, in [0, 1].
    pub usage: Vec<f32>,
    /// Per codebook, e to the entropy of its entries' shares: D when all are used alike.
    pub perplexity: Vec<f32>,
    /// Mean squared error of predicting the mean row: what no code at all costs.
    pub baseline_error: f32,
    /// Mean squared error of the rows rebuilt from the nearest entries; divided by the baseline, the share of the rows'
    /// variance that is left.
    pub reconstruction_error: f32,
    /// The same from the assigned codes.
    pub assigned_error: f32,
    /// Mean over items and codebook pairs of |cos(e_r, e_s)|, for the RQ-VAE of what its levels quantise; 0 for OPQ,
    /// whose sub-spaces are at right angles, and for random codes.
    pub pairwise_cosine: f32,
    /// Distinct codes among the nearest entries.
    pub distinct_codes: usize,
    /// Distinct codes after assignment.
    pub assigned_distinct_codes: usize,
    /// Items in the largest group that shares a code, before assignment.
    pub largest_group: usize,
    /// The same after it.
    pub assigned_largest_group: usize,
    /// Items that assignment moved.
    pub moved_items: usize,
    /// Mean number of tokens that an item shares with each of its 10 nearest neighbours by feature row (a sample).
    pub neighbour_shared_tokens: f32,
    /// The same with items at random.
    pub random_shared_tokens: f32,
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} items, {} codebooks of {} entries", self.items, self.codebooks, self.entries)?;
        writeln!(f, "  codebook    used  perplexity")?;
        for (codebook, (usage, perplexity)) in self.usage.iter().zip(&self.perplexity).enumerate() {
            writeln!(f, "  {codebook:>8}  {:>5.1}%  {perplexity:>10.1}", usage * 100.0)?;
        }
        let share = |error: f32| 100.0 * error / self.baseline_error.max(f32::MIN_POSITIVE);
        writeln!(f, "                              nearest    assigned")?;
        writeln!(
            f,
            "  reconstruction error    {:>13.4} {:>11.4}   ({:.1}% and {:.1}% of the rows' variance)",
            self.reconstruction_error,
            self.assigned_error,
            share(self.reconstruction_error),
            share(self.assigned_error)
        )?;
        writeln!(f, "  distinct codes          {:>13} {:>11}", self.distinct_codes, self.assigned_distinct_codes)?;
        writeln!(f, "  largest group           {:>13} {:>11}", self.largest_group, self.assigned_largest_group)?;
        writeln!(f, "  moved items             {:>25}", self.moved_items)?;
        writeln!(f, "  mean |cos| of latents   {:>25.3}", self.pairwise_cosine)?;
        write!(
            f,
            "  tokens shared           {:>25.2} with near neighbours, {:.2} at random",
            self.neighbour_shared_tokens, self.random_shared_tokens
        )
    }
}
