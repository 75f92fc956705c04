//! A network made of tables, and small catalogues for it.

use std::convert::Infallible;
use std::ops::Range;

use crate::catalog::{Candidates, CatalogItem, Index};
use crate::decode::{
    Advance, DecodeJob, DecodeSettings, Outcome, PathModel, PathState, Placement, TokenVectors, decode,
};
use crate::domain::{CodeShape, CodeTable, EventKind, Filter, History, HistoryEntry, Item, Token};

/// What a user likes: s(i) is the sum of its tokens' scores and of <residual, the item's row>.
pub struct ItemQuery {
    pub token_scores: Vec<f32>,
    pub residual: Vec<f32>,
}

/// What is read after a path: an item's score gains its tokens' refinements.
pub struct TableState {
    pub token_refinements: Vec<f32>,
    pub beliefs: Vec<f32>,
    /// Over the last three events, whatever the history.
    pub attention: Vec<f32>,
}

/// The state after a path: from the history's key and the tokens so far.
pub type Reader = Box<dyn Fn(u64, &[Token]) -> TableState>;

/// Answers from tables; every number is a function of its seed, the history and the tokens of the path, in order.
pub struct Fake {
    pub shape: CodeShape,
    codes: CodeTable,
    /// Every token is a direction of its own, so that any table of refinements is a query.
    pub tokens: Vec<f32>,
    pub categories: usize,
    pub width: usize,
    pub rows: Vec<f32>,
    /// From a history's key.
    pub query: Box<dyn Fn(u64) -> ItemQuery>,
    pub read: Reader,
    keys: Vec<u64>,
    keeps_attention: bool,
    paths: Vec<(usize, Vec<Token>)>,
    /// Calls of `advance`, and the rows of all of them.
    pub advances: usize,
    pub rows_read: usize,
}

impl Fake {
    /// Random scores, and random refinements of this size (zero: none).
    pub fn random(seed: u64, index: &Index, refinement: f32) -> Self {
        let (shape, items, width, categories) = (index.codes().shape(), index.len(), 3, 4);
        let residual = move |at: usize| 0.5 * noise(&[seed, 1, at as u64]);
        let query = move |key: u64| ItemQuery {
            token_scores: (0..shape.tokens()).map(|at| 1.5 * noise(&[seed, 2, key, at as u64])).collect(),
            residual: (0..width).map(|at| noise(&[seed, 3, key, at as u64])).collect(),
        };
        let read = move |key: u64, tokens: &[Token]| {
            let path =
                tokens.iter().fold(hash(&[seed, 4, key]), |path, token| hash(&[path, shape.flat(*token) as u64]));
            let raw: Vec<f32> = (0..categories).map(|at| noise(&[path, 6, at as u64]).exp()).collect();
            let sum: f32 = raw.iter().sum();
            TableState {
                token_refinements: (0..shape.tokens()).map(|at| refinement * noise(&[path, 5, at as u64])).collect(),
                beliefs: raw.iter().map(|value| value / sum).collect(),
                attention: vec![0.2, 0.1 * tokens.len() as f32, 0.8 - 0.1 * tokens.len() as f32],
            }
        };
        Self::of(index, categories, width, (0..items * width).map(residual).collect(), Box::new(query), Box::new(read))
    }

    pub fn of(
        index: &Index,
        categories: usize,
        width: usize,
        rows: Vec<f32>,
        query: Box<dyn Fn(u64) -> ItemQuery>,
        read: Reader,
    ) -> Self {
        let codes = index.codes().clone();
        let shape = codes.shape();
        let mut tokens = vec![0.0; shape.tokens() * shape.tokens()];
        tokens.iter_mut().step_by(shape.tokens() + 1).for_each(|place| *place = 1.0);
        let (keys, paths, keeps_attention) = (vec![], vec![], false);
        let (advances, rows_read) = (0, 0);
        Self {
            shape,
            codes,
            tokens,
            categories,
            width,
            rows,
            query,
            read,
            keys,
            keeps_attention,
            paths,
            advances,
            rows_read,
        }
    }
}

impl PathModel for Fake {
    type Error = Infallible;

    fn shape(&self) -> CodeShape {
        self.shape
    }

    fn categories(&self) -> usize {
        self.categories
    }

