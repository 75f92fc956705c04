//! The fit of any quantiser to feature rows: the tokenizer, every item's code, and how good they are.

use burn::tensor::backend::AutodiffBackend;

use super::assign::assign;
use super::{Diagnostics, FeatureTable, Quantiser, Tokenizer, TokenizerError};
use super::{mpq, opq, random, rq};
use crate::domain::CodeTable;

/// The parts of the loss, averaged over an epoch; squared lengths are per item.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossParts {
    /// ||x - x'||^2, divided by the row's width.
    pub reconstruction: f32,
    /// sum_r ||e_r - z_r||^2, the codebook loss and the commitment loss alike.
    pub quantisation: f32,
    /// MPQ's orthogonality loss, before its weight; 0 for the others.
    pub orthogonality: f32,
}

/// Where a fit stands after an epoch; an epoch of OPQ is a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitProgress {
    /// From 1; the passes without quantisation come first.
    pub epoch: usize,
    /// In all.
    pub epochs: usize,
    /// Whether this pass quantised.
    pub quantised: bool,
    /// The loss.
    pub loss: LossParts,
    /// Mean perplexity of the codebooks; 0 before there are any.
    pub perplexity: f32,
    /// Entries that were dead and placed anew.
    pub placed_anew: usize,
}

/// What a fit gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// Tokenises later items.
    pub tokenizer: Tokenizer,
    /// The items' codes after collision-aware assignment.
    pub codes: CodeTable,
    /// How good they are.
    pub diagnostics: Diagnostics,
}

/// Fits the quantiser to the rows and gives every item its code. `progress` is told of every epoch.
///
/// Backend and device are those of the quantisers that learn by gradient; OPQ and random codes come from the host. The
/// outcome depends on the rows, the settings and the backend, not on the number of threads.
///
/// # Errors
/// Settings out of range, no items, a loss that is not finite, or more items than codes.
pub fn fit<B: AutodiffBackend>(
    features: &FeatureTable,
    quantiser: &Quantiser,
    device: &B::Device,
    progress: &mut dyn FnMut(&FitProgress),
) -> Result<Fitted, TokenizerError> {
    quantiser.validate().map_err(TokenizerError::Settings)?;
    if features.rows.is_empty() {
        return Err(TokenizerError::NoFeatures("there are no items".to_owned()));
    }
    let tensors = match quantiser {
        Quantiser::Mpq(config) => mpq::fit::fit::<B>(features, config, device, progress)?,
        Quantiser::Rq(config) => rq::fit::fit::<B>(features, config, device, progress)?,
        Quantiser::Opq(config) => opq::fit::fit(features, config, progress),
        Quantiser::Random { .. } => random::fit(features),
    };
    let tokenizer = Tokenizer { quantiser: quantiser.clone(), features: features.model.clone(), tensors };
    let nearest = tokenizer.tokenize(features)?;
    let assignment = assign(&tokenizer, features, &nearest, quantiser.max_collisions())?;
    let diagnostics = Diagnostics::measure(&tokenizer, features, &nearest, &assignment)?;
    Ok(Fitted { tokenizer, codes: assignment.codes, diagnostics })
}
