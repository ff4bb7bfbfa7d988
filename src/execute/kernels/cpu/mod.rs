//! Linear layers on the CPU: dense and sparse, `y = x · Wᵀ + bias`; what lies between them, row by row; and
//! what calibration sums over their inputs. Weights are f32 or bf16, dense ones f16 too; inputs, sums and results are f32.
//!
//! ```text
//!   y [tokens, rows] = x [tokens, cols] · Wᵀ + bias
//!
//!               few tokens                          many tokens: tiles.rs turns x into [cols][lanes]
//!   dense.rs    dot products, rows at a time        a weight is broadcast to the lanes of its column
//!   panels.rs   16 rows of a column are expanded    a panel is expanded once, then as dense
//!               (bitmap.rs; bitmap_pairs.rs: two columns at a time)
//!   sell.rs     inputs are gathered                 a kept weight is broadcast, the others cost nothing
//!   csr32.rs    the same, in the order of plain CSR
//! ```
//!
//! A sparse format is one file here: [`SparseKernels`] for its layout of [`crate::sparse`]. [`pack`] names each once.
//!
//! Every kernel is written once, over the sixteen lanes of [`lanes`], and compiled for AVX-512, AVX2 + FMA
//! and for any CPU; [`Simd`] picks at run time. Threads own rows (and tiles of tokens), no sum is split
//! between them, so results do not depend on the number of threads; they do depend on the instruction set
//! and on whether tokens were few, in the last bits. Sums are taken in two levels, within blocks of columns
//! and then over those: rounding grows with their lengths' sum instead of their product.
//!
//! Scratch memory is kept by each thread between calls: a call allocates its output and no more.

mod bitmap;
mod bitmap_pairs;
mod csr32;
mod dense;
mod gram;
mod lanes;
mod panels;
mod peaks;
mod rows;
mod sell;
mod tiles;

pub use dense::{dense_kernel_name, dense_linear};
pub use gram::{Gram, add_squares};
pub use peaks::peaks;
pub use rows::{NormRows, activate, norm_rows};

use crate::config::format::Format;
use crate::sparse::{Bitmap, BitmapPairs, Csr, FormatError, Pattern, Sell};
use half::bf16;
use lanes::Lanes;
use rayon::prelude::*;
use std::fmt::Debug;
use std::sync::Arc;

/// A sparse matrix `[rows, cols]` with the kernels that multiply it.
pub trait SparseKernels: Debug + Send + Sync {
    /// Rows and columns: output and input features.
    fn shape(&self) -> [usize; 2];

    /// The exact layout, as tables name it: `csr-sliced`, say.
    fn layout(&self) -> &'static str;

    /// Bytes stored.
    fn bytes(&self) -> usize;

    /// The name of the code path for this many tokens.
    fn kernel(&self, tokens: usize, simd: Simd) -> String;

    /// `y = x · Wᵀ + bias`; called by [`sparse_linear`], which has looked at lengths and instruction set.
    ///
    /// # Shapes
    /// - `x`: `[tokens, cols]`, row-major
    /// - `bias`: `[rows]`
    /// - `y`: `[tokens, rows]`, row-major, not empty; zeros, all of which are written
    fn multiply(&self, bias: Option<&[f32]>, x: &[f32], tokens: usize, y: &mut [f32], simd: Simd);

    /// The same matrix in memory of its own.
    fn copied(&self) -> Arc<dyn SparseKernels>;
}

/// What values are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// 32 bits.
    F32,
    /// The upper 16 of them.
    Bf16,
}

/// Packs the kept ones of `weights` `[rows, cols]`, row-major; none where there are no kernels for the format.
///
/// # Errors
/// When the weights do not fit the format.
pub fn pack(
    format: Format,
    weights: &[f32],
    pattern: &Pattern,
    values: Values,
) -> Result<Option<Arc<dyn SparseKernels>>, FormatError> {
    let packed: Arc<dyn SparseKernels> = match (format, values) {
        (Format::Csr, Values::F32) => Arc::new(Sell::<f32>::from_dense(weights, pattern)?),
        (Format::Csr, Values::Bf16) => Arc::new(Sell::<bf16>::from_dense(weights, pattern)?),
        (Format::Bitmap, Values::F32) => Arc::new(Bitmap::from_dense(weights, pattern)?),
        (Format::Bitmap, Values::Bf16) => Arc::new(BitmapPairs::from_dense(weights, pattern)?),
        (Format::Csr32, Values::F32) => Arc::new(Csr::<f32>::from_dense(weights, pattern)?),
        (Format::Csr32, Values::Bf16) => Arc::new(Csr::<bf16>::from_dense(weights, pattern)?),
        (Format::Nm, Values::F32 | Values::Bf16) => return Ok(None),
    };
    Ok(Some(packed))
}

