//! Bitmap with bf16 values times a batch of token rows: the panels of `panels.rs`, two columns a mask.

use super::lanes::Lanes;
use super::panels::{self, Panels};
use super::{AHEAD, Kernel, Simd, SparseKernels, prefetch};
use crate::sparse::{BitmapPairs, PANEL};
use half::bf16;
use std::sync::Arc;

impl SparseKernels for BitmapPairs {
    fn shape(&self) -> [usize; 2] {
        Panels::shape(self)
    }

    fn layout(&self) -> &'static str {
        "bitmap-pairs"
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

impl Panels for BitmapPairs {
    type Mask = u32;
    type Value = bf16;
    const COLUMNS: usize = 2;
    const COST: usize = 1;

    fn shape(&self) -> [usize; 2] {
        [self.rows(), self.cols()]
    }

    fn panel(&self, panel: usize) -> (&[u32], &[bf16]) {
        self.panel(panel)
    }

    fn simd(simd: Simd) -> Simd {
        simd.for_pairs()
    }

    unsafe fn run<K: Kernel>(simd: Simd, kernel: K) {
        // SAFETY: the caller's contract.
        unsafe { simd.run_pairs(kernel) }
    }

    // As in `bitmap.rs`.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "adaptors over vectors are not always inlined: a call each")]
    unsafe fn step<L: Lanes, const T: usize, const P: usize>(
        masks: &[*const u32; P],
        next: &mut [*const bf16; P],
        x: *const f32,
        stride: usize,
        k: usize,
        sums: &mut [[L; T]; P],
    ) {
        // SAFETY: the caller's contract.
        unsafe {
            for p in 0..P {
                let mask = *masks[p].add(k);
                let (even, odd) = L::expand_pairs(mask, next[p]);
                next[p] = next[p].add(mask.count_ones() as usize);
                for t in 0..T {
                    let sum = sums[p][t].fma(even, L::splat(*x.add(t)));
                    sums[p][t] = sum.fma(odd, L::splat(*x.add(stride + t)));
                }
                if k.is_multiple_of(2) {
                    prefetch(next[p].wrapping_add(2 * AHEAD));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn first<L: Lanes>(mask: u32, next: *const bf16) -> L {
        // SAFETY: the caller's contract.
        unsafe { L::expand_pairs(mask, next).0 }
    }

    #[inline(always)]
    unsafe fn unpack<L: Lanes>(mask: u32, next: *const bf16, to: *mut f32) -> *const bf16 {
        // SAFETY: the caller's contract; the odd column's weights follow the even one's.
        unsafe {
            let (even, odd) = L::expand_pairs(mask, next);
            even.store(to);
            odd.store(to.add(PANEL));
            next.add(mask.count_ones() as usize)
        }
    }
}
