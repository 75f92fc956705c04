//! Named tensors and their safetensors file.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use super::TokenizerError;
use crate::domain::breathe;

/// The key of the settings in the file's metadata.
const SETTINGS: &str = "tokenizer";

/// A tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NamedTensor {
    /// Unique within a file.
    pub name: String,
    /// Lengths, outermost first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}

impl NamedTensor {
    /// A tensor of one dimension.
    pub fn vector(name: String, data: Vec<f32>) -> Self {
        Self { name, shape: vec![data.len()], data }
    }
}

/// The bytes of a safetensors file with these tensors and settings.
pub(super) fn to_bytes(tensors: &[NamedTensor], settings: String) -> Result<Vec<u8>, TokenizerError> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|tensor| tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let mut views = Vec::with_capacity(tensors.len());
    for (tensor, bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)
            .map_err(|cause| TokenizerError::Tensor { name: tensor.name.clone(), reason: cause.to_string() })?;
        views.push((tensor.name.as_str(), view));
    }
    serialize(views, Some(HashMap::from([(SETTINGS.to_owned(), settings)])))
        .map_err(|cause| TokenizerError::Format(cause.to_string()))
}

/// An opened file, whose tensors are checked as they are taken.
pub(super) struct TensorFile<'a> {
    tensors: SafeTensors<'a>,
    settings: String,
}

impl<'a> TensorFile<'a> {
    /// Reads the header.
    pub fn open(bytes: &'a [u8]) -> Result<Self, TokenizerError> {
        let format = |reason: String| TokenizerError::Format(reason);
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|cause| format(cause.to_string()))?;
        let settings = header.metadata().as_ref().and_then(|metadata| metadata.get(SETTINGS)).cloned();
        let settings = settings.ok_or_else(|| format(format!("no {SETTINGS:?} in the metadata of the header")))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|cause| format(cause.to_string()))?;
        Ok(Self { tensors, settings })
    }

    /// The settings as written.
    pub fn settings(&self) -> &str {
        &self.settings
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// One tensor of 32-bit floats, of this shape, every number finite.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<NamedTensor, TokenizerError> {
        let wrong = |reason: String| TokenizerError::Tensor { name: name.to_owned(), reason };
        let view = self.tensors.tensor(name).map_err(|_| wrong("it is missing".to_owned()))?;
        if view.dtype() != Dtype::F32 {
            return Err(wrong(format!("its type is {:?}: expected F32", view.dtype())));
        }
        if view.shape() != shape {
            return Err(wrong(format!("its shape is {:?}: expected {shape:?}", view.shape())));
        }
        breathe();
        let (numbers, _) = view.data().as_chunks::<4>();
        let data: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if let Some(at) = data.iter().position(|value| !value.is_finite()) {
            return Err(wrong(format!("number {at} is {}: expected a finite one", data[at])));
        }
        Ok(NamedTensor { name: name.to_owned(), shape: shape.to_vec(), data })
    }
}
