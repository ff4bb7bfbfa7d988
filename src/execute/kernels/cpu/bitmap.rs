//! Bitmap with f32 values times a batch of token rows: the panels of `panels.rs`, a column a mask.

use super::lanes::Lanes;
use super::panels::{self, Panels};
use super::{AHEAD, Kernel, Simd, SparseKernels, prefetch};
use crate::sparse::Bitmap;
use std::sync::Arc;

impl SparseKernels for Bitmap {
    fn shape(&self) -> [usize; 2] {
        Panels::shape(self)
    }

    fn layout(&self) -> &'static str {
        "bitmap-panels"
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn kernel(&self, tokens: usize, simd: Simd) -> String {
        panels::kernel_name(tokens, simd)
    }

    fn multiply(&self, bias: Option<&[f32]>, x: &[f32], tokens: usize, y: &mut [f32], simd: Simd) {
        panels::multiply(self, bias, x, tokens, y, simd);
    }

    fn copied(&self) -> Arc<dyn SparseKernels> {
        Arc::new(self.clone())
    }
}

impl Panels for Bitmap {
    type Mask = u16;
    type Value = f32;
    const COLUMNS: usize = 1;
    const COST: usize = 2;

    fn shape(&self) -> [usize; 2] {
        [self.rows(), self.cols()]
    }

    fn panel(&self, panel: usize) -> (&[u16], &[f32]) {
        self.panel(panel)
    }

    fn simd(simd: Simd) -> Simd {
        simd
    }

    unsafe fn run<K: Kernel>(simd: Simd, kernel: K) {
        // SAFETY: the caller's contract.
        unsafe { simd.run(kernel) }
    }

    // A function, not a closure: it must be inlined wherever it is used.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "adaptors over vectors are not always inlined: a call each")]
    unsafe fn step<L: Lanes, const T: usize, const P: usize>(
        masks: &[*const u16; P],
        next: &mut [*const f32; P],
        x: *const f32,
        _stride: usize,
        k: usize,
        sums: &mut [[L; T]; P],
    ) {
        // SAFETY: the caller's contract.
        unsafe {
            let mut xs = [L::splat(0.0); T];
            for t in 0..T {
                xs[t] = L::splat(*x.add(t));
            }
            for p in 0..P {
                let mask = *masks[p].add(k);
                let weights = L::expand(mask, next[p]);
                next[p] = next[p].add(mask.count_ones() as usize);
                for t in 0..T {
                    sums[p][t] = sums[p][t].fma(weights, xs[t]);
                }
                // A column in two takes a line of values or less.
                if k.is_multiple_of(2) {
                    prefetch(next[p].wrapping_add(AHEAD));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn first<L: Lanes>(mask: u16, next: *const f32) -> L {
        // SAFETY: the caller's contract.
        unsafe { L::expand(mask, next) }
    }

    #[inline(always)]
    unsafe fn unpack<L: Lanes>(mask: u16, next: *const f32, to: *mut f32) -> *const f32 {
        // SAFETY: the caller's contract.
        unsafe {
            L::expand(mask, next).store(to);
            next.add(mask.count_ones() as usize)
        }
    }
}
