//! A clock around a network, because the decode has none.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::decode::{Advance, Margins, PathModel, PathState, Placement, ResidentModel, Shape, TokenVectors};
use crate::domain::{CodeShape, CodeTable, History, ItemNumber};

/// A network that remembers how long its encoder took.
pub(super) struct Timed<'a, M> {
    model: &'a mut M,
    pub(super) encode: Duration,
}

impl<'a, M: PathModel> Timed<'a, M> {
    pub(super) fn new(model: &'a mut M) -> Self {
        Self { model, encode: Duration::ZERO }
    }
}

impl<M: PathModel> PathModel for Timed<'_, M> {
    type Error = M::Error;

    fn shape(&self) -> CodeShape {
        self.model.shape()
    }

    fn categories(&self) -> usize {
        self.model.categories()
    }

    fn token_vectors(&self) -> TokenVectors<'_> {
        self.model.token_vectors()
    }

    fn shapes(&self, most: Shape) -> Vec<Shape> {
        self.model.shapes(most)
    }

    fn keep_attention(&mut self, keep: bool) {
        self.model.keep_attention(keep);
    }

    fn resident(&mut self) -> Option<&mut dyn ResidentModel<Error = Self::Error>> {
        self.model.resident()
    }

    fn encode(&mut self, histories: &[&History]) -> Result<(), Self::Error> {
        let started = Instant::now();
        let outcome = self.model.encode(histories);
        self.encode += started.elapsed();
        outcome
    }

    fn encode_for_scores(&mut self, histories: &[&History]) -> Result<(), Self::Error> {
        let started = Instant::now();
        let outcome = self.model.encode_for_scores(histories);
        self.encode += started.elapsed();
        outcome
    }

    fn score_items(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<(), Self::Error> {
        self.model.score_items(requests, scores)
    }

    fn score_items_nearly(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<bool, Self::Error> {
        self.model.score_items_nearly(requests, scores)
    }

    fn margins(&self, request: usize) -> Margins<'_> {
        self.model.margins(request)
    }

    fn score_these(&mut self, request: usize, numbers: &[ItemNumber], scores: &mut [f32]) -> Result<(), Self::Error> {
        self.model.score_these(request, numbers, scores)
    }

    fn advance(&mut self, rows: &[Advance], beliefs: bool) -> Result<Vec<PathState>, Self::Error> {
        self.model.advance(rows, beliefs)
    }

    fn place(&mut self, codes: &CodeTable, placed: &[Placement]) -> Result<(), Self::Error> {
        self.model.place(codes, placed)
    }
}
