//! The dense product of many tokens on CUDA: whether the kernel can be used, how the work is divided, the launches.
//! It does not know when another path is faster.

use super::Tensor;
use crate::execute::kernels::cuda::gemm::{self as kernel, STEP, Tile};
use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use cubecl::cuda::CudaRuntime;
use cubecl::cuda::install::cuda_path;
use cubecl::ir::features::{MmaConfig, Tma};
use cubecl::prelude::*;
use cubecl::zspace::shape;
use std::sync::OnceLock;

/// The name of the kernel.
pub(super) const NAME: &str = "dense-cube-gemm";
/// Multiprocessors of a GPU that does not say.
const PROCESSORS: u32 = 132;
/// The most parts that the columns are cut into.
const MOST_PARTS: u32 = 16;
/// Threads of a cube that adds parts.
const ADD_THREADS: u32 = 256;
/// Shared memory that barriers and alignment take, in bytes.
const SPARE: u32 = 2048;
/// Tiles of rows that a launch has room for.
const MOST_ROW_TILES: usize = 65_535;

/// `x . weight^T + bias`, none where the kernel can't be used: the caller takes another path.
///
/// # Shapes
/// `x` `[tokens, cols]`, `weight` `[rows, cols]` with rows in one piece, `bias` `[rows]`; the result `[tokens, rows]`.
pub(super) fn gemm(x: Tensor, weight: Tensor, bias: Option<&Tensor>) -> Option<Tensor> {
    let (client, device, dtype) = (x.client.clone(), x.device.clone(), x.dtype);
    let ([tokens, inputs], [rows, cols]) = (x.shape().dims(), weight.shape().dims());
    let fits = cols > 0 && cols.is_multiple_of(STEP as usize) && inputs == cols && weight.dtype == dtype;
    if !fits || !can(&client, dtype) {
        return None;
    }
    if tokens == 0 || rows == 0 {
        return Some(empty_device_contiguous_dtype(client, device, Shape::new([tokens, rows]), dtype));
    }
    let processors = client.properties().hardware.num_streaming_multiprocessors.unwrap_or(PROCESSORS);
    let (tile, parts) = tile_for(tokens, rows, cols, processors);
    let indexed = tokens.max(tile.tokens as usize).checked_mul(rows)?.checked_mul(parts as usize)?;
    if u32::try_from(indexed).is_err() || rows.div_ceil(tile.rows as usize) > MOST_ROW_TILES {
        return None;
    }
    let x = if mappable(&x) { x } else { into_contiguous(x) };
    (mappable(&x) && mappable(&weight)).then(|| launch(x, weight, bias.cloned(), tile, parts))
}

/// The tile, and the parts that the columns are cut into, of the least [`nanoseconds`].
pub(super) fn tile_for(tokens: usize, rows: usize, cols: usize, processors: u32) -> (Tile, u32) {
    let steps = (cols as u32 / STEP).max(1);
    let candidates = CANDIDATES.iter().flat_map(|candidate| {
        (1..=MOST_PARTS.min(steps)).map(move |wanted| {
            // No part is empty.
            let parts = steps.div_ceil(steps.div_ceil(wanted));
            (nanoseconds(candidate, parts, tokens, rows, steps, processors), candidate.tile, parts)
        })
    });
    let least = candidates.min_by_key(|&(time, ..)| time);
    least.map_or((SMALL.tile, 1), |(_, tile, parts)| (tile, parts))
}

/// A tile, and what it takes on an H200.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    tile: Tile,
    /// Cubes that a multiprocessor runs at once: what its shared memory has room for.
    cubes: u64,
    /// Nanoseconds to launch, to fill the ring and to write the tile.
    start: u64,
    /// Nanoseconds of a step, of as many cubes as a multiprocessor runs at once.
    step: u64,
}