    fn token_vectors(&self) -> TokenVectors<'_> {
        TokenVectors { rows: &self.tokens, width: self.shape.tokens(), sums: None }
    }

    fn keep_attention(&mut self, keep: bool) {
        self.keeps_attention = keep;
    }

    fn encode(&mut self, histories: &[&History]) -> Result<(), Infallible> {
        self.keys = histories.iter().map(|history| key(history)).collect();
        self.paths.clear();
        Ok(())
    }

    fn score_items(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<(), Infallible> {
        for (&key, scores) in self.keys[requests].iter().zip(scores.chunks_exact_mut(self.codes.items())) {
            let query = (self.query)(key);
            for (item, score) in scores.iter_mut().enumerate() {
                let tokens = self.codes.code(item as u32).iter().enumerate();
                let tokens = tokens.map(|(r, &entry)| query.token_scores[r * self.shape.entries + usize::from(entry)]);
                let row = &self.rows[item * self.width..(item + 1) * self.width];
                *score = tokens.sum::<f32>() + row.iter().zip(&query.residual).map(|(e, u)| e * u).sum::<f32>();
            }
        }
        Ok(())
    }

    fn advance(&mut self, rows: &[Advance], _: bool) -> Result<Vec<PathState>, Infallible> {
        self.advances += 1;
        self.rows_read += rows.len();
        self.paths = rows
            .iter()
            .map(|row| match row.extends {
                None => (row.request, vec![]),
                Some((parent, token)) => {
                    let (request, mut tokens) = self.paths[parent].clone();
                    assert_eq!(request, row.request, "a path stays with its request");
                    assert!(tokens.iter().all(|other| other.codebook != token.codebook), "a codebook is used once");
                    tokens.push(token);
                    (request, tokens)
                }
            })
            .collect();
        let states = self.paths.iter().map(|(request, tokens)| (self.read)(self.keys[*request], tokens));
        let told = |state: TableState| PathState {
            refinement: state.token_refinements,
            beliefs: state.beliefs,
            attention: if self.keeps_attention { state.attention } else { Vec::new() },
        };
        Ok(states.map(told).collect())
    }

    fn place(&mut self, codes: &CodeTable, _: &[Placement]) -> Result<(), Infallible> {
        self.rows.resize(codes.items() * self.width, 0.0);
        self.codes = codes.clone();
        Ok(())
    }
}

/// What a history is to the fake.
pub fn key(history: &History) -> u64 {
    history.iter().fold(7, |sum, entry| hash(&[sum, u64::from(entry.item)]))
}

/// A history of one item.
pub fn history(item: u32) -> History {
    vec![HistoryEntry { item, kind: EventKind::View, time: 0 }]
}

/// Splitmix64 over a list.
pub fn hash(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Between -1 and 1.
pub fn noise(words: &[u64]) -> f32 {
    (hash(words) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// A catalogue with these codes; item n has id "n", a brand, a category and a price that follow from n.
pub fn catalogue(shape: CodeShape, entries: Vec<u16>) -> Index {
    let codes = CodeTable::new(shape, entries).unwrap();
    let items = (0..codes.items())
        .map(|n| CatalogItem {
            item: Item {
                id: n.to_string(),
                title: None,
                brand: (n % 3 > 0).then(|| format!("brand {}", n % 3)),
                categories: vec!["all".into(), format!("kind {}", n % 4)],
                price: (n % 5 > 0).then_some(n as f32),
                eligible: n % 7 != 6,
            },
            category: 0,
            prior: noise(&[11, n as u64]),
        })
        .collect();
    Index::build(items, codes, vec!["any".into()], "1".into()).unwrap()
}

/// A catalogue of random codes; few entries make collisions.
pub fn random_catalogue(seed: u64, items: usize, shape: CodeShape) -> Index {
    let at = |at: usize| (hash(&[seed, 9, at as u64]) % shape.entries as u64) as u16;
    catalogue(shape, (0..items * shape.codebooks).map(at).collect())
}

/// Every eligible item.
pub fn everything(index: &Index) -> Candidates {
    index.root(&Filter::default(), &[])
}

/// Settings wide enough to lose nothing, that step on to the last codebook.
pub fn full_width() -> DecodeSettings {
    DecodeSettings { beam: 100_000, corp: false, full_path: true, ..DecodeSettings::default() }
}

/// One job alone, explained.
pub fn alone(model: &mut Fake, index: &Index, root: &Candidates, k: usize, settings: &DecodeSettings) -> Outcome {
    let history = history(1);
    let job = DecodeJob { history: &history, k, root, settings, explain: true, bias: None };
    decode(model, index, &[job], &|_| true).unwrap().remove(0).unwrap()
}
