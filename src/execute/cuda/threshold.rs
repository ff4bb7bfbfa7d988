//! The threshold-masked product on CUDA: how the inputs are split, and the launches.

use super::raw::Gpu;
use super::{Cuda, Tensor, choice};
use crate::execute::backend::{ColumnWeight, masked_dense_linear};
use crate::execute::kernels::cuda::threshold::{MOST_INPUTS, SUM_CUBE, THREADS, threshold_columns, threshold_sum};
use burn::tensor::{DType, Distribution, Shape, TensorMetadata};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;

/// The name of the kernel; how many cubes a multiprocessor has follows.
const NAME: &str = "threshold-cube-columns";
/// The most tokens whose sums fit a thread's registers; the experiment file asks for no more.
const MOST_TOKENS: usize = 4;
/// Cubes that a multiprocessor runs at once, for this many tokens: 8 of 128 threads with 4 loads of 16 bytes each are
/// 64 KB in flight, where the memory's latency times its bandwidth is 26 KB on an H200. Registers (32 a thread of
/// one token, 68 of four) leave room for no more.
const CUBES_PER_PROCESSOR: [usize; MOST_TOKENS] = [8, 8, 6, 6];
/// Other numbers of cubes that may be faster for a shape: timed once, see choice.rs.
const OTHERS: [usize; 4] = [4, 6, 10, 16];
/// Half of normal inputs are not above this.
const MEDIAN: f32 = 0.674_49;
/// Multiprocessors of a GPU that does not say.
const PROCESSORS: usize = 128;
/// Fewer inputs are not worth a cube.
const LEAST_INPUTS: usize = 32;

/// `y = (x · 1[|x| > threshold]) · Wᵀ` for at most four tokens at a time.
pub(super) fn threshold_linear(x: Tensor, weight: &ColumnWeight<Cuda>, threshold: f32) -> Tensor {
    let x = into_contiguous(x);
    let tokens = x.shape()[0];
    if tokens > MOST_TOKENS {
        // Right, and no faster than dense: nothing that is timed comes here.
        return masked_dense_linear(x, weight, threshold);
    }
    let cubes = cubes(weight, tokens);
    launch(x, weight, threshold, cubes)
}

/// The name of what runs for this many tokens.
pub(super) fn kernel(weight: &ColumnWeight<Cuda>, tokens: usize) -> String {
    match tokens {
        1..=MOST_TOKENS => format!("{NAME}-{}", cubes(weight, tokens)),
        _ => NAME.into(),
    }
}

/// Cubes that a multiprocessor has: the usual number, or the fastest where they were timed.
fn cubes(weight: &ColumnWeight<Cuda>, tokens: usize) -> usize {
    let usual = CUBES_PER_PROCESSOR[tokens.clamp(1, MOST_TOKENS) - 1];
    let numbers = weight.tensor().into_primitive().tensor();
    let (device, dtype) = (numbers.device.clone(), numbers.dtype);
    let bytes = weight.inputs() * weight.stride() * dtype.size();
    let Some(gpu) = Gpu::of(&device).filter(|_| tokens > 0 && bytes > 0) else { return usual };
    let all: Vec<usize> = [usual].into_iter().chain(OTHERS.into_iter().filter(|&other| other != usual)).collect();
    let what = format!("threshold 1 of {dtype:?} [{}, {}], {tokens} tokens", weight.outputs(), weight.inputs());
    let names = all.iter().map(|cubes| format!("{cubes} cubes")).collect();
    let choice = choice::fastest(&gpu, &device, &what, names, || {
        let x = burn::tensor::Tensor::<Cuda, 2>::random(
            [tokens, weight.inputs()],
            Distribution::Normal(0.0, 1.0),
            (&device, dtype),
        );
        let x = x.into_primitive().tensor();
        let copies: Vec<_> = (0..choice::copies(bytes, choice::MOST_COPIES)).map(|_| weight.copied()).collect();
        let all = &all;
        Some(move |candidate: usize, call: usize| {
            drop(launch(x.clone(), &copies[call % copies.len()], MEDIAN, all[candidate]));
        })
    });
    all[choice.map_or(0, |choice| choice.best())]
}

