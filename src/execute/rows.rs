//! Operations on rows that do not know of each other, on all threads: Burn's CPU backend runs most on one.
//!
//! ```text
//!   inputs [rows, ..] ── pieces of rows ──> operation on each, in parallel ──> outputs, put together again
//! ```
//!
//! A row's numbers are the same whatever the pieces are.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rayon::prelude::*;

/// Numbers of an input below which one thread is as fast.
const SERIAL_BELOW: usize = 1 << 16;
/// Rows of a piece, at least: views and copies of it cost little beside the operation.
const ROWS: usize = 16;

/// Runs `work` on pieces of rows; all inputs and outputs have the same rows.
pub(super) fn by_rows<B: Backend, const N: usize, const M: usize>(
    inputs: [Tensor<B, 2>; N],
    work: impl Fn([Tensor<B, 2>; N]) -> [Tensor<B, 2>; M] + Sync,
) -> [Tensor<B, 2>; M] {
    let [rows, cols] = inputs.first().map_or([0, 0], Tensor::dims);
    let threads = rayon::current_num_threads();
    if rows * cols < SERIAL_BELOW || threads == 1 || rows < 2 * ROWS {
        return work(inputs);
    }
    let piece = rows.div_ceil(4 * threads).max(ROWS);
    let of_piece = |start: usize| {
        let count = piece.min(rows - start);
        work(inputs.each_ref().map(|input| input.clone().narrow(0, start, count)))
    };
    let starts: Vec<usize> = (0..rows).step_by(piece).collect();
    let pieces: Vec<[Tensor<B, 2>; M]> = starts.into_par_iter().map(of_piece).collect();
    std::array::from_fn(|output| Tensor::cat(pieces.iter().map(|piece| piece[output].clone()).collect(), 0))
}

#[cfg(test)]
mod tests {
    use super::super::burn_ops;
    use super::super::decode::{Activation, DecodeOps, Norm, NormKind};
    use super::*;
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    fn numbers(rows: usize, cols: usize, seed: usize) -> Tensor<Flex, 2> {
        let number = |i: usize| (((i + seed) * 7919) % 1013) as f32 / 100.0 - 5.0;
        let data = TensorData::new((0..rows * cols).map(number).collect::<Vec<f32>>(), [rows, cols]);
        Tensor::from_data(data, &Default::default())
    }

    fn host(tensor: Tensor<Flex, 2>) -> Vec<f32> {
        tensor.into_data().into_vec().unwrap()
    }

    #[test]
    fn pieces_change_no_bit() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for (rows, cols) in [(1, 70_000), (33, 2048), (700, 192), (257, 576), (5, 3)] {
            let (x, y) = (|| numbers(rows, cols, 1), || numbers(rows, cols, 9));
            for function in [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
                let ours = pool.install(|| host(Flex::activate(function, x())));
                assert!(ours == host(burn_ops::activate(function, x())), "{function:?} {rows} {cols}");
                let ours = pool.install(|| host(Flex::gate(function, x(), y())));
                assert!(ours == host(burn_ops::activate(function, x()) * y()), "{function:?} {rows} {cols}");
            }
            let (gain, bias) = (numbers(1, cols, 4).flatten(0, 1), numbers(1, cols, 5).flatten(0, 1));
            for kind in [NormKind::Layer { eps: 1e-5 }, NormKind::Rms { eps: 1e-5 }] {
                let norm = Norm { kind, gain: &gain, bias: Some(&bias) };
                for added in [vec![], vec![y()], vec![y(), x()]] {
                    let ours = pool.install(|| Flex::norm(x(), added.clone(), norm).map(host));
                    assert!(ours == burn_ops::norm(x(), added, norm).map(host), "{kind:?} {rows} {cols}");
                }
            }
        }
    }
}
