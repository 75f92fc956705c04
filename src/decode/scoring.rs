//! What a decode asks of a network. The network fulfils it; a test fulfils it with tables.

use std::ops::Range;

use crate::domain::{CodeShape, CodeTable, History, ItemNumber, Token};

use super::resident::ResidentModel;

/// One path to be read by the decoder: what it extends, and by which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// The request, by its place in the last `encode`.
    pub request: usize,
    /// The path before: its place in the last `advance`, and the token chosen; none for `<BOS>`.
    pub extends: Option<(usize, Token)>,
}

/// What the decoder says of a path of t tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PathState {
    /// g(d_t), `[width]`: an item's score gains <g(d_t), Z_r,j> for its token of every codebook r not yet used.
    pub refinement: Vec<f32>,
    /// c_t: the category belief, `[categories]`, sums to one; empty when it was not asked for.
    pub beliefs: Vec<f32>,
    /// How much the path's last position looked at each event of the history: weights of the decoder's cross-attention,
    /// averaged over its blocks and heads, the newest event last, `[events that the network reads]`, sum to one. Empty when
    /// they are not kept.
    pub attention: Vec<f32>,
}

/// Z: one vector for every token, `[M * D, width]`.
#[derive(Debug, Clone, Copy)]
pub struct TokenVectors<'a> {
    /// Row after row, token (r, j) in row r * D + j.
    pub rows: &'a [f32],
    /// Numbers in a row.
    pub width: usize,
    /// Sum over r of Z_r,j_r(i) for every item, `[items, width]`, where the network keeps it: one row is sooner read than M.
    pub sums: Option<&'a [f32]>,
}

impl<'a> TokenVectors<'a> {
    /// The vector of the token in this row.
    pub(super) fn row(&self, at: usize) -> &'a [f32] {
        &self.rows[at * self.width..(at + 1) * self.width]
    }
}

/// How far scores may be off: |score - s(i)| is at most `factor * items[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Margins<'a> {
    /// The request's part.
    pub factor: f32,
    /// The items' parts, `[items]`; empty where no score is off.
    pub items: &'a [f32],
    /// No item's part is larger.
    pub widest: f32,
}

/// An item that comes after the network learnt, or that has another code than it had then.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Its number.
    pub item: ItemNumber,
    /// Items whose vectors its own is the mean of, and their shares, which sum to one: those likest to it, or itself where
    /// the vector is to stay as it is. The mean is drawn out to the length that they have. None: it is what its tokens say.
    pub like: Vec<(ItemNumber, f32)>,
}

/// How much of everything a network is asked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Histories that are encoded together.
    pub requests: usize,
    /// Events of the longest.
    pub events: usize,
    /// Paths of one request that are read in a step.
    pub paths: usize,
}

/// A network that scores items and reads paths, a batch at a time.
///
/// State lives between calls: `encode` begins a new batch and forgets the one before; each `advance` extends paths of
/// the `advance` before it (the first of a batch carries `<BOS>` rows only). A row's result never depends on the other
/// rows of the call beyond rounding.
pub trait PathModel {
    /// What can go wrong inside: a device error, a shape that the network was not built for.
    type Error: std::fmt::Display;

    /// M and D.
    fn shape(&self) -> CodeShape;

    /// The number of categories of the category head.
    fn categories(&self) -> usize;

    /// Z.
    fn token_vectors(&self) -> TokenVectors<'_>;

    /// Shapes within `most` that should have been seen before requests come, as each costs more when it comes first: on a
    /// device that chooses or compiles its kernels by shape. None where no shape does.
    fn shapes(&self, _most: Shape) -> Vec<Shape> {
        Vec::new()
    }

    /// Whether path states are to tell attention from here on. A network that cannot tell it tells none.
    fn keep_attention(&mut self, _keep: bool) {}

    /// The same network as one that goes through candidates itself; none where it does not.
    fn resident(&mut self) -> Option<&mut dyn ResidentModel<Error = Self::Error>> {
        None
    }

    /// Reads the histories, each at least one entry.
    fn encode(&mut self, histories: &[&History]) -> Result<(), Self::Error>;

    /// As [`Self::encode`], but only items will be scored and no path read, which may spare a network most of its work on the
    /// histories: an [`Self::advance`] behind it may be refused.
    fn encode_for_scores(&mut self, histories: &[&History]) -> Result<(), Self::Error> {
        self.encode(histories)
    }

    /// s(i) of every item for some requests of the last `encode`, into `scores`, `[requests, items]`.
    fn score_items(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<(), Self::Error>;

    /// As [`Self::score_items`], but where that saves work only nearly; see [`Self::margins`]. Answers whether it was only
    /// nearly; always false where a network does not say otherwise.
    fn score_items_nearly(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<bool, Self::Error> {
        self.score_items(requests, scores).map(|()| false)
    }

    /// How far the scores of a request may be off that were scored only nearly.
    fn margins(&self, _request: usize) -> Margins<'_> {
        Margins { factor: 0.0, items: &[], widest: 0.0 }
    }

    /// s(i) of some items of a request that was scored only nearly, each into its place in `scores`, `[items]`.
    fn score_these(
        &mut self,
        _request: usize,
        _numbers: &[ItemNumber],
        _scores: &mut [f32],
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Reads one token more of each path; one state a row, in the same order, with beliefs where they are asked for.
    fn advance(&mut self, rows: &[Advance], beliefs: bool) -> Result<Vec<PathState>, Self::Error>;

    /// From here on the items are those of `codes`: at least as many as before, under the same numbers. `placed` are those
    /// that are new, every one of them, and those whose code is another. Called between batches.
    fn place(&mut self, codes: &CodeTable, placed: &[Placement]) -> Result<(), Self::Error>;
}
