//! What the device tells, made out; and kernels against plain loops, where there is a GPU backend to run them on.

use super::told::{make_out, stride};
use super::*;
use crate::decode::{Advance, Ask, Depth, Step};
use crate::domain::CodeShape;
use crate::model::ScorerError;

fn ask(listed: Option<usize>) -> Ask {
    Ask { path: Advance { request: 0, extends: None }, listed }
}

fn made_out(
    told: &[u32],
    asks: &[Ask],
    most: usize,
    depth: Depth,
    divergences: &[f32],
    catalogue: (usize, CodeShape),
) -> Result<Step, ScorerError> {
    let mut step = Step::default();
    make_out(&mut step, told, asks, most, depth, divergences, catalogue).map(|()| step)
}

#[test]
fn what_is_told_is_made_out_path_by_path() {
    let depth = Depth { children: 2, divergences: true };
    let half = 0.5f32.to_bits();
    let mut told = vec![3.0f32.to_bits(), 2.0f32.to_bits(), 1, 7];
    told.extend([4, 1.5f32.to_bits(), 3, 10, 2, half, 1, 12, 9, half, 1, 13]);
    // Two tokens of the second path weigh nothing: no candidate holds them.
    told.extend([1.0f32.to_bits(), 1.0f32.to_bits(), 0, 0]);
    told.extend([5, 1.0f32.to_bits(), 1, 20, 0, 0, 0, NONE, 1, 0, 0, NONE]);
    told.extend([20, half]);
    let asks = [ask(None), ask(Some(1))];
    let catalogue = (30, CodeShape { codebooks: 2, entries: 16 });
    let step = made_out(&told, &asks, 3, depth, &[0.25, 0.125], catalogue).unwrap();
    let about = |at: usize| {
        let told = &step.paths[at];
        (told.best, told.sum, told.codebook, told.non_finite, told.divergence)
    };
    assert_eq!((about(0), about(1)), ((3.0, 2.0, 1, 7, 0.25), (1.0, 1.0, 0, 0, 0.125)));
    let children = |at: usize| step.children[step.paths[at].children.clone()].iter();
    let first: Vec<_> = children(0).map(|heavy| (heavy.entry, heavy.weight, heavy.held, heavy.first)).collect();
    assert_eq!(first, [(4, 1.5, 3, 10), (2, 0.5, 1, 12)]);
    assert_eq!(children(1).map(|heavy| heavy.entry).collect::<Vec<_>>(), [5]);
    assert_eq!((step.paths[0].listed.len(), &step.listed[step.paths[1].listed.clone()]), (0, &[(20, 0.5)][..]));
    let short = made_out(&told[..told.len() - 1], &asks, 3, depth, &[], catalogue);
    assert!(matches!(short, Err(ScorerError::Device(reason)) if reason == "33 numbers, expected 34"));
    assert_eq!(stride(3), 16);
    // A device that computes nonsense is told so, and indexes nothing.
    for (at, number, said) in [
        (2, 2, "it tells of the codebook 2, expected one below 2"),
        (4, 16, "it tells of the entry 16, expected one below 16"),
        (7, 30, "it tells of item 30, expected one below 30"),
        (32, NONE, "it tells of item 4294967295, expected one below 30"),
    ] {
        let mut told = told.clone();
        told[at] = number;
        let refused = made_out(&told, &asks, 3, depth, &[], catalogue);
        assert!(matches!(&refused, Err(ScorerError::Device(reason)) if reason == said), "{refused:?}");
    }
}

/// Kernels are run where a GPU backend is built in; the GPU may be one that the processor plays.
#[cfg(feature = "gpu")]
mod on_gpu {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::super::plain::here;
    use super::super::tables::numbers;
    use super::*;
    use crate::domain::CodeTable;

    #[cfg(feature = "cuda")]
    type Gpu = burn::backend::Cuda;
    #[cfg(not(feature = "cuda"))]
    type Gpu = burn::backend::Vulkan;

    fn hash(seed: usize) -> u64 {
        let z = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z ^ (z >> 31)
    }

