//! What the kernels do, in plain loops on a CPU: what they are held against.

use burn::backend::Flex;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use super::tables::numbers;
use super::{ABOUT, Kernels, LEAST, LIGHTEST, LIMIT, NONE, OUT, Opened, Paths, Roots, Tables};

/// The numbers of a tensor, by their bits.
pub(super) fn here<B: Backend>(tensor: Tensor<B, 1, Int>) -> Vec<u32> {
    let data = tensor.into_data().convert::<i32>().into_vec::<i32>().unwrap();
    data.into_iter().map(i32::cast_unsigned).collect()
}

fn floats<const D: usize>(tensor: Tensor<Flex, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().unwrap()
}

fn mended(score: f32, broken: &mut u32) -> f32 {
    let sound = score.abs() <= LIMIT;
    *broken += u32::from(!sound);
    if sound { score } else { -LIMIT }
}

/// The catalogue, on this side.
struct Catalogue<'a> {
    tables: &'a Tables<Flex>,
    codes: Vec<u32>,
}

impl<'a> Catalogue<'a> {
    fn new(tables: &'a Tables<Flex>) -> Self {
        Self { tables, codes: here(tables.codes.clone()) }
    }

    /// A path's candidates and their s_t; counts what is broken.
    fn candidates(&self, scores: &[f32], table: &[f32], entries: &[u32], broken: &mut u32) -> Vec<(u32, f32)> {
        let shape = self.tables.shape;
        let mut found = Vec::new();
        for (item, code) in self.codes.chunks_exact(shape.codebooks).enumerate() {
            let held = code.iter().zip(entries).all(|(one, wanted)| *wanted == NONE || one == wanted);
            if held && scores[item] > LEAST {
                let unused = code.iter().zip(entries).enumerate().filter(|(_, (_, wanted))| **wanted == NONE);
                let said: f32 = unused.map(|(r, (entry, _))| table[r * shape.entries + *entry as usize]).sum();
                found.push((item as u32, mended(scores[item] + said, broken)));
            }
        }
        found
    }

    /// Tells of a path.
    fn tell(&self, found: &[(u32, f32)], entries: &[u32], most: usize, broken: u32, told: &mut Vec<u32>) {
        let shape = self.tables.shape;
        let best = found.iter().fold(OUT, |best, (_, score)| best.max(*score));
        let weigh = |score: f32| (score - best).exp().max(LIGHTEST);
        let mut tokens = vec![(0.0f32, 0u32, NONE); shape.tokens()];
        for &(item, score) in found {
            let code = &self.codes[item as usize * shape.codebooks..][..shape.codebooks];
            for (r, &entry) in code.iter().enumerate() {
                let (weight, count, first) = &mut tokens[r * shape.entries + entry as usize];
                (*weight, *count, *first) = (*weight + weigh(score), *count + 1, (*first).min(item));
            }
        }
        let of = |r: usize| &tokens[r * shape.entries..][..shape.entries];
        let surest = |r: usize| of(r).iter().fold(0.0f32, |best, token| best.max(token.0));
        let unused = (0..shape.codebooks).filter(|&r| entries[r] == NONE);
        let surest = unused.reduce(|one, other| if surest(other) > surest(one) { other } else { one });
        let chosen = surest.unwrap_or(0);
        let sum: f32 = found.iter().map(|(_, score)| weigh(*score)).sum();
        told.extend([best.to_bits(), sum.to_bits(), chosen as u32, broken]);
        let mut order: Vec<usize> = (0..shape.entries).collect();
        order.sort_by(|&one, &other| of(chosen)[other].0.total_cmp(&of(chosen)[one].0).then(one.cmp(&other)));
        for at in 0..most {
            let child = order.get(at).filter(|_| surest.is_some()).map(|&entry| (entry as u32, of(chosen)[entry]));
            let (entry, (weight, count, first)) = child.unwrap_or((NONE, (0.0, 0, NONE)));
            told.extend([entry, weight.to_bits(), count, first]);
        }
    }
}

impl Kernels for Flex {
    fn open(roots: Roots<'_, Self>) -> Opened<Self> {
        let Roots { tables, scores, table, eligible, bias, rows_of_bias, shortlists, most } = roots;
        let ([requests, items], shape, device) = (scores.dims(), tables.shape, scores.device());
        let catalogue = Catalogue::new(tables);
        let (mut scores, table, bias) = (floats(scores), floats(table), floats(bias));
        let (eligible, rows_of_bias) = (here(eligible), here(rows_of_bias));
        let shortlists = shortlists.map(here);
        let (words, none) = (items.div_ceil(32), vec![NONE; shape.codebooks]);
        let mut told = Vec::new();
        for request in 0..requests {
            let (row, mut broken) = (&mut scores[request * items..][..items], 0);
            for (item, score) in row.iter_mut().enumerate() {
                *score = mended(*score, &mut broken);
                if rows_of_bias[request] != NONE {
                    *score += bias[rows_of_bias[request] as usize * items + item];
                }
                if eligible[request * words + item / 32] >> (item % 32) & 1 == 0 {
                    *score = OUT;
                }
            }
            if let Some(shortlists) = &shortlists {
                let mut best = row.to_vec();
                best.sort_by(|one, other| other.total_cmp(one));
                let least = best[(shortlists[request * 2 + 1] as usize).min(items) - 1];
                row.iter_mut().filter(|score| **score < least).for_each(|score| *score = OUT);
            }
            let table = &table[request * shape.tokens()..][..shape.tokens()];
            let found = catalogue.candidates(row, table, &none, &mut broken);
            catalogue.tell(&found, &none, most, broken, &mut told);
        }
        let scores = Tensor::from_data(TensorData::new(scores, [requests, items]), &device);
        Opened { scores, told: numbers(told, &device) }
    }

    fn read(paths: Paths<'_, Self>) -> Tensor<Self, 1, Int> {
        let Paths { tables, scores, table, paths, count, told: size, most } = paths;
        let ([_, items], shape, device) = (scores.dims(), tables.shape, scores.device());
        let catalogue = Catalogue::new(tables);
        let (scores, table, paths) = (floats(scores), floats(table), here(paths));
        let (mut told, mut listed) = (Vec::new(), Vec::new());
        assert_eq!(paths.len(), count * (ABOUT + shape.codebooks));
        for path in paths.chunks_exact(ABOUT + shape.codebooks) {
            let (about, entries) = path.split_at(ABOUT);
            let scores = &scores[about[0] as usize * items..][..items];
            let table = &table[about[1] as usize * shape.tokens()..][..shape.tokens()];
            let lead = about[2] as usize;
            assert_eq!(
                entries[lead / shape.entries] as usize,
                lead % shape.entries,
                "the path holds its leading token"
            );
            let mut broken = 0;
            let found = catalogue.candidates(scores, table, entries, &mut broken);
            catalogue.tell(&found, entries, most, broken, &mut told);
            if about[3] != NONE {
                assert_eq!(about[3] as usize, count * super::told::stride(most) + listed.len());
                listed.extend(found.iter().flat_map(|(item, score)| [*item, score.to_bits()]));
            }
        }
        told.append(&mut listed);
        assert_eq!(told.len(), size);
        numbers(told, &device)
    }
}
