//! Scores that are only near at first lead to the same answers.

use std::convert::Infallible;
use std::ops::Range;

use crate::decode::{
    Advance, Bias, DecodeJob, DecodeSettings, Engine, Margins, Outcome, PathModel, PathState, Placement, TokenVectors,
    decode,
};
use crate::domain::{CodeShape, CodeTable, Filter, History, ItemNumber};

use super::fake::{Fake, everything, history, noise, random_catalogue};

const SHAPE: CodeShape = CodeShape { codebooks: 4, entries: 5 };

/// The fake, behind scores that are off by as much as their margins allow, all of them or half of them.
struct Near {
    truth: Fake,
    margins: Vec<f32>,
    /// Scores told truly after all.
    told: usize,
}

impl PathModel for Near {
    type Error = Infallible;

    fn shape(&self) -> CodeShape {
        self.truth.shape()
    }

    fn categories(&self) -> usize {
        self.truth.categories()
    }

    fn token_vectors(&self) -> TokenVectors<'_> {
        self.truth.token_vectors()
    }

    fn encode(&mut self, histories: &[&History]) -> Result<(), Infallible> {
        self.truth.encode(histories)
    }

    fn score_items(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<(), Infallible> {
        self.truth.score_items(requests, scores)
    }

    fn score_items_nearly(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<bool, Infallible> {
        self.truth.score_items(requests, scores)?;
        for scores in scores.chunks_exact_mut(self.margins.len()) {
            for (at, (score, margin)) in scores.iter_mut().zip(&self.margins).enumerate() {
                *score += noise(&[9, at as u64]).clamp(-1.0, 1.0) * margin;
            }
        }
        Ok(true)
    }

    fn margins(&self, _: usize) -> Margins<'_> {
        Margins { factor: 1.0, items: &self.margins, widest: self.margins.iter().copied().fold(0.0, f32::max) }
    }

    fn score_these(&mut self, request: usize, numbers: &[ItemNumber], scores: &mut [f32]) -> Result<(), Infallible> {
        let mut truth = vec![0.0; scores.len()];
        self.truth.score_items(request..request + 1, &mut truth)?;
        self.told += numbers.len();
        numbers.iter().for_each(|&number| scores[number as usize] = truth[number as usize]);
        Ok(())
    }

    fn advance(&mut self, rows: &[Advance], beliefs: bool) -> Result<Vec<PathState>, Infallible> {
        self.truth.advance(rows, beliefs)
    }

    fn place(&mut self, codes: &CodeTable, placed: &[Placement]) -> Result<(), Infallible> {
        self.truth.place(codes, placed)
    }
}

fn items(outcome: &Option<Outcome>) -> Vec<ItemNumber> {
    outcome.as_ref().unwrap().items.iter().map(|ranked| ranked.item).collect()
}

#[test]
fn near_scores_lead_to_the_same_items() {
    let (users, mut told) = (40, 0);
    let index = random_catalogue(11, 2000, SHAPE);
    let margins = (0..index.len()).map(|at| 0.05 * noise(&[10, at as u64]).abs()).collect();
    let mut near = Near { truth: Fake::random(11, &index, 1.0), margins, told: 0 };
    let mut truth = Fake::random(11, &index, 1.0);
    let roots = [
        everything(&index),
        index.root(&Filter { include_brands: vec!["brand 1".into()], ..Filter::default() }, &[3]),
        index.root(&Filter { max_price: Some(3.0), ..Filter::default() }, &[]),
    ];
    let bias = Bias { sets: vec![(roots[1].clone(), 1.5)], ..Bias::default() };
    let base = DecodeSettings { corp: false, finish_at: 3, shortlist: 100, draft_items: 20, ..Default::default() };
    for engine in [Engine::Exact, Engine::Beam, Engine::Draft] {
        let settings = DecodeSettings { engine, ..base.clone() };
        for user in 0..users {
            let history = history(user as u32);
            let job = DecodeJob {
                history: &history,
                k: [10, 1, 40][user % 3],
                root: &roots[user % roots.len()],
                settings: &settings,
                explain: false,
                bias: (user % 4 == 1).then_some(&bias),
            };
            let jobs = [job, DecodeJob { k: 5, ..job }];
            let found = decode(&mut near, &index, &jobs, &|_| true).unwrap();
            let expected = decode(&mut truth, &index, &jobs, &|_| true).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(items(found), items(expected), "{engine:?}, user {user}");
            }
        }
        if engine == Engine::Exact {
            told = near.told;
        }
    }
    // Few of the items had to be scored anew for the exact engine.
    assert!(told < users * 2 * index.len() / 4, "{told} scores");
}
