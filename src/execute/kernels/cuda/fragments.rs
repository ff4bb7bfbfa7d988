//! What the kernels on tensor cores share: sums in registers, one product, and how a cube's sums become rows of
//! the output. See [`crate::sparse`]'s `fragments` for the order of weights.
//!
//! ```text
//!   a plane   16 rows x 64 or 128 columns a step, every `planes`th step of its row of tiles
//!   a cube    `planes` planes, whose sums are added in their order: no atomics, one result
//! ```

use cubecl::prelude::cmma::MmaDefinition;
use cubecl::prelude::*;

/// Sums of 16 rows and 8 tokens: two rows of four lanes each, two tokens a lane.
pub type Sums = Array<Vector<f32, Const<2>>>;

/// `count` blocks of sums, all zero.
#[cube]
pub fn zero_sums(#[comptime] count: usize) -> Sequence<Sums> {
    let mut all = Sequence::<Sums>::new();
    #[unroll]
    for _ in 0..count {
        let mut sums = Sums::new(2usize);
        sums[0] = Vector::new(0.0f32);
        sums[1] = Vector::new(0.0f32);
        all.push(sums);
    }
    all
}

/// Where each block's token begins in `x`, in eights of numbers. Tokens after the last read the last one's
/// inputs: their sums are not written.
#[cube]
pub fn token_starts(tokens: u32, eighths: u32, lane: u32, #[comptime] blocks: usize) -> Sequence<u32> {
    let mut starts = Sequence::<u32>::new();
    #[unroll]
    for block in 0..blocks {
        let token = lane / 4 + comptime!(8 * block as u32);
        starts.push(select(token < tokens, token, tokens - 1) * eighths + 2 * (lane % 4));
    }
    starts
}

/// A square of 16 x 16 weights times the inputs of eight tokens.
#[cube]
#[allow(clippy::too_many_arguments)]
pub fn multiply<F: Float>(a0: u32, a1: u32, a2: u32, a3: u32, b0: u32, b1: u32, sums: &mut Sums) {
    let mut a = Array::<Vector<F, Const<2>>>::new(4usize);
    a[0] = Vector::<F, Const<2>>::reinterpret(a0);
    a[1] = Vector::<F, Const<2>>::reinterpret(a1);
    a[2] = Vector::<F, Const<2>>::reinterpret(a2);
    a[3] = Vector::<F, Const<2>>::reinterpret(a3);
    let mut b = Array::<Vector<F, Const<2>>>::new(2usize);
    b[0] = Vector::<F, Const<2>>::reinterpret(b0);
    b[1] = Vector::<F, Const<2>>::reinterpret(b1);
    MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize).execute_inplace(&a, &b, sums);
}

/// Adds the planes' sums up in order and writes sixteen rows; the blocks of sums begin at `skip`.
#[cube]
#[allow(clippy::too_many_arguments)]
pub fn finish<F: Float>(
    all: &Sequence<Sums>,
    bias: &Array<F>,
    y: &mut Array<F>,
    row0: u32,
    rows: u32,
    tokens: u32,
    #[comptime] planes: u32,
    #[comptime] blocks: usize,
    #[comptime] skip: usize,
    #[comptime] has_bias: bool,
) {
    // [plane][token][row]
    let width = comptime!(blocks * 128);
    let mut shared = SharedMemory::<f32>::new(comptime!(planes as usize * width));
    let lane = UNIT_POS_X % 32;
    let plane = UNIT_POS_X / 32;
    let (row, token) = (lane / 4, 2 * (lane % 4));
    #[unroll]
    for block in 0..blocks {
        let sums = all.index(comptime!(skip + block));
        let at = plane as usize * width + comptime!(block * 128) + (token * 16 + row) as usize;
        shared[at] = sums[0][0];
        shared[at + 16] = sums[0][1];
        shared[at + 8] = sums[1][0];
        shared[at + 24] = sums[1][1];
    }
    sync_cube();
    let mut i = UNIT_POS_X;
    while i < comptime!(width as u32) {
        let (token, row) = (i / 16, row0 + i % 16);
        if token < tokens && row < rows {
            let mut sum = 0.0f32;
            #[unroll]
            for p in 0..planes {
                sum += shared[comptime!(p as usize * width) + i as usize];
            }
            if comptime!(has_bias) {
                sum += f32::cast_from(bias[row as usize]);
            }
            y[(token * rows + row) as usize] = F::cast_from(sum);
        }
        i += CUBE_DIM_X;
    }
}

/// Writes a lane's weights of four squares side by side: 16 columns of two rows of a dense matrix.
///
/// Those are 32 bytes a row, a sector of memory, in two stores. Neighbouring lanes swap halves, so that each store
/// fills sectors: first that of the even lane, then that of the odd one.
#[cube]
pub fn write_span(
    dense: &mut Array<Vector<u32, Const<4>>>,
    squares: &Array<Vector<u32, Const<4>>>,
    row: u32,
    rows: u32,
    at: u32,
    eighths: u32,
) {
    let odd = UNIT_POS_X % 2;
    #[unroll]
    for half in 0..2usize {
        let left = eight(squares[0], squares[1], half);
        let right = eight(squares[2], squares[3], half);
        let mut first = Vector::<u32, Const<4>>::empty();
        let mut second = Vector::<u32, Const<4>>::empty();
        #[unroll]
        for word in 0..4usize {
            let other = plane_shuffle_xor(select(odd == 1, left[word], right[word]), 1);
            first[word] = select(odd == 1, other, left[word]);
            second[word] = select(odd == 1, right[word], other);
        }
        if row + comptime!(8 * half as u32) < rows {
            // The even lane's sector begins two eights before the odd lane's.
            let line = (row + comptime!(8 * half as u32)) * eighths + at - odd;
            dense[line as usize] = first;
            dense[line as usize + 2] = second;
        }
    }
}

/// Eight neighbouring columns: a lane's pairs of two squares, of its upper or its lower row.
#[cube]
fn eight(left: Vector<u32, Const<4>>, right: Vector<u32, Const<4>>, #[comptime] half: usize) -> Vector<u32, Const<4>> {
    let mut eight = Vector::<u32, Const<4>>::empty();
    eight[0] = left[half];
    eight[1] = left[comptime!(half + 2)];
    eight[2] = right[half];
    eight[3] = right[comptime!(half + 2)];
    eight
}