// The tests have the times that `start` and `step` were fitted to.
const SMALL: Candidate = Candidate { tile: tile(128, 64, [2, 2]), cubes: 2, start: 5700, step: 1190 };
const MIDDLE: Candidate = Candidate { tile: tile(192, 128, [4, 2]), cubes: 1, start: 5400, step: 1030 };
const LARGE: Candidate = Candidate { tile: tile(128, 256, [2, 4]), cubes: 1, start: 8000, step: 1145 };
const CANDIDATES: [Candidate; 3] = [SMALL, MIDDLE, LARGE];
/// Nanoseconds to launch the kernel that adds parts.
const ADD: u64 = 3500;
/// Bytes of parts that are written and read in a nanosecond.
const ADD_BYTES: u64 = 4500;

const fn tile(rows: u32, tokens: u32, [planes_rows, planes_tokens]: [u32; 2]) -> Tile {
    Tile { rows, tokens, planes_rows, planes_tokens, stages: 4 }
}

/// Estimated time: every wave of cubes that the GPU runs at once takes its steps, then the parts are added.
fn nanoseconds(of: &Candidate, parts: u32, tokens: usize, rows: usize, steps: u32, processors: u32) -> u64 {
    let tiles = tokens.div_ceil(of.tile.tokens as usize) * rows.div_ceil(of.tile.rows as usize);
    let waves = (tiles as u64 * u64::from(parts)).div_ceil(u64::from(processors.max(1)) * of.cubes);
    let multiplied = of.start + waves * u64::from(steps.div_ceil(parts)) * of.step;
    match parts {
        1 => multiplied,
        _ => multiplied + ADD + (tokens * rows) as u64 * u64::from(parts) * 8 / ADD_BYTES,
    }
}

/// Whether the GPU has what the kernel needs, and its compiler the header.
pub(super) fn can(client: &ComputeClient<CudaRuntime>, dtype: DType) -> bool {
    static HEADER: OnceLock<bool> = OnceLock::new();
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return false;
    }
    let properties = client.properties();
    let (features, number) = (&properties.features, dtype.into());
    let product = MmaConfig { a_type: number, b_type: number, cd_type: DType::F32.into(), m: 16, n: 8, k: 16 };
    let shared = CANDIDATES.iter().map(|candidate| candidate.tile.shared_bytes()).max().unwrap_or(0);
    features.tma.contains(Tma::Base)
        && features.matmul.mma.contains(&product)
        && features.matmul.ldmatrix.contains(&number)
        && properties.hardware.max_shared_memory_size >= (shared + SPARE) as usize
        && *HEADER.get_or_init(has_barrier)
}

/// Whether the header of barriers is where CubeCL has its compiler look.
fn has_barrier() -> bool {
    let Some(include) = cuda_path().map(|path| path.join("include")) else { return false };
    ["cccl/cuda/barrier", "cuda/barrier"].iter().any(|header| include.join(header).exists())
}

/// Whether the copy engine can read a matrix: lines in one piece, which begin at multiples of 16 bytes.
fn mappable(matrix: &Tensor) -> bool {
    let (shape, strides) = (matrix.shape(), matrix.meta.strides());
    let begins = matrix.handle.offset_start.unwrap_or(0);
    strides[1] == 1
        && strides[0] >= shape[1]
        && (strides[0] * matrix.dtype.size()).is_multiple_of(16)
        && begins.is_multiple_of(16)
}

/// A map of a matrix for boxes of this many lines.
fn map(matrix: Tensor, lines: u32) -> TensorMapArg<CudaRuntime, Tiled> {
    let dtype: StorageType = matrix.dtype.into();
    let boxes = TiledArgs { tile_size: shape![lines as usize, STEP as usize] };
    TensorMapArg::new(boxes, matrix.into_tensor_arg(), dtype)
        .with_swizzle(TensorMapSwizzle::B128)
        .with_prefetch(TensorMapPrefetch::B256)
}

