//! Products with weights that were packed once.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::domain::breathe;

/// Rows of activations that one pass over a panel serves: so many sums fit the vector registers beside the panel.
const ROWS: usize = 8;

/// A weight matrix `[inner, outer]`, cut into panels of so many columns that a row of one fills two vector registers.
/// Panels are padded with zeros to their full width.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    inner: usize,
    outer: usize,
    /// Columns of a panel.
    panel: usize,
    /// Numbers before the first panel, so that every load falls into one cache line.
    skip: usize,
    data: Vec<f32>,
}

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It takes the place of what was there.
    Set,
    /// It is added to what was there.
    Add,
    /// It takes the place of what was there, negative numbers as zero.
    Relu,
}

impl Packed {
    /// Packs `[inner, outer]` numbers, row after row.
    pub fn new(weights: &[f32], inner: usize, outer: usize) -> Self {
        let mut packed = Self::zeros(inner, outer);
        for (at, row) in weights.chunks_exact(outer).take(inner).enumerate() {
            packed.fill_row(at, row);
        }
        packed
    }

    /// All zeros.
    pub fn zeros(inner: usize, outer: usize) -> Self {
        let mut packed = Self::default();
        packed.reshape(inner, outer);
        packed
    }

    /// Becomes a matrix of other sizes, of any numbers, in the memory that it has.
    pub fn reshape(&mut self, inner: usize, outer: usize) {
        self.panel = Arch::new().dispatch(PanelWidth);
        (self.inner, self.outer) = (inner, outer);
        let line = 64 / size_of::<f32>();
        let needed = outer.div_ceil(self.panel) * self.panel * inner + line;
        if self.data.len() < needed {
            self.data.resize(needed, 0.0);
            self.skip = self.data.as_ptr().align_offset(64).min(line);
        }
    }

    /// Sets one row.
    pub fn fill_row(&mut self, at: usize, row: &[f32]) {
        for (panel, columns) in row.chunks(self.panel).enumerate() {
            let start = self.skip + (panel * self.inner + at) * self.panel;
            self.data[start..start + columns.len()].copy_from_slice(columns);
        }
    }

    /// Sets all columns: each is what stands at `within` of every `stride` numbers of `rows`.
    pub fn fill_columns(&mut self, rows: &[f32], stride: usize, within: Range<usize>) {
        let panels = self.data[self.skip..].chunks_exact_mut(self.inner * self.panel);
        for (panel, rows) in panels.zip(rows.chunks(self.panel * stride)) {
            // Row after row of the panel, so that what is written lies side by side.
            for (places, at) in panel.chunks_exact_mut(self.panel).zip(within.clone()) {
                let column = rows.chunks_exact(stride).map(|row| row[at]);
                places.iter_mut().zip(column).for_each(|(place, value)| *place = value);
            }
        }
    }

    /// Numbers in a row of what it is multiplied with.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Numbers in a row of the product.
    pub fn outer(&self) -> usize {
        self.outer
    }

    /// Columns of a panel.
    pub fn panel_width(&self) -> usize {
        self.panel
    }

    /// `rows` times these weights, plus `bias`.
    ///
    /// # Shapes
    ///
    /// - rows: `[rows, inner]`
    /// - bias: `[outer]`, or empty for none
    /// - out: `[rows, outer]`
    pub fn product(&self, rows: &[f32], bias: &[f32], out: &mut [f32], put: Put) {
        self.corner_product((self.inner, self.outer), rows, bias, out, put);
    }

    /// `rows` times the first `inner` rows and `outer` columns of these weights, plus `bias`: as [`Self::product`] does
    /// with a matrix of these sizes.
    pub fn corner_product(
        &self,
        (inner, outer): (usize, usize),
        rows: &[f32],
        bias: &[f32],
        out: &mut [f32],
        put: Put,
    ) {
        debug_assert!(inner <= self.inner && outer <= self.outer);
        Arch::new().dispatch(Product { rows, weights: self, inner, outer, bias, out, put });
    }

    /// The panels, each `[inner, panel width]`.
    pub fn panels(&self) -> impl Iterator<Item = &[f32]> {
        self.data[self.skip..].chunks_exact(self.inner * self.panel).take(self.outer.div_ceil(self.panel))
    }
}

/// Columns of a panel on this machine.
struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

