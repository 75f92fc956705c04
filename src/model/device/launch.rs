//! Runs the kernels on any of burn's GPU backends.

use burn::tensor::{DType, Int, Tensor, TensorCreationOptions};
use burn_cubecl::element::BoolElement;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{CubeBackend, CubeRuntime, FloatElement, IntElement};
use cubecl::prelude::{ArrayArg, CubeCount, CubeDim};

use super::kernels::{
    BLOCK, DIGITS, TEAM, count_digits, find_digit, read_items, read_paths, shorten, tell_roots, weigh_tokens,
};
use super::told::stride;
use super::{Kernels, Opened, Paths, Roots};
use crate::domain::CodeShape;

/// Words of shared memory that hold the codes of the candidates looked at together.
const STAGE: usize = 4096;

/// Scores whose digits one cube counts.
const COUNTED: usize = 1 << 14;

/// Threads that have an entry of a codebook each.
fn threads(shape: CodeShape) -> u32 {
    shape.entries.next_power_of_two().max(64) as u32
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Kernels for CubeBackend<R, F, I, T> {
    fn open(roots: Roots<'_, Self>) -> Opened<Self> {
        let Roots { tables, scores: raw, table, eligible, bias, rows_of_bias, shortlists, most } = roots;
        let (device, shape, items) = (raw.device(), tables.shape, tables.items);
        let (codebooks, entries, tokens) = (shape.codebooks as u32, shape.entries as u32, shape.tokens());
        let requests = raw.dims()[0];
        let client = raw.clone().into_primitive().tensor().client;
        let of_floats = TensorCreationOptions::new(device.clone()).with_dtype(DType::F32);
        let floats = |count: usize| Tensor::<Self, 1>::empty([count], of_floats.clone());
        let numbers = |count: usize| Tensor::<Self, 1, Int>::empty([count], &device);

        let blocks = items.div_ceil(BLOCK as usize);
        let (scores, found, broken) = (floats(requests * items), floats(requests * items), floats(requests * blocks));
        read_items::launch::<R>(
            &client,
            CubeCount::Static(blocks as u32, requests as u32, 1),
            CubeDim::new_1d(BLOCK),
            of(raw),
            of(table),
            of_numbers(&tables.codes),
            of_numbers(&eligible),
            of(bias),
            of_numbers(&rows_of_bias),
            of(scores.clone()),
            of(found.clone()),
            of(broken.clone()),
            items as u32,
            codebooks,
            entries,
        );
        if let Some(shortlists) = shortlists {
            let least = least_wanted(&scores, shortlists, items);
            shorten::launch::<R>(
                &client,
                CubeCount::Static(blocks as u32, requests as u32, 1),
                CubeDim::new_1d(BLOCK),
                of_numbers(&least),
                of(scores.clone()),
                of(found.clone()),
                items as u32,
            );
        }
        let best = found.clone().reshape([requests, items]).max_dim(1);
        let sums = floats(requests * tokens);
        let (counts, firsts) = (numbers(requests * tokens), numbers(requests * tokens));
        weigh_tokens::launch::<R>(
            &client,
            CubeCount::Static(tokens.div_ceil((BLOCK / TEAM) as usize) as u32, requests as u32, 1),
            CubeDim::new_1d(BLOCK),
            of(found),
            of(best.clone()),
            of_numbers(&tables.offsets),
            of_numbers(&tables.holders),
            of(sums.clone()),
            of_numbers(&counts),
            of_numbers(&firsts),
            items as u32,
            tokens as u32,
        );
        let told = numbers(requests * stride(most));
        tell_roots::launch::<R>(
            &client,
            CubeCount::Static(requests as u32, 1, 1),
            CubeDim::new_1d(threads(shape)),
            of(sums),
            of_numbers(&counts),
            of_numbers(&firsts),
            of(best),
            of(broken),
            of_numbers(&told),
            blocks as u32,
            most as u32,
            codebooks,
            entries,
            threads(shape),
        );
        Opened { scores: scores.reshape([requests, items]), told }
    }

    fn read(paths: Paths<'_, Self>) -> Tensor<Self, 1, Int> {
        let Paths { tables, scores, table, paths, count, told, most } = paths;
        let shape = tables.shape;
        let client = scores.clone().into_primitive().tensor().client;
        let told = Tensor::<Self, 1, Int>::empty([told], &scores.device());
        let staged = (STAGE / shape.codebooks).min(threads(shape) as usize);
        read_paths::launch::<R>(
            &client,
            CubeCount::Static(count as u32, 1, 1),
            CubeDim::new_1d(threads(shape)),
            of(scores),
            of(table),
            of_numbers(&tables.codes),
            of_numbers(&tables.offsets),
            of_numbers(&tables.holders),
            of_numbers(&paths),
            of_numbers(&told),
            tables.items as u32,
            most as u32,
            shape.codebooks as u32,
            shape.entries as u32,
            threads(shape),
            staged as u32,
        );
        told
    }
}

/// What the least score of each request that is wanted is ordered by, found digit by digit from the highest, in the place of the
/// zeros of [`Roots::shortlists`].
fn least_wanted<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement>(
    scores: &Tensor<CubeBackend<R, F, I, T>, 1>,
    found: Tensor<CubeBackend<R, F, I, T>, 1, Int>,
    items: usize,
) -> Tensor<CubeBackend<R, F, I, T>, 1, Int> {
    let requests = found.dims()[0] / 2;
    let client = scores.clone().into_primitive().tensor().client;
    let blocks = items.div_ceil(COUNTED);
    let counts =
        Tensor::<CubeBackend<R, F, I, T>, 1, Int>::empty([requests * blocks * DIGITS as usize], &scores.device());
    for shift in (0..u32::BITS).step_by(DIGITS.ilog2() as usize).rev() {
        count_digits::launch::<R>(
            &client,
            CubeCount::Static(blocks as u32, requests as u32, 1),
            CubeDim::new_1d(BLOCK),
            of(scores.clone()),
            of_numbers(&found),
            of_numbers(&counts),
            items as u32,
            shift,
            COUNTED as u32,
        );
        find_digit::launch::<R>(
            &client,
            CubeCount::Static(requests as u32, 1, 1),
            CubeDim::new_1d(DIGITS),
            of_numbers(&counts),
            of_numbers(&found),
            blocks as u32,
            shift,
        );
    }
    found
}

/// A tensor of fp32, row after row.
fn of<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement, const D: usize>(
    tensor: Tensor<CubeBackend<R, F, I, T>, D>,
) -> ArrayArg<R> {
    into_contiguous(tensor.cast(DType::F32).into_primitive().tensor()).into_array_arg()
}

/// A tensor of numbers of 32 bits.
fn of_numbers<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement>(
    tensor: &Tensor<CubeBackend<R, F, I, T>, 1, Int>,
) -> ArrayArg<R> {
    tensor.clone().into_primitive().into_array_arg()
}