    /// Between -1 and 1.
    fn noise(seed: usize) -> f32 {
        (hash(seed) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn table<B: Backend>(rows: usize, values: &[f32], device: &B::Device) -> Tensor<B, 2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [rows, values.len() / rows]), device)
    }

    /// Some tokens are held by many items, as they are where codes were learnt.
    fn codes(shape: CodeShape, items: usize) -> CodeTable {
        let entry = |at| (noise(at).powi(2) * shape.entries as f32) as u16 % shape.entries as u16;
        CodeTable::new(shape, (0..items * shape.codebooks).map(entry).collect()).unwrap()
    }

    /// Numbers that a backend is asked with.
    struct Case {
        codes: CodeTable,
        requests: usize,
        scores: Vec<f32>,
        table: Vec<f32>,
        eligible: Vec<u32>,
        bias: Vec<f32>,
        rows_of_bias: Vec<u32>,
        shortlists: Option<Vec<u32>>,
        most: usize,
    }

    impl Case {
        fn new(shape: CodeShape, items: usize, requests: usize) -> Self {
            let mut scores: Vec<f32> = (0..requests * items).map(|at| 3.0 * noise(at + 1_000_000)).collect();
            (scores[5], scores[items - 1], scores[7]) = (f32::NAN, f32::INFINITY, 2e9);
            Self {
                codes: codes(shape, items),
                requests,
                scores,
                table: (0..requests * shape.tokens()).map(|at| noise(at + 5_000_000)).collect(),
                eligible: (0..requests * items.div_ceil(32)).map(|at| (hash(at) | hash(at + 77)) as u32).collect(),
                bias: (0..items).map(|at| 0.5 * noise(at + 300)).collect(),
                rows_of_bias: (0..requests).map(|at| if at % 2 == 1 { 0 } else { NONE }).collect(),
                shortlists: None,
                most: shape.entries.next_power_of_two().min(32),
            }
        }

        fn open<B: Kernels>(&self, tables: &Tables<B>, device: &B::Device) -> Opened<B> {
            let count = self.bias.len();
            B::open(Roots {
                tables,
                scores: table(self.requests, &self.scores, device),
                table: table(self.requests, &self.table, device),
                eligible: numbers(self.eligible.iter().copied(), device),
                bias: Tensor::from_data(TensorData::new(self.bias.clone(), [count]), device),
                rows_of_bias: numbers(self.rows_of_bias.iter().copied(), device),
                shortlists: self.shortlists.as_ref().map(|counts| numbers(counts.iter().copied(), device)),
                most: self.most,
            })
        }
    }

    /// The same but for rounding; tokens that weigh alike may have changed places. Answers the child that each path goes on
    /// by: codebook, entry, and how many hold it.
    fn assert_same(found: &[u32], expected: &[u32], paths: usize, most: usize) -> Vec<(usize, u32, u32)> {
        let near = |one: u32, other: u32, about: &str| {
            let (one, other) = (f32::from_bits(one), f32::from_bits(other));
            assert!((one - other).abs() <= 1e-4 * other.abs().max(1e-4), "{about}: {one} for {other}");
        };
        assert_eq!(found.len(), expected.len());
        let mut next = Vec::new();
        for (one, other) in found.chunks(stride(most)).zip(expected.chunks(stride(most))).take(paths) {
            near(one[0], other[0], "the best score");
            near(one[1], other[1], "the sum of weights");
            assert_eq!(one[2..HEAD], other[2..HEAD], "codebook, and scores that are no numbers");
            for (one, other) in one[HEAD..].chunks(CHILD).zip(other[HEAD..].chunks(CHILD)) {
                near(one[1], other[1], "a token's weight");
                if one[0] == other[0] && f32::from_bits(other[1]) > 0.0 {
                    assert_eq!(one[2..], other[2..], "holders, and the first of them");
                }
            }
            next.push((other[2] as usize, other[HEAD], other[HEAD + 2]));
        }
        let listed = |told: &[u32]| told[paths * stride(most)..].to_vec();
        for (one, other) in listed(found).chunks(2).zip(listed(expected).chunks(2)) {
            assert_eq!(one[0], other[0], "a candidate's number");
            near(one[1], other[1], "a candidate's score");
        }
        next
    }

    fn hold_equal(case: &Case) {
        let (shape, requests) = (case.codes.shape(), case.requests);
        let (here_device, there) = (Default::default(), Default::default());
        let plain_tables = Tables::<Flex>::new(&case.codes, &here_device);
        let tables = Tables::<Gpu>::new(&case.codes, &there);
        let expected = case.open::<Flex>(&plain_tables, &here_device);
        let found = case.open::<Gpu>(&tables, &there);
        let mut next = assert_same(&here(found.told), &here(expected.told), requests, case.most);
        let mut entries = vec![vec![NONE; shape.codebooks]; requests];
        for depth in 0..shape.codebooks.min(4) {
            let mut paths = Vec::new();
            let mut told = requests * stride(case.most);
            for (request, (entries, (codebook, entry, held))) in entries.iter_mut().zip(next).enumerate() {
                entries[codebook] = entry;
                let lead = codebook * shape.entries + entry as usize;
                let listed = if request % 2 == depth % 2 { told as u32 } else { NONE };
                told += if listed == NONE { 0 } else { 2 * held as usize };
                paths.extend([request as u32, request as u32, lead as u32, listed]);
                paths.extend_from_slice(entries);
            }
            let rows: Vec<f32> =
                (0..requests * shape.tokens()).map(|at| 2.0 * noise(at + 9_000_000 * (depth + 1))).collect();
            let read = |most| (requests, told, most);
            let (count, told, most) = read(case.most);
            let there_told = Gpu::read(Paths {
                tables: &tables,
                scores: found.scores.clone(),
                table: table(requests, &rows, &there),
                paths: numbers(paths.iter().copied(), &there),
                count,
                told,
                most,
            });
            let here_told = Flex::read(Paths {
                tables: &plain_tables,
                scores: expected.scores.clone(),
                table: table(requests, &rows, &here_device),
                paths: numbers(paths.iter().copied(), &here_device),
                count,
                told,
                most,
            });
            next = assert_same(&here(there_told), &here(here_told), requests, most);
        }
    }

    #[test]
    fn kernels_tell_what_plain_loops_tell() {
        for (codebooks, entries, items, requests) in [
            (4, 5, 300, 3),
            (8, 256, 12_101, 3),
            (8, 256, 255, 1),
            (32, 64, 3_000, 2),
            (3, 1_000, 20_000, 2),
            (1, 16, 500, 2),
        ] {
            let mut case = Case::new(CodeShape { codebooks, entries }, items, requests);
            hold_equal(&case);
            // The last request has fewer candidates than that.
            let count = |request: usize| if request + 1 < requests || request == 0 { items / 3 } else { items };
            case.shortlists = Some((0..requests).flat_map(|request| [0, count(request) as u32]).collect());
            hold_equal(&case);
        }
    }
}
