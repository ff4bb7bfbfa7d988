//! What calibration saw of the inputs of linears: the Gram matrix of the tokens, or its diagonal.
//!
//! ```text
//!   X [tokens, cols]    inputs, never stored
//!   squares [cols]      sum over tokens of x_j^2: the diagonal, which is always known
//!   gram [cols, cols]   XᵀX, where a method needs it
//! ```
//!
//! Factors of the products are kept as long as the sums are, so that linears of the same input and points of
//! several sparsities and patterns share them.

use super::linalg::{self, NotPositiveDefinite};
use super::{Layer, Needs, PruneError};
use std::sync::{Arc, Mutex, PoisonError};

/// The Gram matrix of the inputs X `[tokens, cols]` of linears that read the same input, and what is made of it.
#[derive(Debug)]
pub struct GramStatistics {
    tokens: usize,
    squares: Vec<f32>,
    gram: Option<Vec<f32>>,
    /// Made when they are asked for.
    factors: Mutex<Vec<(Factor, Arc<Vec<f32>>)>>,
}

/// What is made of the products, and with which damping.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Factor {
    InverseRoot(f64),
    Proximal(f64),
}

impl GramStatistics {
    /// Takes the number of tokens, the sum of squares of every input feature `[cols]`, and, where methods need it,
    /// XᵀX `[cols, cols]`, symmetric.
    pub fn new(tokens: usize, squares: Vec<f32>, gram: Option<Vec<f32>>) -> Self {
        Self { tokens, squares, gram, factors: Mutex::default() }
    }

    /// Tokens seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.squares.len()
    }

    /// The sum of squares of every input feature.
    pub fn squares(&self) -> &[f32] {
        &self.squares
    }

    /// XᵀX, where it is known.
    pub fn gram(&self) -> Option<&[f32]> {
        self.gram.as_deref()
    }

    /// The most that a method may need for which it is enough.
    pub(super) fn holds(&self) -> Needs {
        let cols = self.cols();
        match &self.gram {
            Some(gram) if gram.len() == cols * cols => Needs::Gram,
            _ => Needs::Norms,
        }
    }

    /// Whether no input was infinite or no number: a sum of squares would be too.
    pub(super) fn are_finite(&self) -> bool {
        self.squares.iter().all(|sum| sum.is_finite())
    }

    /// The norm of every input feature.
    pub(super) fn norms(&self) -> Vec<f32> {
        self.squares.iter().map(|sum| sum.sqrt()).collect()
    }

    /// The upper Cholesky factor `[cols, cols]` of the inverse of the Hessian `2 X^T X / tokens`, of which an input
    /// that was always 0 is an axis of its own with the value 1, and whose diagonal has been raised by a share of
    /// its mean.
    pub(super) fn inverse_root(&self, damping: f64) -> Result<Arc<Vec<f32>>, NotPositiveDefinite> {
        self.factor(Factor::InverseRoot(damping), |gram| {
            let scale = 2.0 / self.tokens.max(1) as f32;
            linalg::inverse_root(self.damped(gram, damping, |value, _, _| value * scale), self.cols())
        })
    }

    /// `(A + 1)^-1` `[cols, cols]`, A being XᵀX of inputs scaled to norm 1, its diagonal raised by a share of its
    /// mean.
    pub(super) fn proximal(&self, damping: f64) -> Result<Arc<Vec<f32>>, NotPositiveDefinite> {
        let scales: Vec<f32> = self.norms().into_iter().map(|norm| if norm > 0.0 { 1.0 / norm } else { 0.0 }).collect();
        self.factor(Factor::Proximal(damping), |gram| {
            let mut a = self.damped(gram, damping, |value, row, col| value * scales[row] * scales[col]);
            a.iter_mut().step_by(self.cols() + 1).for_each(|diagonal| *diagonal += 1.0);
            linalg::inverse(a, self.cols())
        })
    }

    /// Why a layer can't be pruned.
    pub(super) fn not_positive_definite(&self, layer: &Layer<'_>, damping: f64) -> PruneError {
        PruneError::NotPositiveDefinite { layer: layer.name.into(), damping, tokens: self.tokens, cols: self.cols() }
    }

    /// The products with `scale` done to each, 1 for inputs that were always 0, and a share of the mean of the
    /// diagonal added to it.
    fn damped(&self, gram: &[f32], damping: f64, scale: impl Fn(f32, usize, usize) -> f32) -> Vec<f32> {
        let cols = self.cols();
        let mut matrix = Vec::with_capacity(gram.len());
        for (row, products) in gram.chunks(cols.max(1)).enumerate() {
            matrix.extend(products.iter().enumerate().map(|(col, &product)| scale(product, row, col)));
        }
        for col in (0..cols).filter(|&col| self.squares[col] == 0.0) {
            matrix[col * (cols + 1)] = 1.0;
        }
        let diagonal = matrix.iter().step_by(cols + 1);
        let mean = diagonal.map(|&value| f64::from(value)).sum::<f64>() / cols.max(1) as f64;
        matrix.iter_mut().step_by(cols + 1).for_each(|value| *value += (damping * mean) as f32);
        matrix
    }

    /// A factor, made at the first call. The lock is not held meanwhile: another thread of the pool that makes it
    /// could be waiting for the lock. At worst two make the same.
    fn factor(
        &self,
        key: Factor,
        make: impl FnOnce(&[f32]) -> Result<Vec<f32>, NotPositiveDefinite>,
    ) -> Result<Arc<Vec<f32>>, NotPositiveDefinite> {
        let known = || {
            let factors = self.factors.lock().unwrap_or_else(PoisonError::into_inner);
            factors.iter().find(|(made, _)| *made == key).map(|(_, factor)| factor.clone())
        };
        if let Some(factor) = known() {
            return Ok(factor);
        }
        let made = Arc::new(make(self.gram.as_deref().unwrap_or_default())?);
        self.factors.lock().unwrap_or_else(PoisonError::into_inner).push((key, made.clone()));
        Ok(made)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn factors_are_made_once_for_each_damping() {
        let inputs = correlated(8, 20, 1);
        let root = inputs.inverse_root(0.01).unwrap();
        assert!(Arc::ptr_eq(&root, &inputs.inverse_root(0.01).unwrap()));
        assert!(!Arc::ptr_eq(&root, &inputs.proximal(0.01).unwrap()));
        assert_ne!(root, inputs.inverse_root(0.02).unwrap());
        assert!(Arc::ptr_eq(&root, &inputs.inverse_root(0.01).unwrap()));
    }

    /// Seeded numbers from -1 to 1.
    pub(in super::super) fn noise(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    /// Inputs whose features are mixtures of each other: a seeded X `[tokens, cols]`, and what is to be known of it.
    pub(in super::super) fn correlated(cols: usize, tokens: usize, seed: u64) -> GramStatistics {
        let mut noise = noise(seed);
        let mut gram = vec![0.0f64; cols * cols];
        for _ in 0..tokens {
            let mut x: Vec<f32> = (0..cols).map(|col| noise() * (1.0 + (col % 7) as f32)).collect();
            for col in 1..cols {
                x[col] += 0.7 * x[col - 1];
            }
            for (row, a) in gram.chunks_mut(cols).zip(&x) {
                row.iter_mut().zip(&x).for_each(|(sum, b)| *sum += f64::from(a * b));
            }
        }
        let gram: Vec<f32> = gram.into_iter().map(|sum| sum as f32).collect();
        let squares = gram.iter().step_by(cols + 1).copied().collect();
        GramStatistics::new(tokens, squares, Some(gram))
    }
}
