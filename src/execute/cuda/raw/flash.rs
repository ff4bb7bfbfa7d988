//! Launches of `flash.cu`: attention of many tokens by the tensor core.

use super::decode::Attend;
use super::source::{Kernel, Source};
use super::stream::{Gpu, Launch, Passing};
use crate::execute::cuda::Tensor;
use burn::tensor::DType;

/// Tokens of a block, and its threads.
const ROWS: usize = 64;
const THREADS: usize = 128;
/// Heads are whole sixteens, up to this.
const SIXTEEN: usize = 16;
const MOST_HEAD: usize = 256;
/// Bytes of shared memory that the kernel has of its own: positions and rows.
const OWN: usize = 8 * ROWS;
/// Up to this head tiles have [`ROWS`] keys, beyond it half as many.
const SHORT_HEAD: usize = 128;

/// What many tokens see, beside what one does: how queries are turned, and what is done to scores.
#[derive(Clone, Copy, Debug)]
pub(in crate::execute::cuda) struct Flash {
    pub attend: Attend,
    /// Pairs are two neighbours, and not a feature of each half.
    pub neighbours: bool,
    /// Angles are those of the tokens, and not of the positions.
    pub by_token: bool,
    /// Scores become `cap . tanh(score / cap)`.
    pub cap: Option<f32>,
    /// Keys of each head that have a number which is added to their scores.
    pub bias_keys: Option<usize>,
}

impl Flash {
    /// Whether it can be launched, which compiles the kernel.
    pub fn can(&self, gpu: &Gpu, dtype: DType) -> bool {
        let dim = self.attend.dim;
        let fits =
            dim.is_multiple_of(SIXTEEN) && (SIXTEEN..=MOST_HEAD).contains(&dim) && OWN + shared(dim) <= gpu.shared;
        fits && dtype.size() == 2 && gpu.has(&self.kernel(dtype))
    }

    fn kernel(&self, dtype: DType) -> Kernel {
        let macros = vec![
            ("DIM", self.attend.dim as u32),
            ("CAPPED", u32::from(self.cap.is_some())),
            ("BIASED", u32::from(self.bias_keys.is_some())),
            ("BRAIN_NUMBERS", u32::from(dtype == DType::BF16)),
        ];
        Kernel { source: Source::Flash, entry: "flash_rows", macros }
    }
}

/// What each token sees of its sequence up to itself; keys, turned, and values are in the cache.
///
/// # Safety
/// The shape [`Flash::can`] be launched; `q` holds what the steps say; `places` is `[3, tokens]`, positions and rows inside
/// the cache, and where angles are by position inside their table, else these are `[tokens, pairs, 2]`; `biases`, where
/// there are, are `[heads, bias_keys]` of all positions; `out` is `[tokens, heads * dim]`. There are no gaps, `keys` and
/// `values` begin at 16 bytes.
pub(in crate::execute::cuda) unsafe fn rows(
    gpu: &Gpu,
    shape: Flash,
    q: &Tensor,
    [places, angles, biases]: [&Tensor; 3],
    [keys, values]: [&Tensor; 2],
    out: &Tensor,
) {
    let Attend { tokens, heads, kv_heads, dim, pairs, room, window, scale, steps, between } = shape.attend;
    let window = window.unwrap_or(u32::MAX as usize);
    let [from, of_token, of_head] = steps[0];
    let flags = [shape.neighbours, shape.by_token].map(usize::from);
    let numbers = [tokens, heads, kv_heads, pairs, room, window, from, of_token, of_head, between];
    let numbers = numbers.into_iter().chain(flags).chain([shape.bias_keys.unwrap_or(0)]);
    let scales = [scale, shape.cap.unwrap_or(1.0)].map(f32::to_bits);
    let launch = Launch {
        kernel: &shape.kernel(out.dtype),
        blocks: tokens.div_ceil(ROWS) * heads,
        threads: THREADS,
        shared: shared(dim),
        early: true,
        map: None,
        passing: Passing::Apart,
        params: numbers.map(|number| number as u32).chain(scales).collect(),
    };
    let buffers = [q, places, angles, biases, keys, values, out];
    // SAFETY: the caller's promise; the kernel waits for what came before, and there is shared memory for the queries of a
    // block and two tiles of keys and values.
    unsafe { gpu.launch(launch, buffers.map(|tensor| tensor.handle.clone()).into()) };
}

/// Bytes of a block: queries, and two tiles of keys and values.
fn shared(dim: usize) -> usize {
    let keys = if dim <= SHORT_HEAD { ROWS } else { ROWS / 2 };
    2 * (dim + 8) * (ROWS + 4 * keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_of_usual_heads_fit_a_multiprocessor() {
        assert!([64, 80, 96, 128].iter().all(|&dim| 2 * (OWN + shared(dim) + 1024) <= 228 << 10));
        // Of the widest one, where a block may have 163 KB; where it may have 99, what the kernel has of its own is too much.
        assert!(OWN + shared(MOST_HEAD) <= 163 << 10 && shared(MOST_HEAD) == 99 << 10);
    }
}