fn launch(x: Tensor, weight: Tensor, bias: Option<Tensor>, tile: Tile, parts: u32) -> Tensor {
    let (client, device, dtype) = (x.client.clone(), x.device.clone(), x.dtype);
    let (tokens, rows, steps) = (x.shape()[0], weight.shape()[0], weight.shape()[1] as u32 / STEP);
    let (split, has_bias, wide) = (parts > 1, bias.is_some(), rows.is_multiple_of(8));
    let empty = |shape, dtype| empty_device_contiguous_dtype(client.clone(), device.clone(), shape, dtype);
    let y = empty(Shape::new([tokens, rows]), dtype);
    let sums = empty(Shape::new([if split { parts as usize * tokens * rows } else { 1 }]), DType::F32);
    // A kernel without a bias reads nothing of what stands in its place.
    let bias = bias.unwrap_or_else(|| x.clone());
    let tiles = [(tokens as u32).div_ceil(tile.tokens), (rows as u32).div_ceil(tile.rows)];
    // SAFETY: maps end at the matrices' last lines, after which tiles are zeros; units write only tokens and rows
    // that `y` has, and `sums` for `parts` times as many; no part is empty, as `tile_for` gives them.
    unsafe {
        kernel::gemm::launch_unchecked::<CudaRuntime>(
            &client,
            CubeCount::Static(tiles[0], tiles[1], parts),
            CubeDim::new_1d(tile.units()),
            map(x, tile.tokens),
            map(weight, tile.rows),
            bias.clone().into_array_arg(),
            y.clone().into_array_arg(),
            sums.clone().into_array_arg(),
            rows as u32,
            tokens as u32,
            steps,
            steps.div_ceil(parts),
            tile,
            has_bias,
            split,
            wide,
            dtype.into(),
        );
    }
    if split {
        add_parts(sums, bias, &y, parts, has_bias);
    }
    y
}

