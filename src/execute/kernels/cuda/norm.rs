//! Layer and RMS norms of rows, with the sums that precede them, in one pass over the rows.
//!
//! ```text
//!   a cube a row:  x (+ first (+ second)) ──> registers ──> mean, mean square ──> (· − mean) / deviation · gain + bias
//!                           │ rounded to F                    in f32                        rounded to F at each step
//!                           └──> sum
//! ```

use cubecl::prelude::*;

/// Lanes of a plane.
const PLANE: u32 = 32;

/// What a norm is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NormForm {
    /// Numbers of a vector.
    pub lanes: usize,
    /// Vectors that a unit holds.
    pub steps: usize,
    /// Planes of a cube.
    pub planes: u32,
    /// Arrays that are added to `x`: 0, 1 or 2.
    pub added: u32,
    /// Whether the mean is taken off: a layer norm.
    pub centred: bool,
    /// Whether there is a bias.
    pub biased: bool,
}

/// # Shapes
/// - `x`, `first`, `second`, `sum`, `normed`: rows of `vectors` vectors
/// - `gain`, `bias`: `vectors` vectors
///
/// Arrays that the form does not name are not touched.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn norm_rows<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    first: &Array<Vector<F, N>>,
    second: &Array<Vector<F, N>>,
    gain: &Array<Vector<F, N>>,
    bias: &Array<Vector<F, N>>,
    sum: &mut Array<Vector<F, N>>,
    normed: &mut Array<Vector<F, N>>,
    vectors: u32,
    eps: f32,
    #[comptime] form: NormForm,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS_X * vectors;
    let width = f32::cast_from(vectors * comptime!(form.lanes as u32));
    let mut held = Array::<Vector<f32, N>>::new(comptime!(form.steps));
    let mut total = 0.0f32;
    #[unroll]
    for step in 0..form.steps {
        let at = UNIT_POS_X + comptime!(step as u32) * CUBE_DIM_X;
        held[step] = Vector::new(0.0f32);
        if at < vectors {
            let mut numbers = x[(row + at) as usize];
            if comptime!(form.added > 0) {
                numbers += first[(row + at) as usize];
            }
            if comptime!(form.added > 1) {
                numbers += second[(row + at) as usize];
            }
            if comptime!(form.added > 0) {
                sum[(row + at) as usize] = numbers;
            }
            let wide = Vector::<f32, N>::cast_from(numbers);
            held[step] = wide;
            #[unroll]
            for lane in 0..form.lanes {
                if comptime!(form.centred) {
                    total += wide[lane];
                } else {
                    total += wide[lane] * wide[lane];
                }
            }
        }
    }
    // A slot a plane and sum: memory used twice would need one more wait.
    let mut slots = SharedMemory::<f32>::new(comptime!(2 * form.planes as usize));
    let mut mean = 0.0f32;
    let mut squares = cube_sum(total, &mut slots, 0u32, form.planes);
    if comptime!(form.centred) {
        mean = squares / width;
        let mut total = 0.0f32;
        #[unroll]
        for step in 0..form.steps {
            if UNIT_POS_X + comptime!(step as u32) * CUBE_DIM_X < vectors {
                #[unroll]
                for lane in 0..form.lanes {
                    let centred = held[step][lane] - mean;
                    total += centred * centred;
                }
            }
        }
        squares = cube_sum(total, &mut slots, form.planes, form.planes);
    }
    let deviation = f32::sqrt(squares / width + eps);
    #[unroll]
    for step in 0..form.steps {
        let at = UNIT_POS_X + comptime!(step as u32) * CUBE_DIM_X;
        if at < vectors {
            let gains = gain[at as usize];
            let mut y = Vector::<F, N>::empty();
            #[unroll]
            for lane in 0..form.lanes {
                let number = F::cast_from((held[step][lane] - mean) / deviation);
                let scaled = F::cast_from(f32::cast_from(number) * f32::cast_from(gains[lane]));
                if comptime!(form.biased) {
                    let biases = bias[at as usize];
                    y[lane] = F::cast_from(f32::cast_from(scaled) + f32::cast_from(biases[lane]));
                } else {
                    y[lane] = scaled;
                }
            }
            normed[(row + at) as usize] = y;
        }
    }
}

/// The sum over a cube by way of the slots from `from`, in the same order whatever runs first.
#[cube]
fn cube_sum(number: f32, slots: &mut SharedMemory<f32>, #[comptime] from: u32, #[comptime] planes: u32) -> f32 {
    let mut sum = plane_sum(number);
    let lane = UNIT_POS_X % PLANE;
    if lane == 0 {
        slots[(from + UNIT_POS_X / PLANE) as usize] = sum;
    }
    sync_cube();
    sum = 0.0f32;
    #[unroll]
    for plane in 0..planes {
        sum += slots[comptime!((from + plane) as usize)];
    }
    sum
}
