//! The Gram matrix XᵀX of the inputs of linears, or its diagonal alone, summed up batch after batch: what calibrated
//! pruning looks at.
//!
//! ```text
//!   X [tokens, cols] ── add ──> squares [cols]: sum of x_j^2        in f32, whatever X is made of
//!                          └──> gram [cols, cols]: XᵀX, where it is wanted
//!   host: kernels on borrowed numbers    device: tensor operations, the sums stay there
//! ```

use super::backend::SparseBackend;
use super::convert::{ReadError, host_numbers};
use super::kernels::cpu::{Gram, Simd, add_squares};
use burn::tensor::{DType, Tensor};

/// A Gram matrix, or its diagonal, on the way: batches are added in the order in which they come.
pub struct GramSums<B: SparseBackend> {
    tokens: usize,
    sums: Sums<B>,
    /// The first read that failed.
    failed: Option<ReadError>,
}

enum Sums<B: SparseBackend> {
    Host {
        squares: Vec<f32>,
        gram: Option<Gram>,
    },
    /// `[1, cols]` and `[cols, cols]`; none before the first batch.
    Device {
        squares: Option<Tensor<B, 2>>,
        gram: Option<Tensor<B, 2>>,
        wanted: bool,
    },
}

/// What [`GramSums`] come to, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct GramTotals {
    /// Tokens seen.
    pub tokens: usize,
    /// `[cols]`
    pub squares: Vec<f32>,
    /// `[cols, cols]`, symmetric; where it was wanted.
    pub gram: Option<Vec<f32>>,
}

impl<B: SparseBackend> GramSums<B> {
    /// Zeros, for inputs of this many columns.
    pub fn new(cols: usize, gram: bool) -> Self {
        let sums = match B::ON_HOST {
            true => Sums::Host { squares: vec![0.0; cols], gram: gram.then(|| Gram::new(cols)) },
            false => Sums::Device { squares: None, gram: None, wanted: gram },
        };
        Self { tokens: 0, sums, failed: None }
    }

    /// Whether products are summed up, beside squares.
    pub fn has_gram(&self) -> bool {
        match &self.sums {
            Sums::Host { gram, .. } => gram.is_some(),
            Sums::Device { wanted, .. } => *wanted,
        }
    }

    /// Adds a batch `[tokens, cols]`. Where that fails, [`GramSums::finish`] says so.
    pub fn add(&mut self, x: &Tensor<B, 2>) {
        let tokens = x.dims()[0];
        self.tokens += tokens;
        match &mut self.sums {
            Sums::Host { squares, gram } => {
                let x = x.clone().into_primitive().tensor();
                let (x, simd) = match B::host_f32(&x) {
                    Ok(x) => (x, Simd::detect()),
                    Err(error) => {
                        self.failed.get_or_insert(error);
                        return;
                    }
                };
                add_squares(squares, &x, tokens, simd);
                if let Some(gram) = gram {
                    gram.add(&x, tokens, simd);
                }
            }
            Sums::Device { squares, gram, wanted } => {
                let x = if x.dtype() == DType::F32 { x.clone() } else { x.clone().cast(DType::F32) };
                add(squares, x.clone().square().sum_dim(0));
                if *wanted {
                    add(gram, x.clone().transpose().matmul(x));
                }
            }
        }
    }

    /// Brings the sums to the host.
    ///
    /// # Errors
    /// When the device does not give them back.
    pub fn finish(self) -> Result<GramTotals, ReadError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let tokens = self.tokens;
        match self.sums {
            Sums::Host { squares, gram } => Ok(GramTotals { tokens, squares, gram: gram.map(Gram::into_matrix) }),
            Sums::Device { squares, gram, .. } => {
                let squares = squares.map(host_numbers).transpose()?.unwrap_or_default();
                Ok(GramTotals { tokens, squares, gram: gram.map(host_numbers).transpose()? })
            }
        }
    }
}

fn add<B: SparseBackend>(sum: &mut Option<Tensor<B, 2>>, more: Tensor<B, 2>) {
    *sum = Some(match sum.take() {
        Some(sum) => sum + more,
        None => more,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Flex, NdArray};
    use burn::tensor::TensorData;

    fn batch<B: SparseBackend>(tokens: usize, cols: usize, seed: usize) -> Tensor<B, 2> {
        let number = |i: usize| (((i + seed) * 7919) % 1013) as f32 / 506.0 - 1.0;
        let data = TensorData::new((0..tokens * cols).map(number).collect::<Vec<f32>>(), [tokens, cols]);
        Tensor::from_data(data, &Default::default())
    }

    fn totals<B: SparseBackend>(mut sums: GramSums<B>) -> GramTotals {
        for (tokens, seed) in [(50, 0), (7, 3), (130, 9)] {
            sums.add(&batch(tokens, 70, seed));
        }
        sums.finish().unwrap()
    }

    #[test]
    fn host_and_device_agree() {
        let on_device = Sums::<Flex>::Device { squares: None, gram: None, wanted: true };
        let device = totals(GramSums { tokens: 0, sums: on_device, failed: None });
        let host = totals(GramSums::<Flex>::new(70, true));
        assert_eq!(host, totals(GramSums::<NdArray<f32>>::new(70, true)));
        assert_eq!((host.tokens, device.tokens), (187, 187));
        let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(close(&host.squares, &device.squares));
        assert!(close(&host.gram.unwrap(), &device.gram.unwrap()));
    }

    #[test]
    fn squares_do_not_depend_on_what_else_is_wanted() {
        let (alone, both) = (totals(GramSums::<Flex>::new(70, false)), totals(GramSums::<Flex>::new(70, true)));
        assert_eq!((alone.gram, alone.squares), (None, both.squares));
    }

    #[test]
    fn a_read_that_failed_is_told_at_the_end() {
        for (tokens, gram) in [(0, false), (9, true)] {
            let mut sums = GramSums::<Flex>::new(70, gram);
            sums.add(&batch(tokens, 70, 1));
            sums.failed = Some(ReadError("the device is gone".into()));
            assert_eq!(sums.finish(), Err(ReadError("the device is gone".into())));
        }
    }
}
