//! Residual quantisation: r_0 = z, c_l = argmin_j ||r_l - e_{l,j}||^2, r_{l+1} = r_l - e_{l,c_l}.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::tokenizer::nearest::nearest;

/// What every level chose, and what it chose it for.
pub(in crate::tokenizer) struct Residuals {
    /// c: `[L, batch]`.
    pub codes: Vec<u16>,
    /// r: `[L, batch, latent]`.
    pub residuals: Vec<f32>,
}

impl Residuals {
    /// Quantises latents `[batch, latent]`, level after level, by codebooks `[L, D, latent]` on the host.
    pub fn of<B: Backend>(latents: &[f32], codebooks: &[f32], shape: [usize; 3], device: &B::Device) -> Self {
        let [_, entries, latent] = shape;
        let batch = latents.len() / latent;
        let mut found = Self { codes: Vec::new(), residuals: Vec::new() };
        let mut residual = latents.to_vec();
        for level in codebooks.chunks_exact(entries * latent) {
            let points = Tensor::<B, 3>::from_data(TensorData::new(residual.clone(), [1, batch, latent]), device);
            let centres = Tensor::<B, 3>::from_data(TensorData::new(level.to_vec(), [1, entries, latent]), device);
            let codes = nearest(points, centres); // [1, batch]
            found.residuals.extend_from_slice(&residual);
            subtract(&mut residual, level, &codes, latent);
            found.codes.extend(codes);
        }
        found
    }
}

/// Takes each row's entry of one level (`[D, latent]`) off what is left (`[batch, latent]`).
pub(in crate::tokenizer) fn subtract(residual: &mut [f32], level: &[f32], codes: &[u16], latent: usize) {
    for (residual, &code) in residual.chunks_exact_mut(latent).zip(codes) {
        let entry = &level[usize::from(code) * latent..][..latent];
        residual.iter_mut().zip(entry).for_each(|(left, value)| *left -= value);
    }
}