/// `y = x · Wᵀ + bias`.
///
/// # Shapes
/// - `x`: `[tokens, cols]`, row-major
/// - `bias`: `[rows]`
/// - returns `[tokens, rows]`, row-major
///
/// # Panics
/// When a length does not fit, or the machine lacks the instruction set.
pub fn sparse_linear(
    weights: &dyn SparseKernels,
    bias: Option<&[f32]>,
    x: &[f32],
    tokens: usize,
    simd: Simd,
) -> Vec<f32> {
    let [rows, cols] = weights.shape();
    assert!(simd.is_available(), "this machine has no {}", simd.name());
    assert_eq!(x.len(), tokens * cols, "x is [tokens, cols]");
    assert!(bias.is_none_or(|bias| bias.len() == rows), "one bias a row");
    let mut y = vec![0.0; tokens * rows];
    if !y.is_empty() {
        weights.multiply(bias, x, tokens, &mut y, simd);
    }
    y
}

/// The instruction set that the kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simd {
    /// 16 lanes a register, 32 registers, gathers, expansion.
    Avx512,
    /// 8 lanes a register, gathers and FMA.
    Avx2,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

impl Simd {
    /// The best that this machine has.
    pub fn detect() -> Self {
        let best = [Self::Avx512, Self::Avx2].into_iter().find(|simd| simd.is_available());
        best.unwrap_or(Self::Portable)
    }

    /// All that this machine has, the best first.
    pub fn available() -> Vec<Self> {
        [Self::Avx512, Self::Avx2, Self::Portable].into_iter().filter(|simd| simd.is_available()).collect()
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && Self::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }

    /// The name that tables show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// This instruction set, or the next that expands 16-bit numbers: AVX-512 needs VBMI2 for it.
    fn for_pairs(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx512 && !is_x86_feature_detected!("avx512vbmi2") {
            return Self::Avx2;
        }
        self
    }

    /// Runs a kernel that expands 16-bit numbers.
    ///
    /// # Safety
    /// As [`Simd::run`]; `self` comes from [`Simd::for_pairs`].
    unsafe fn run_pairs<K: Kernel>(self, kernel: K) {
        match self {
            // SAFETY: the caller's contract.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512_vbmi2(kernel) },
            // SAFETY: as above.
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 => unsafe { self.run(kernel) },
            // SAFETY: as above.
            Self::Avx2 | Self::Portable => unsafe { self.run(kernel) },
        }
    }

    /// Runs a kernel with this instruction set.
    ///
    /// # Safety
    /// The machine has it, and the kernel's own contract holds.
    unsafe fn run<K: Kernel>(self, kernel: K) {
        match self {
            // SAFETY: the caller's contract.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: as above; plain loops need no instruction set.
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => unsafe { kernel.run::<lanes::Portable>() },
            // SAFETY: as above.
            Self::Portable => unsafe { kernel.run::<lanes::Portable>() },
        }
    }
}

/// A kernel's arguments, and its loops over whatever lanes it is compiled for.
trait Kernel {
    /// Inlined by force into a function that has the instruction set turned on.
    ///
    /// # Safety
    /// The machine has the instruction set of `L`, and the kernel's own contract holds.
    unsafe fn run<L: Lanes>(self);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,popcnt,bmi1,bmi2")]
fn run_avx512<K: Kernel>(kernel: K) {
    // SAFETY: the instruction set is on; the kernel's contract is that of `Simd::run`.
    unsafe { kernel.run::<lanes::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,avx2,fma,f16c,popcnt,bmi1,bmi2")]
fn run_avx512_vbmi2<K: Kernel>(kernel: K) {
    // SAFETY: as above.
    unsafe { kernel.run::<lanes::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn run_avx2<K: Kernel>(kernel: K) {
    // SAFETY: as above.
    unsafe { kernel.run::<lanes::Avx2>() }
}

/// Where tasks write; each writes places of its own.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: tasks write through the pointer to disjoint places only: see where it is used.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The pointer; a method, so that closures capture the whole.
    fn pointer(self) -> *mut f32 {
        self.0
    }
}

/// Work, in multiply-adds over 16 lanes, that is not worth waking another thread: about 10 microseconds.
const SERIAL_BELOW: usize = 20_000;

/// Runs `task(0..tasks)` on all threads, or on this one where `work` is too little to share.
fn share(tasks: usize, work: usize, task: impl Fn(usize) + Send + Sync) {
    if tasks == 1 || work < SERIAL_BELOW {
        (0..tasks).for_each(task);
    } else {
        // Pieces small enough to balance, large enough that a thread reads memory in long runs.
        let piece = (tasks / (8 * rayon::current_num_threads())).max(1);
        (0..tasks).into_par_iter().with_min_len(piece).for_each(task);
    }
}

/// How far ahead of their use numbers of a stream are asked for.
const AHEAD: usize = 768;

/// Asks for memory that is needed soon; the address need not exist.
#[inline(always)]
fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults at nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// What is left from `from` to `end`, at most `most`.
fn left(from: usize, end: usize, most: usize) -> usize {
    (end - from).min(most)
}

#[cfg(test)]
mod tests;
