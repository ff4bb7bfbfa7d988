//! The shape of an attention, and what is done with its scores before the softmax. Knows no numbers but slopes.

use half::bf16;

/// The shape of the attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// How many tokens back a token sees, itself included.
    pub window: Option<usize>,
    /// Multiplies scores.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub cap: Option<f32>,
    /// What scores grow by from key to key.
    pub alibi: Option<Alibi>,
}

impl Heads {
    /// Scores times `head_dim ^ -0.5`, and nothing else.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        let scale = 1.0 / (head_dim as f32).sqrt();
        Self { heads, kv_heads, head_dim, window: None, scale, cap: None, alibi: None }
    }

    /// What the scores of the first `keys` keys have added to them, head by head: `[heads, keys]`, or nothing.
    pub fn key_bias(&self, keys: usize) -> Vec<f32> {
        self.alibi.map(|alibi| alibi.bias(self.heads, keys, self.scale)).unwrap_or_default()
    }
}

/// Attention with linear biases (arXiv 2108.12409): a head's slope times the key's position is added to its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alibi {
    /// After the scores are scaled (BLOOM).
    Plain,
    /// Before, so that it is scaled too; slopes, positions and their products are rounded to bfloat16 (Falcon). Once: the
    /// `eager` attention of transformers 5.24 adds it a second time by its mask, its default, `sdpa`, does not.
    RoundedAndScaled,
}

impl Alibi {
    fn bias(self, heads: usize, keys: usize, scale: f32) -> Vec<f32> {
        let rounded = |number: f32| bf16::from_f32(number).to_f32();
        let slopes = slopes(heads);
        let bias = |slope: f32, key: usize| match self {
            Self::Plain => slope * key as f32,
            Self::RoundedAndScaled => rounded(rounded(slope) * rounded(key as f32)) * scale,
        };
        slopes.into_iter().flat_map(|slope| (0..keys).map(move |key| bias(slope, key))).collect()
    }
}

/// `2^(-8 / n * (1..=n))` for a power of two; for other numbers those of the next lower one, and then every other one
/// of twice as many.
fn slopes(heads: usize) -> Vec<f32> {
    let lower = 1 << heads.max(1).ilog2();
    let slope = |of: usize, place: usize| 2f64.powf(-8.0 / of as f64 * place as f64) as f32;
    let first = (1..=lower).map(|place| slope(lower, place));
    first.chain((0..).map(|extra| slope(2 * lower, 2 * extra + 1))).take(heads).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `build_alibi_tensor` of transformers 5.24 for 6 heads: 2^-2, 2^-4, 2^-6, 2^-8, and of 8 heads the first and third.
    #[test]
    fn slopes_of_heads_that_are_no_power_of_two() {
        assert_eq!(slopes(6), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
        assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        assert_eq!(slopes(1), [0.00390625]);
    }

    #[test]
    fn falcons_products_are_rounded_to_eight_bits() {
        let shape = Heads { alibi: Some(Alibi::RoundedAndScaled), scale: 0.5, ..Heads::new(2, 2, 4) };
        let bias = shape.key_bias(302);
        // 257 and 301 are no bfloat16: 256 and 300 or 302 are.
        assert_eq!((bias[257], bias[301]), (0.0625 * 256.0 * 0.5, 0.0625 * 300.0 * 0.5));
        let plain = Heads { alibi: Some(Alibi::Plain), ..shape }.key_bias(302);
        assert_eq!((plain[257], plain[302 + 257]), (0.0625 * 257.0, 0.00390625 * 257.0));
        assert!(Heads::new(2, 2, 4).key_bias(9).is_empty());
    }
}
