//! What calibration saw of the inputs of linears, as sums over tokens.
//!
//! ```text
//!   X [tokens, cols]    inputs, never stored
//!   squares [cols]      sum over tokens of x_j^2
//!   gram [cols, cols]   X^T X, whose diagonal is `squares`
//! ```

use super::Needs;

/// Sums over the inputs X `[tokens, cols]` of linears that read the same input.
#[derive(Debug)]
pub struct InputStatistics {
    tokens: usize,
    squares: Vec<f32>,
    gram: Option<Vec<f32>>,
}

impl InputStatistics {
    /// Takes the number of tokens, the sum of squares of every input feature `[cols]`, and, where methods need it,
    /// XᵀX `[cols, cols]`, symmetric.
    pub fn new(tokens: usize, squares: Vec<f32>, gram: Option<Vec<f32>>) -> Self {
        Self { tokens, squares, gram }
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
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Inputs whose features are mixtures of each other: a seeded X `[tokens, cols]`, and what is to be known of it.
    pub(in super::super) fn correlated(cols: usize, tokens: usize, seed: u64) -> InputStatistics {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
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
        InputStatistics::new(tokens, squares, Some(gram))
    }
}