/// `y` from the sums of its parts.
pub(super) fn add_parts(sums: Tensor, bias: Tensor, y: &Tensor, parts: u32, has_bias: bool) {
    let (tokens, rows) = (y.shape()[0], y.shape()[1]);
    let vector = if rows.is_multiple_of(4) { 4 } else { 1 };
    let outputs = (tokens * rows / vector) as u32;
    // SAFETY: units after the outputs end at once; `sums` holds `parts` times as many, and `vector` divides `rows`.
    unsafe {
        kernel::add_parts::launch_unchecked::<CudaRuntime>(
            &y.client,
            CubeCount::Static(outputs.div_ceil(ADD_THREADS), 1, 1),
            CubeDim::new_1d(ADD_THREADS),
            vector,
            sums.into_array_arg(),
            bias.into_array_arg(),
            y.clone().into_array_arg(),
            parts,
            (rows / vector) as u32,
            outputs,
            has_bias,
            y.dtype.into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::dense::matmul;
    use super::super::{Cuda, cuda_device};
    use super::*;
    use burn::tensor::ops::FloatTensorOps;
    use burn::tensor::{Distribution, Tensor as BurnTensor, TensorPrimitive};

    /// Tokens, rows, the tile, parts and microseconds on an H200, 4096 columns: the fastest of what was tried.
    const MEASURED: [(usize, usize, Candidate, u32, f64); 7] = [
        (64, 4096, SMALL, 8, 22.4),
        (64, 11008, SMALL, 3, 39.0),
        (128, 11008, MIDDLE, 2, 46.8),
        (256, 4096, MIDDLE, 3, 37.1),
        (256, 11008, MIDDLE, 1, 71.3),
        (1024, 4096, LARGE, 1, 81.3),
        (1024, 11008, LARGE, 1, 228.0),
    ];

    #[test]
    fn estimates_agree_with_measurements() {
        for (tokens, rows, candidate, parts, measured) in MEASURED {
            let estimated = nanoseconds(&candidate, parts, tokens, rows, 64, 132) as f64 / 1000.0;
            assert!((estimated / measured - 1.0).abs() < 0.03, "{tokens} {rows}: {estimated} for {measured}");
        }
    }

    #[test]
    fn the_fastest_of_what_was_measured_is_chosen() {
        for (tokens, rows, candidate, parts, _) in MEASURED {
            assert_eq!(tile_for(tokens, rows, 4096, 132), (candidate.tile, parts), "{tokens} {rows}");
        }
    }

    #[test]
    fn no_part_is_empty() {
        for (tokens, rows, cols) in [(1, 1, 64), (5, 100, 192), (64, 512, 11008), (64, 768, 3072), (300, 130, 832)] {
            for processors in [1, 16, 108, 132, 148] {
                let (_, parts) = tile_for(tokens, rows, cols, processors);
                let steps = cols as u32 / STEP;
                assert!((parts - 1) * steps.div_ceil(parts) < steps, "{cols} columns in {parts}");
                assert!(parts <= MOST_PARTS);
            }
        }
    }

    #[test]
    fn tiles_are_what_the_kernel_can_do() {
        for Candidate { tile, cubes, .. } in CANDIDATES {
            assert!(tile.rows <= 256 && tile.tokens <= 256 && tile.units() <= 1024);
            assert!((tile.rows / tile.planes_rows).is_multiple_of(16) && tile.rows.is_multiple_of(tile.planes_rows));
            assert!((tile.tokens / tile.planes_tokens).is_multiple_of(16));
            // The tile of `y` is staged where the ring was.
            assert!(2 * tile.tokens * (tile.rows + 8) <= tile.shared_bytes());
            // An H100 and an H200 have 228 KB a multiprocessor, of which each cube takes one more.
            assert!(cubes * u64::from(tile.shared_bytes() + SPARE + 1024) <= 228 * 1024);
        }
    }

    fn in_f32(tensor: Tensor) -> BurnTensor<Cuda, 2> {
        let tensor = BurnTensor::<Cuda, 2>::from_primitive(TensorPrimitive::Float(tensor));
        tensor.cast(DType::F32)
    }

    fn norm(tensor: BurnTensor<Cuda, 2>) -> f32 {
        (tensor.clone() * tensor).sum().into_scalar().sqrt()
    }

    /// The norm of the difference from Burn's product over the norm of that.
    fn error(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> f32 {
        let expected = in_f32(matmul(x.clone(), weight, bias));
        let product = || in_f32(gemm(x.clone(), weight.clone(), bias).expect("the kernel can be used"));
        let (y, again) = (product(), product());
        assert_eq!(y.to_data(), again.into_data(), "two runs give different numbers");
        norm(y - expected.clone()) / norm(expected)
    }

    #[test]
    #[ignore = "needs a GPU"]
    fn the_product_is_burns() {
        let device = cuda_device(0);
        for (dtype, limit) in [(DType::F16, 1e-3), (DType::BF16, 8e-3)] {
            let random = |shape: [usize; 2]| {
                let tensor = BurnTensor::<Cuda, 2>::random(shape, Distribution::Normal(0.0, 1.0), (&device, dtype));
                // Up and down, so that rows are as Burn loads them: not always in one piece.
                BurnTensor::<Cuda, 2>::from_data(tensor.into_data(), (&device, dtype)).into_primitive().tensor()
            };
            for (rows, cols) in [(1, 64), (100, 320), (130, 192), (512, 896), (4096, 4096), (11008, 4096)] {
                let weight = random([rows, cols]);
                let bias = Cuda::float_reshape(random([1, rows]), Shape::new([rows]));
                for tokens in [1, 5, 48, 64, 100, 128, 256, 300, 1025] {
                    let x = random([tokens, cols]);
                    for bias in [None, Some(&bias)] {
                        let error = error(&x, &weight, bias);
                        assert!(error < limit, "{dtype:?} {rows} x {cols}, {tokens} tokens: {error}");
                    }
                    let turned = Cuda::float_swap_dims(random([cols, tokens]), 0, 1);
                    assert!(error(&turned, &weight, None) < limit, "{dtype:?} {rows} x {cols}, {tokens} tokens turned");
                }
                let none =
                    empty_device_contiguous_dtype(weight.client.clone(), device.clone(), Shape::new([0, cols]), dtype);
                let none = gemm(none, weight, None).expect("the kernel can be used");
                assert_eq!(none.shape(), Shape::new([0, rows]));
            }
            assert!(gemm(random([64, 100]), random([128, 100]), None).is_none(), "100 columns");
        }
    }
}
