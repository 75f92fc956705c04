//! The catalogue on a device.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::domain::{CodeShape, CodeTable};

/// Codes, and the holders of every token.
#[derive(Debug)]
pub struct Tables<B: Backend> {
    /// Entries, `[items * M]`.
    pub codes: Tensor<B, 1, Int>,
    /// Items by token, lowest number first, `[items * M]`.
    pub holders: Tensor<B, 1, Int>,
    /// Where the holders of each token begin, and where the last ones end, `[M * D + 1]`.
    pub offsets: Tensor<B, 1, Int>,
    /// M and D.
    pub shape: CodeShape,
    /// Items.
    pub items: usize,
    /// The offsets, here.
    starts: Vec<u32>,
}

impl<B: Backend> Tables<B> {
    /// Puts the codes on the device: 8 bytes for each token of each item.
    pub fn new(codes: &CodeTable, device: &B::Device) -> Self {
        let shape = codes.shape();
        let entries = codes.entries();
        let flat = |at: usize, entry: u16| (at % shape.codebooks) * shape.entries + usize::from(entry);
        let mut starts = vec![0u32; shape.tokens() + 1];
        entries.iter().enumerate().for_each(|(at, &entry)| starts[flat(at, entry) + 1] += 1);
        (0..shape.tokens()).for_each(|token| starts[token + 1] += starts[token]);
        let (mut next, mut holders) = (starts.clone(), vec![0u32; entries.len()]);
        for (at, &entry) in entries.iter().enumerate() {
            let place = &mut next[flat(at, entry)];
            holders[*place as usize] = (at / shape.codebooks) as u32;
            *place += 1;
        }
        Self {
            codes: numbers(entries.iter().map(|&entry| u32::from(entry)), device),
            holders: numbers(holders, device),
            offsets: numbers(starts.iter().copied(), device),
            shape,
            items: codes.items(),
            starts,
        }
    }

    /// How many items hold the token of this flat number.
    pub(super) fn holders_of(&self, token: usize) -> u32 {
        self.starts[token + 1] - self.starts[token]
    }
}

/// Numbers of 32 bits, by their bits, on a device.
pub(super) fn numbers<B: Backend>(numbers: impl IntoIterator<Item = u32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let numbers: Vec<i32> = numbers.into_iter().map(u32::cast_signed).collect();
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), device)
}
