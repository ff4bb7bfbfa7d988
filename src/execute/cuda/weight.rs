//! Sparse weights on the device: which layout a format has there, and what is uploaded.
//!
//! ```text
//!   csr      for up to 4 tokens, or over 64  Delta      gaps of 4 bits, chunks of one size         CUDA C++
//!            elsewhere: for one, or of f32   Groups     a lane reads 8 entries of a row at a time
//!            for more, of 16-bit numbers     Squares    entries of 16 x 16 squares, for tensor cores
//!   bitmap   of 16-bit numbers               Octets     masks in the order of tensor cores         CUDA C++
//!                                                       where `auto` takes it for more than 16 tokens, in panels
//!            elsewhere                       BitTiles   masks in the order of tensor cores
//!   nm       of 16-bit numbers               TwoOfFour  two of every four, for sparse tensor cores  CUDA C++
//!            elsewhere                       none
//! ```
//! What is multiplied in CUDA C++ is packed only where those kernels can be used ([`super::raw`]).

use super::raw::Gpu;
use super::raw::delta::{self, DeltaArrays};
use super::raw::nm::{self, NmArrays};
use super::raw::octets::{self, OctetsArrays};
use super::raw::panels;
use super::{Cuda, Tensor, processors, tensor_core};
use crate::config::format::{Format, OnCuda};
use crate::execute::backend::{PackError, PackFor, Packing};
use crate::execute::convert::narrow;
use crate::sparse::{BitTiles, Delta, Groups, LaneOrder, Octets, Pattern, Squares, StepBits, TwoOfFour};
use burn::tensor::Tensor as BurnTensor;
use burn::tensor::{DType, Element, Int, TensorData};
use cubecl::Runtime;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use half::{bf16, f16};

/// The most tokens that squares are multiplied for as they are.
pub(super) const SQUARE_TOKENS: usize = 64;

/// A sparse weight and its bias on the device. Only made from formats of [`crate::sparse`], so that kernels need not
/// check indices.
#[derive(Clone, Debug)]
pub struct CudaWeight {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) dtype: DType,
    pub(super) bias: Option<Tensor>,
    pub(super) stored: Stored,
}

/// The arrays of a layout. A layout's launches take its own arrays, so that none can be launched on another's; what is
/// added here is one struct, one arm of each `match`, and its launches.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    Delta(DeltaArrays),
    Octets(OctetsArrays),
    Nm(NmArrays),
    Groups(GroupArrays),
    Squares(SquareArrays),
    Tiles(TileArrays),
}

/// Of [`Groups`].
#[derive(Clone, Debug)]
pub(super) struct GroupArrays {
    pub bits: StepBits,
    pub row_ptr: Tensor,
    pub bases: Tensor,
    pub steps: Tensor,
    pub values: Tensor,
}

/// Of [`Squares`].
#[derive(Clone, Debug)]
pub(super) struct SquareArrays {
    pub starts: Tensor,
    pub squares: Tensor,
    pub places: Tensor,
    pub values: Tensor,
    /// Chunks that a lane takes of the fullest tile.
    pub chunks: u32,
}

/// Of [`BitTiles`].
#[derive(Clone, Debug)]
pub(super) struct TileArrays {
    pub masks: Tensor,
    pub starts: Tensor,
    pub values: Tensor,
    /// Loads of eight values that a lane takes of the fullest tile.
    pub chunks: u32,
}

/// Weights of a multiprocessor from which on chunks of gaps are full but for a few.
const FULL_SHARE: usize = 16 << 10;