struct Product<'a> {
    rows: &'a [f32],
    weights: &'a Packed,
    inner: usize,
    outer: usize,
    bias: &'a [f32],
    out: &'a mut [f32],
    put: Put,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, weights, inner, outer, bias, out, put } = self;
        let width = weights.panel;
        for (at, panel) in weights.panels().take(outer.div_ceil(width)).enumerate() {
            breathe();
            let columns = at * width..(at * width + width).min(outer);
            let bias = if bias.is_empty() { bias } else { &bias[columns.clone()] };
            let into = Into { outer, columns, bias, put };
            let mut rest = rows;
            let mut row = 0;
            while rest.len() >= ROWS * inner {
                tile::<S, ROWS>(simd, &rest[..ROWS * inner], panel, &into, &mut out[row * outer..]);
                (rest, row) = (&rest[ROWS * inner..], row + ROWS);
            }
            if rest.len() >= 4 * inner {
                tile::<S, 4>(simd, &rest[..4 * inner], panel, &into, &mut out[row * outer..]);
                (rest, row) = (&rest[4 * inner..], row + 4);
            }
            if rest.len() >= 2 * inner {
                tile::<S, 2>(simd, &rest[..2 * inner], panel, &into, &mut out[row * outer..]);
                (rest, row) = (&rest[2 * inner..], row + 2);
            }
            if rest.len() >= inner {
                tile::<S, 1>(simd, &rest[..inner], panel, &into, &mut out[row * outer..]);
            }
        }
    }
}

/// Where a panel's part of a product goes.
struct Into<'a> {
    outer: usize,
    columns: Range<usize>,
    bias: &'a [f32],
    put: Put,
}

/// R rows times one panel.
#[inline(always)]
fn tile<S: Simd, const R: usize>(simd: S, rows: &[f32], panel: &[f32], into: &Into<'_>, out: &mut [f32]) {
    let sums = sums::<S, R, 2>(simd, rows, panel);
    for (row, sum) in sums.iter().enumerate() {
        let start = row * into.outer;
        let out = &mut out[start + into.columns.start..start + into.columns.end];
        put::<S>(simd, *sum, into, out);
    }
}

/// R rows times the first W registers of a panel's columns: for each row, the sums of its columns.
#[inline(always)]
pub fn sums<S: Simd, const R: usize, const W: usize>(simd: S, rows: &[f32], panel: &[f32]) -> [[S::f32s; W]; R] {
    let inner = rows.len() / R;
    let mut sums = [[simd.splat_f32s(0.0); W]; R];
    // Slices of one known length, so that no index is checked in the loop.
    let rows: [&[f32]; R] = std::array::from_fn(|row| &rows[row * inner..][..inner]);
    let (panel, _) = S::as_simd_f32s(panel);
    let (panel, _) = panel.as_chunks::<2>();
    let panel = &panel[..inner];
    for at in 0..inner {
        for row in 0..R {
            let value = simd.splat_f32s(rows[row][at]);
            for half in 0..W {
                sums[row][half] = simd.mul_add_e_f32s(value, panel[at][half], sums[row][half]);
            }
        }
    }
    sums
}

#[inline(always)]
fn put<S: Simd>(simd: S, sum: [S::f32s; 2], into: &Into<'_>, out: &mut [f32]) {
    let lanes = S::F32_LANES;
    for (half, sum) in sum.into_iter().enumerate() {
        let places = (half * lanes).min(out.len())..(half * lanes + lanes).min(out.len());
        let bias = if into.bias.is_empty() { into.bias } else { &into.bias[places.clone()] };
        let out = &mut out[places];
        // The last panel may end within a register.
        if let Some(whole) = S::as_mut_simd_f32s(out).0.first_mut() {
            let bias = S::as_simd_f32s(bias).0.first().copied();
            *whole = finished::<S>(simd, sum, bias, *whole, into.put);
        } else if !out.is_empty() {
            let bias = (!bias.is_empty()).then(|| simd.partial_load_f32s(bias));
            let before = simd.partial_load_f32s(out);
            simd.partial_store_f32s(out, finished::<S>(simd, sum, bias, before, into.put));
        }
    }
}

#[inline(always)]
fn finished<S: Simd>(simd: S, sum: S::f32s, bias: Option<S::f32s>, before: S::f32s, put: Put) -> S::f32s {
    let sum = bias.map_or(sum, |bias| simd.add_f32s(sum, bias));
    match put {
        Put::Set => sum,
        Put::Add => simd.add_f32s(sum, before),
        Put::Relu => simd.max_f32s(sum, simd.splat_f32s(0.0)),
    }
}
