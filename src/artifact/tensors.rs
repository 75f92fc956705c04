//! Safetensors: names, shapes and numbers, nothing that executes.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::tensor::{TensorView, serialize};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use super::BundleError;
use crate::domain::breathe_at;

/// One tensor of real numbers, read into memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Outermost dimension first; empty for a single number.
    pub shape: Vec<usize>,
    /// Row after row; as many as the product of the shape.
    pub values: Vec<f32>,
}

/// How much a safetensors file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TensorFacts {
    /// Tensors.
    pub tensors: usize,
    /// Numbers in all of them.
    pub numbers: usize,
}

/// Every tensor of a safetensors file by name. 16-, 32- and 64-bit floats become f32; other types are refused.
///
/// `file` is named in errors. Refuses a malformed header, and numbers that are not finite.
pub fn tensors(file: &str, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, BundleError> {
    let mut found = BTreeMap::new();
    for (name, view) in open(file, bytes)?.iter() {
        let Some(values) = floats(&view) else {
            return Err(BundleError::new(file, format!("tensor {name:?} holds {:?}, expected floats", view.dtype())));
        };
        let values: Vec<f32> = values.collect();
        check_finite(file, name, values.iter().copied())?;
        found.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
    }
    Ok(found)
}

/// A safetensors file with these tensors, as f32.
pub fn pack_tensors(file: &str, tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, BundleError> {
    let refuse = |error: safetensors::SafeTensorError| BundleError::new(file, error.to_string());
    let raw: Vec<Vec<u8>> =
        tensors.values().map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let mut views = Vec::with_capacity(raw.len());
    for ((name, tensor), bytes) in tensors.iter().zip(&raw) {
        views.push((name, TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(refuse)?));
    }
    serialize(views, None).map_err(refuse)
}

/// Checks that a safetensors file is well formed, holds at least one tensor, and that its floats are finite.
pub(super) fn check(file: &str, bytes: &[u8]) -> Result<TensorFacts, BundleError> {
    let mut facts = TensorFacts::default();
    for (name, view) in open(file, bytes)?.iter() {
        if let Some(values) = floats(&view) {
            check_finite(file, name, values)?;
        }
        facts.tensors += 1;
        facts.numbers += view.shape().iter().product::<usize>();
    }
    if facts.tensors == 0 {
        return Err(BundleError::new(file, "holds no tensors"));
    }
    Ok(facts)
}

fn open<'a>(file: &str, bytes: &'a [u8]) -> Result<SafeTensors<'a>, BundleError> {
    SafeTensors::deserialize(bytes).map_err(|error| BundleError::new(file, format!("not a safetensors file: {error}")))
}

fn floats<'a>(view: &'a TensorView<'a>) -> Option<Box<dyn Iterator<Item = f32> + 'a>> {
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F64 => Box::new(bytes.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw) as f32)),
        Dtype::F32 => Box::new(bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw))),
        Dtype::F16 => Box::new(bytes.as_chunks::<2>().0.iter().map(|raw| f16::from_le_bytes(*raw).to_f32())),
        Dtype::BF16 => Box::new(bytes.as_chunks::<2>().0.iter().map(|raw| bf16::from_le_bytes(*raw).to_f32())),
        _ => return None,
    })
}

fn check_finite(file: &str, name: &str, values: impl Iterator<Item = f32>) -> Result<(), BundleError> {
    for (at, value) in values.enumerate() {
        breathe_at(at);
        if !value.is_finite() {
            let reason = format!("tensor {name:?}: number {at} is {value}, expected a finite one");
            return Err(BundleError::new(file, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_read() {
        let packed: BTreeMap<String, Tensor> = [
            ("a".to_owned(), Tensor { shape: vec![2, 3], values: vec![0.0, -1.5, f32::MIN, f32::MAX, 1e-40, 5.0] }),
            ("b".to_owned(), Tensor { shape: vec![], values: vec![7.0] }),
            ("c".to_owned(), Tensor { shape: vec![0, 4], values: vec![] }),
        ]
        .into();
        let bytes = pack_tensors("x", &packed).unwrap();
        assert_eq!(tensors("x", &bytes).unwrap(), packed);
        assert_eq!(check("x", &bytes).unwrap(), TensorFacts { tensors: 3, numbers: 7 });
        let crooked = BTreeMap::from([("a".to_owned(), Tensor { shape: vec![2], values: vec![1.0] })]);
        assert_eq!(pack_tensors("x", &crooked).unwrap_err().file, "x");
    }

    #[test]
    fn other_types_are_widened_or_refused_by_name() {
        let one =
            |dtype, bytes: &[u8]| serialize([("t", TensorView::new(dtype, vec![1], bytes).unwrap())], None).unwrap();
        for (dtype, bytes) in [
            (Dtype::F64, 2.5_f64.to_le_bytes().to_vec()),
            (Dtype::F16, f16::from_f32(2.5).to_le_bytes().to_vec()),
            (Dtype::BF16, bf16::from_f32(2.5).to_le_bytes().to_vec()),
        ] {
            assert_eq!(tensors("x", &one(dtype, &bytes)).unwrap()["t"].values, [2.5]);
        }
        let error = tensors("x", &one(Dtype::U16, &[1, 0])).unwrap_err();
        assert!(error.reason.contains("\"t\"") && error.reason.contains("U16"), "{error}");
        assert!(check("x", &one(Dtype::U16, &[1, 0])).is_ok());
        let error = check("x", &one(Dtype::F16, &f16::INFINITY.to_le_bytes())).unwrap_err();
        assert!(error.reason.contains("number 0 is inf"), "{error}");
    }
}