/// At most four tokens, by this many cubes a multiprocessor.
fn launch(x: Tensor, weight: &ColumnWeight<Cuda>, threshold: f32, cubes: usize) -> Tensor {
    let (tokens, dtype) = (x.shape()[0], x.dtype);
    let vector = 16 / dtype.size();
    let stride = weight.stride() / vector;
    let processors = x.client.properties().hardware.num_streaming_multiprocessors;
    let processors = processors.map_or(PROCESSORS, |count| count as usize);
    let Grid { blocks, splits, inputs_per_split } = Grid::new(weight.inputs(), stride, processors * cubes);
    let shape = Shape::new([splits * tokens * weight.stride()]);
    let partial = empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, DType::F32);
    let shape = Shape::new([tokens, weight.outputs()]);
    let y = empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, dtype);
    let client = x.client.clone();
    let numbers = weight.tensor().into_primitive().tensor();
    // SAFETY: `weight` has rows of `stride` vectors for `inputs` inputs, and threads after a row end; splits
    // end at `inputs` and have at most `MOST_INPUTS` of them; `partial` has room for what every split writes.
    unsafe {
        threshold_columns::launch_unchecked::<CudaRuntime>(
            &client,
            CubeCount::Static(blocks as u32, splits as u32, 1),
            CubeDim::new_1d(THREADS),
            vector,
            x.into_array_arg(),
            numbers.into_array_arg(),
            partial.clone().into_array_arg(),
            threshold,
            weight.inputs() as u32,
            stride as u32,
            inputs_per_split as u32,
            tokens,
            vector,
            dtype.into(),
        );
    }
    // SAFETY: threads after the outputs read and write nothing; `partial` was written whole by the kernel before.
    unsafe {
        threshold_sum::launch_unchecked::<CudaRuntime>(
            &client,
            CubeCount::Static((weight.outputs() as u32).div_ceil(SUM_CUBE[0]), tokens as u32, 1),
            CubeDim::new_2d(SUM_CUBE[0], SUM_CUBE[1]),
            partial.into_array_arg(),
            y.clone().into_array_arg(),
            splits as u32,
            tokens as u32,
            weight.outputs() as u32,
            weight.stride() as u32,
            dtype.into(),
        );
    }
    y
}

/// How the work is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    /// Cubes along the outputs.
    blocks: usize,
    /// Cubes along the inputs.
    splits: usize,
    inputs_per_split: usize,
}

impl Grid {
    /// As many splits as give this many cubes, but none with too many or too few inputs.
    fn new(inputs: usize, vectors: usize, cubes: usize) -> Self {
        let blocks = vectors.div_ceil(THREADS as usize);
        let wanted = (cubes / blocks).max(1);
        let inputs_per_split = inputs.div_ceil(wanted).clamp(LEAST_INPUTS, MOST_INPUTS);
        Self { blocks, splits: inputs.div_ceil(inputs_per_split), inputs_per_split }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_fills_the_gpu_once() {
        // 11008 halves: eleven blocks of 1024, 96 splits wanted, of 43 inputs.
        let grid = Grid::new(4096, 11008 / 8, 8 * 132);
        assert_eq!(grid, Grid { blocks: 11, splits: 96, inputs_per_split: 43 });
        assert_eq!(grid.blocks * grid.splits, 8 * 132);
    }

    #[test]
    fn every_input_is_in_one_split() {
        for inputs in [1, 31, 32, 33, 512, 513, 768, 4096, 11008, 100_000] {
            for vectors in [1, 128, 129, 1376, 16_000, 1 << 20] {
                let Grid { blocks, splits, inputs_per_split } = Grid::new(inputs, vectors, 1056);
                assert!(blocks * THREADS as usize >= vectors && (blocks - 1) * (THREADS as usize) < vectors);
                assert!(splits * inputs_per_split >= inputs && (splits - 1) * inputs_per_split < inputs);
                assert!(inputs_per_split <= MOST_INPUTS && splits <= 65_535);
            }
        }
    }
}
