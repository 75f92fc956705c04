//! A clock around a network, because the decode has none.

use std::time::{Duration, Instant};

use crate::decode::{Advance, ItemQuery, PathModel, PathState, Residuals};
use crate::domain::{CodeShape, History};

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

    fn residuals(&self) -> Residuals<'_> {
        self.model.residuals()
    }

    fn encode(&mut self, histories: &[&History]) -> Result<Vec<ItemQuery>, Self::Error> {
        let started = Instant::now();
        let queries = self.model.encode(histories);
        self.encode += started.elapsed();
        queries
    }

    fn advance(&mut self, rows: &[Advance]) -> Result<Vec<PathState>, Self::Error> {
        self.model.advance(rows)
    }
}
