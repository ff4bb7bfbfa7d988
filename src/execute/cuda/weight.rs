//! Sparse weights on the device: which layout a format has there, and what is uploaded.
//!
//! ```text
//!   csr      for one token, and of f32       Groups     a lane reads 8 entries of a row at a time
//!            for more, of 16-bit numbers     Squares    entries of 16 x 16 squares, for tensor cores
//!   bitmap                                   BitTiles   masks in the order of tensor cores
//! ```

use super::{Cuda, Tensor, tensor_core};
use crate::config::format::{Format, OnCuda};
use crate::execute::backend::{PackError, Packing};
use crate::execute::convert::narrow;
use crate::sparse::{BitTiles, Groups, Pattern, Squares, StepBits};
use burn::tensor::Tensor as BurnTensor;
use burn::tensor::{DType, Element, Int, TensorData};
use cubecl::Runtime;
use cubecl::cuda::{CudaDevice, CudaRuntime};

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
/// added here is one struct, one arm of each `match`, and its launches in `linear.rs`.
#[derive(Clone, Debug)]
pub(super) enum Stored {
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

impl CudaWeight {
    /// Packs for the number of tokens that matters most.
    ///
    /// # Errors
    /// When the weights do not fit the format, or it has no kernels here.
    pub(super) fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&Tensor>,
        dtype: DType,
        tokens: usize,
        device: &CudaDevice,
    ) -> Result<Packing<Self>, PackError> {
        let by_squares = tokens > 1 && tensor_core(&CudaRuntime::client(device), dtype);
        let layout = format.row().cuda.ok_or(PackError::NoKernel { format, backend: "cuda" })?;
        let (stored, bytes, layout) = match layout {
            OnCuda::Csr if by_squares => squares(weights, pattern, dtype, device)?,
            OnCuda::Csr => groups(weights, pattern, dtype, device)?,
            OnCuda::Bitmap => tiles(weights, pattern, dtype, device)?,
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

type Uploaded = Result<(Stored, usize, &'static str), PackError>;

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