impl CudaWeight {
    /// Packs for the number of tokens that matters most; a bitmap is laid out for many only where layouts may mix.
    ///
    /// # Errors
    /// When the weights do not fit the format.
    pub(super) fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&Tensor>,
        dtype: DType,
        PackFor { tokens, mixes }: PackFor,
        device: &CudaDevice,
    ) -> Result<Packing<Self>, PackError> {
        let by_squares = tokens > 1 && tensor_core(&CudaRuntime::client(device), dtype);
        let gpu = if dtype.size() == 2 && pattern.rows() * pattern.cols() > 0 { Gpu::of(device) } else { None };
        // Beyond what squares are multiplied for, either is expanded, and gaps take less memory and one kernel.
        let by_gaps = gpu.as_ref().filter(|gpu| {
            let between = tokens > delta::MOST_TOKENS && tokens <= SQUARE_TOKENS;
            !between && delta::can(gpu, pattern.cols(), dtype)
        });
        let layout = format.row().cuda.ok_or(PackError::NoKernel { format, backend: "cuda" })?;
        let (stored, bytes, layout) = match layout {
            OnCuda::Csr if by_gaps.is_some() => gaps(weights, pattern, dtype, tokens, device)?,
            OnCuda::Csr if by_squares => squares(weights, pattern, dtype, device)?,
            OnCuda::Csr => groups(weights, pattern, dtype, device)?,
            OnCuda::Bitmap => {
                let tokens = if mixes { tokens } else { tokens.min(octets::FEW) };
                match gpu.map(|gpu| by_octets(weights, pattern, dtype, tokens, &gpu, device)).transpose()? {
                    Some(Some(uploaded)) => uploaded,
                    Some(None) | None => tiles(weights, pattern, dtype, device)?,
                }
            }
            OnCuda::Nm => match gpu.filter(|gpu| nm::can(gpu, pattern.rows(), tokens, dtype)) {
                Some(_) => pairs(weights, pattern, dtype, device)?,
                None => return Err(PackError::NoKernel { format, backend: "cuda" }),
            },
        };
        let packed = Self { rows: pattern.rows(), cols: pattern.cols(), dtype, bias: bias.cloned(), stored };
        Ok(Packing { packed, bytes, layout })
    }
}

impl CudaWeight {
    /// The same weight in memory of its own.
    pub(super) fn copied(&self) -> Self {
        let mut copy = self.clone();
        let arrays = match &mut copy.stored {
            Stored::Delta(arrays) => {
                arrays.settled = Default::default();
                vec![&mut arrays.values, &mut arrays.gaps, &mut arrays.heads, &mut arrays.bounds]
            }
            Stored::Octets(arrays) => {
                arrays.settled = Default::default();
                vec![&mut arrays.chunks, &mut arrays.starts]
            }
            Stored::Nm(arrays) => {
                arrays.settled = Default::default();
                vec![&mut arrays.units]
            }
            Stored::Groups(GroupArrays { row_ptr, bases, steps, values, .. }) => vec![row_ptr, bases, steps, values],
            Stored::Squares(SquareArrays { starts, squares, places, values, .. }) => {
                vec![starts, squares, places, values]
            }
            Stored::Tiles(TileArrays { masks, starts, values, .. }) => vec![masks, starts, values],
        };
        for array in arrays {
            *array = array.copy();
        }
        copy
    }
}

