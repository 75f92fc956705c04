//! Which entry of a codebook is nearest, and the vectors of entries.

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::tensors::NamedTensor;

/// argmin_j ||e_r - z_{r,j}||^2: `[M, batch]` entries in one list, ties to the first.
///
/// # Shapes
/// - latents: `[M, batch, L]`
/// - codebooks: `[M, D, L]`
pub(super) fn nearest<B: Backend>(latents: Tensor<B, 3>, codebooks: Tensor<B, 3>) -> Vec<u16> {
    let chosen = half_distances(latents, codebooks).argmin(2); // [M, batch, 1]
    chosen.into_data().iter::<i64>().map(|entry| entry as u16).collect()
}

/// (||e - z||^2 - ||e||^2) / 2, which ranks entries as the distance does: `[M, batch, D]`.
pub(super) fn half_distances<B: Backend>(latents: Tensor<B, 3>, codebooks: Tensor<B, 3>) -> Tensor<B, 3> {
    let [count, entries, _] = codebooks.dims();
    let lengths = codebooks.clone().powi_scalar(2).sum_dim(2).mul_scalar(0.5).reshape([count, 1, entries]);
    lengths - latents.matmul(codebooks.swap_dims(1, 2))
}

/// The chosen entries' vectors on the host: `[M, batch, L]`, from codebooks `[M, D, L]` and codes `[M, batch]`.
pub(super) fn chosen_entries(codebooks: &[f32], shape: [usize; 3], codes: &[u16]) -> Vec<f32> {
    let [count, entries, latent] = shape;
    let batch = codes.len() / count;
    let mut out = Vec::with_capacity(codes.len() * latent);
    for (at, &entry) in codes.iter().enumerate() {
        let start = ((at / batch) * entries + usize::from(entry)) * latent;
        out.extend_from_slice(&codebooks[start..start + latent]);
    }
    out
}

/// `[M, items]` to `[items, M]`, for any M above 0.
pub(super) fn by_item(by_codebook: &[u16], codebooks: usize) -> Vec<u16> {
    let items = by_codebook.len() / codebooks;
    (0..items).flat_map(|item| by_codebook.iter().skip(item).step_by(items).copied()).collect()
}

/// `[items, M]` to `[M, items]`.
pub(super) fn by_codebook(by_item: &[u16], codebooks: usize) -> Vec<u16> {
    (0..codebooks).flat_map(|r| by_item.iter().skip(r).step_by(codebooks).copied()).collect()
}

/// A row-major list as `[rows, width]` on a device.
pub(super) fn row_tensor<B: Backend>(rows: &[f32], width: usize, device: &B::Device) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len() / width, width]), device)
}

/// A saved tensor as a parameter.
pub(super) fn parameter<B: Backend, const D: usize>(tensor: &NamedTensor, device: &B::Device) -> Param<Tensor<B, D>> {
    Param::from_data(TensorData::new(tensor.data.clone(), tensor.shape.clone()), device)
}
