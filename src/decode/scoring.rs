//! What a decode asks of a network. The network fulfils it; a test fulfils it with tables.

use crate::domain::{CodeShape, History, Token};

/// The scorer's view of one user: s(i) = sum over r of `token_scores[r, code_r(i)]` + <`residual`, e_i>.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemQuery {
    /// `[M, D]` in one slice: <h, Z_r,j>.
    pub token_scores: Vec<f32>,
    /// h: `[width]`, as wide as the residual table's rows.
    pub residual: Vec<f32>,
}

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
    /// `[M, D]` in one slice: <g(d_t), Z_r,j>, added to the scorer's for codebooks not yet used.
    pub token_refinements: Vec<f32>,
    /// c_t: the category belief, `[categories]`, sums to one.
    pub beliefs: Vec<f32>,
}

/// The residual rows e_i of all items of a bundle, `[items, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Residuals<'a> {
    /// Row after row.
    pub rows: &'a [f32],
    /// Numbers in a row; may be zero.
    pub width: usize,
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

    /// e_i of every item.
    fn residuals(&self) -> Residuals<'_>;

    /// Reads the histories (each at least one entry) and answers each user's query, in the same order.
    fn encode(&mut self, histories: &[&History]) -> Result<Vec<ItemQuery>, Self::Error>;

    /// Reads one token more of each path; one state a row, in the same order.
    fn advance(&mut self, rows: &[Advance]) -> Result<Vec<PathState>, Self::Error>;
}