/// What is on the device, its bytes and the layout's name.
type OnDevice = (Stored, usize, &'static str);
type Uploaded = Result<OnDevice, PackError>;

fn gaps(weights: &[f32], pattern: &Pattern, dtype: DType, tokens: usize, device: &CudaDevice) -> Uploaded {
    let all = processors(&CudaRuntime::client(device));
    // Small matrices are cut up for every multiprocessor where few tokens are multiplied. Where they are expanded, which
    // takes little, chunks that are full count more.
    let busy = if tokens > SQUARE_TOKENS { (pattern.kept() / FULL_SHARE).clamp(1, all) } else { all };
    let delta = Delta::from_dense(weights, pattern, busy)?;
    let (cut, bytes) = (delta.cut(), delta.bytes(dtype.size()));
    let arrays = DeltaArrays {
        cut,
        values: floats(delta.values, dtype, device),
        gaps: ints(delta.gaps, DType::U32, device),
        heads: ints(delta.heads, DType::U32, device),
        bounds: ints(delta.bounds, DType::U16, device),
        settled: Default::default(),
    };
    Ok((Stored::Delta(arrays), bytes, "csr-delta-4"))
}

/// None where the kernel can't be used.
fn by_octets(
    weights: &[f32],
    pattern: &Pattern,
    dtype: DType,
    tokens: usize,
    gpu: &Gpu,
    device: &CudaDevice,
) -> Result<Option<OnDevice>, PackError> {
    let bits = to_bits(dtype);
    let rows = pattern.rows();
    let octets = match tokens {
        ..=octets::FEW => {
            let processors = processors(&CudaRuntime::client(device));
            let Some(bytes) = octets::chunk_bytes(gpu) else { return Ok(None) };
            Octets::from_dense(weights, pattern, processors, bytes, bits)?
        }
        _ => Octets::panels(weights, pattern, bits)?,
    };
    let (cut, bytes, most_bytes) = (octets.cut(), octets.bytes(), octets.most_bytes());
    let (can, layout) = match cut.order {
        LaneOrder::Eights => (octets::can(gpu, cut, most_bytes, dtype), "bitmap-octets"),
        LaneOrder::Pairs => {
            let tokens = tokens.min(panels::MOST_TOKENS);
            (panels::can(gpu, rows, most_bytes, cut.grain, dtype, tokens), "bitmap-panels")
        }
    };
    if !can {
        return Ok(None);
    }
    let arrays = OctetsArrays {
        cut,
        most_bytes,
        chunks: ints(octets.chunks, DType::U16, device),
        starts: ints(octets.starts, DType::U32, device),
        settled: Default::default(),
    };
    Ok(Some((Stored::Octets(arrays), bytes, layout)))
}

fn pairs(weights: &[f32], pattern: &Pattern, dtype: DType, device: &CudaDevice) -> Uploaded {
    let packed = TwoOfFour::from_dense(weights, pattern, to_bits(dtype))?;
    let bytes = packed.bytes();
    let arrays = NmArrays { units: ints(packed.units, DType::U32, device), settled: Default::default() };
    Ok((Stored::Nm(arrays), bytes, "nm-two-of-four"))
}

/// What gives a number's 16 bits.
fn to_bits(dtype: DType) -> impl Fn(f32) -> u16 + Sync {
    move |weight| match dtype {
        DType::BF16 => bf16::from_f32(weight).to_bits(),
        _ => f16::from_f32(weight).to_bits(),
    }
}

fn groups(weights: &[f32], pattern: &Pattern, dtype: DType, device: &CudaDevice) -> Uploaded {
    let groups = Groups::from_dense(weights, pattern, dtype.size())?;
    let (bits, bytes) = (groups.bits(), groups.bytes(dtype.size()));
    let layout = match bits {
        StepBits::Four => "csr-groups-4",
        StepBits::Eight => "csr-groups-8",
    };
    let stored = Stored::Groups(GroupArrays {
        bits,
        row_ptr: ints(groups.row_ptr, DType::U32, device),
        bases: ints(groups.bases, DType::U16, device),
        steps: ints(groups.steps, DType::U32, device),
        values: floats(groups.values, dtype, device),
    });
    Ok((stored, bytes, layout))
}

fn squares(weights: &[f32], pattern: &Pattern, dtype: DType, device: &CudaDevice) -> Uploaded {
    let squares = Squares::from_dense(weights, pattern)?;
    let (bytes, chunks) = (squares.bytes(dtype.size()), squares.most_chunks().div_ceil(32).max(1) as u32);
    let stored = Stored::Squares(SquareArrays {
        starts: ints(squares.starts, DType::U32, device),
        squares: ints(squares.squares, DType::U8, device),
        places: ints(squares.places, DType::U8, device),
        values: floats(squares.values, dtype, device),
        chunks,
    });
    Ok((stored, bytes, "csr-squares"))
}

fn tiles(weights: &[f32], pattern: &Pattern, dtype: DType, device: &CudaDevice) -> Uploaded {
    let tiles = BitTiles::from_dense(weights, pattern)?;
    let (bytes, chunks) = (tiles.bytes(dtype.size()), tiles.most_values().div_ceil(256).max(1) as u32);
    let stored = Stored::Tiles(TileArrays {
        masks: ints(tiles.masks, DType::U32, device),
        starts: ints(tiles.starts, DType::U32, device),
        values: floats(tiles.values, dtype, device),
        chunks,
    });
    Ok((stored, bytes, "bitmap-tiles"))
}

/// Numbers of one dimension; never none, since no kernel takes an empty array.
fn ints<E: Element + Default>(mut numbers: Vec<E>, dtype: DType, device: &CudaDevice) -> Tensor {
    if numbers.is_empty() {
        numbers.push(E::default());
    }
    let length = numbers.len();
    let data = TensorData::new(numbers, [length]);
    BurnTensor::<Cuda, 1, Int>::from_data(data, (device, dtype)).into_primitive()
}

fn floats(mut numbers: Vec<f32>, dtype: DType, device: &CudaDevice) -> Tensor {
    if numbers.is_empty() {
        numbers.push(0.0);
    }
    let length = numbers.len();
    let data = narrow(numbers.into(), [length], dtype);
    BurnTensor::<Cuda, 1>::from_data(data, (device, dtype)).into_primitive().tensor()
}
