//! Inner products in vector registers.

use pulp::Simd;

/// A sum of products on its way, in four registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dot<S: Simd>([S::f32s; 4]);

impl<S: Simd> Dot<S> {
    /// Nothing yet.
    #[inline(always)]
    pub(crate) fn zero(simd: S) -> Self {
        Self([simd.splat_f32s(0.0); 4])
    }

    /// Adds <a, b>.
    #[inline(always)]
    pub(crate) fn add(&mut self, simd: S, a: &[f32], b: &[f32]) {
        let ((a, a_tail), (b, b_tail)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
        let (a_blocks, b_blocks) = (a.chunks_exact(4), b.chunks_exact(4));
        let (a_rest, b_rest) = (a_blocks.remainder(), b_blocks.remainder());
        for (a, b) in a_blocks.zip(b_blocks) {
            for at in 0..4 {
                self.0[at] = simd.mul_add_e_f32s(a[at], b[at], self.0[at]);
            }
        }
        for (a, b) in a_rest.iter().zip(b_rest) {
            self.0[0] = simd.mul_add_e_f32s(*a, *b, self.0[0]);
        }
        if !a_tail.is_empty() {
            let (a, b) = (simd.partial_load_f32s(a_tail), simd.partial_load_f32s(b_tail));
            self.0[1] = simd.mul_add_e_f32s(a, b, self.0[1]);
        }
    }

    /// The sum.
    #[inline(always)]
    pub(crate) fn total(self, simd: S) -> f32 {
        let [a, b, c, d] = self.0;
        simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)))
    }
}
