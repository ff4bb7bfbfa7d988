//! Every kernel on every instruction set against float64, at the edges.

use super::*;
use crate::sparse::{Pattern, Value};
use half::{bf16, f16};

fn random(i: usize, salt: u64) -> f32 {
    let h = (i as u64 + 1).wrapping_mul(salt | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (h >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

struct Case {
    rows: usize,
    cols: usize,
    tokens: usize,
    masked: Vec<f32>,
    pattern: Pattern,
    bias: Option<Vec<f32>>,
    x: Vec<f32>,
}

impl Case {
    fn new(rows: usize, cols: usize, tokens: usize, keep: impl Fn(usize) -> bool + Sync) -> Self {
        // Exact in bf16, so that one reference serves both.
        let weights: Vec<f32> = (0..rows * cols).map(|i| bf16::of(random(i, 11)).to_f32()).collect();
        let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| keep(i));
        let bias = (tokens % 2 == 1).then(|| (0..rows).map(|i| random(i, 5)).collect());
        let x = (0..=tokens * cols).map(|i| random(i, 3)).collect();
        Self { rows, cols, tokens, masked: pattern.apply(&weights), pattern, bias, x }
    }

    /// One float in front, so that x is not aligned to anything.
    fn x(&self) -> &[f32] {
        &self.x[1..]
    }

    fn assert_exact(&self, y: &[f32], kernel: &str) {
        assert_eq!(y.len(), self.tokens * self.rows);
        for token in 0..self.tokens {
            for row in 0..self.rows {
                let x = &self.x()[token * self.cols..][..self.cols];
                let products = self.masked[row * self.cols..][..self.cols].iter().zip(x);
                let products = products.map(|(&w, &x)| f64::from(w) * f64::from(x));
                let exact = self.bias.as_ref().map_or(0.0, |b| f64::from(b[row])) + products.clone().sum::<f64>();
                let scale = 1.0 + products.map(f64::abs).sum::<f64>();
                let got = f64::from(y[token * self.rows + row]);
                assert!(
                    (got - exact).abs() <= 1e-6 * scale,
                    "{kernel}, {} x {}, {} tokens: y[{token}][{row}] = {got}, exactly {exact}",
                    self.rows,
                    self.cols,
                    self.tokens
                );
            }
        }
    }

    fn check(&self) {
        let (x, bias, shape) = (self.x(), self.bias.as_deref(), [self.rows, self.cols]);
        let halves: Vec<bf16> = self.masked.iter().map(|&w| bf16::of(w)).collect();
        // Multiples of 2^-23 with 8 digits are exact in f16, too.
        let small: Vec<f16> = self.masked.iter().map(|&w| f16::of(w)).collect();
        for simd in Simd::available() {
            let y = dense_linear(&halves, shape, bias, x, self.tokens, simd);
            self.assert_exact(&y, &format!("bf16 {}", dense_kernel_name(self.tokens, simd)));
            // Numbers of 16 bits are widened exactly: the same sums in the same order.
            let wide = dense_linear(&self.masked, shape, bias, x, self.tokens, simd);
            self.assert_exact(&wide, &dense_kernel_name(self.tokens, simd));
            assert!(y == wide, "bf16 {}", dense_kernel_name(self.tokens, simd));
            let y = dense_linear(&small, shape, bias, x, self.tokens, simd);
            assert!(y == wide, "f16 {}", dense_kernel_name(self.tokens, simd));
        }
        for (matrix, name) in packed(&self.masked, &self.pattern) {
            assert_eq!(matrix.shape(), shape, "{name}");
            for simd in Simd::available() {
                let y = sparse_linear(&*matrix, bias, x, self.tokens, simd);
                self.assert_exact(&y, &format!("{name} {}", matrix.kernel(self.tokens, simd)));
            }
            let copy = matrix.copied();
            assert_eq!((copy.bytes(), copy.layout()), (matrix.bytes(), matrix.layout()), "{name}");
        }
    }
}

/// A matrix in every format there is, with f32 and with bf16 values.
fn packed(weights: &[f32], pattern: &Pattern) -> Vec<(Arc<dyn SparseKernels>, String)> {
    let here = Format::ALL.iter().filter(|word| word.value.row().cpu);
    let all = here.flat_map(|word| [(word.value, Values::F32), (word.value, Values::Bf16)]);
    let packed = |format, values| pack(format, weights, pattern, values).unwrap().expect("the table says that it has");
    all.map(|(format, values)| (packed(format, values), format!("{format} {values:?}"))).collect()
}

/// Some kept, row 2 of every 5 empty.
fn some(cols: usize) -> impl Fn(usize) -> bool + Sync {
    move |i| (i / cols.max(1)) % 5 != 2 && random(i, 99) > 0.2
}

#[test]
fn from_one_to_seventeen_tokens() {
    for tokens in 1..=17 {
        Case::new(37, 301, tokens, some(301)).check();
    }
}

#[test]
fn tiles_of_every_width_with_and_without_a_rest() {
    for tokens in [31, 32, 33, 64, 65, 130] {
        Case::new(33, 75, tokens, some(75)).check();
    }
}

/// A last tile that is narrower than the others gives what a whole one gives.
#[test]
fn a_token_has_the_same_sums_in_every_tile() {
    let (rows, cols) = (70, 300);
    for tokens in [65, 80, 81, 97, 130, 160] {
        let case = Case::new(rows, cols, tokens, some(cols));
        let whole = tokens.next_multiple_of(64);
        let mut padded = case.x().to_vec();
        padded.resize(whole * cols, 0.5);
        for simd in Simd::available() {
            let of = |x: &[f32], tokens| dense_linear(&case.masked, [rows, cols], None, x, tokens, simd);
            assert!(of(case.x(), tokens) == of(&padded, whole)[..tokens * rows], "{tokens} tokens, {}", simd.name());
        }
    }
}

#[test]
fn shapes_at_the_edges() {
    let shapes = [(0, 8), (8, 0), (1, 1), (1, 300), (300, 1), (16, 16), (17, 15), (129, 129), (8, 257), (130, 1100)];
    for (rows, cols) in shapes {
        for tokens in [0, 1, 2, 3, 5, 16, 20, 70] {
            Case::new(rows, cols, tokens, some(cols)).check();
        }
    }
}

#[test]
fn all_kept_and_none_kept() {
    for tokens in [1, 4, 16, 40] {
        Case::new(40, 300, tokens, |_| true).check();
        Case::new(40, 300, tokens, |_| false).check();
        // One weight in the last corner.
        Case::new(40, 300, tokens, |i| i == 40 * 300 - 1).check();
    }
}

#[test]
fn blocks_of_both_widths() {
    for tokens in [1, 9, 70] {
        // Few kept weights make blocks of 256 columns: the second has one column.
        Case::new(150, 257, tokens, |i| i % 11 == 0 || i % 257 == 256).check();
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (rows, cols) = (500, 700);
    for tokens in [1, 4, 16, 100] {
        let case = Case::new(rows, cols, tokens, some(cols));
        let all = packed(&case.masked, &case.pattern);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (x, simd) = (case.x(), Simd::detect());
            pool.install(|| {
                let sparse = all.iter().map(|(matrix, _)| sparse_linear(&**matrix, None, x, tokens, simd));
                let dense = dense_linear(&case.masked, [rows, cols], None, x, tokens, simd);
                sparse.chain([dense]).collect::<Vec<_>>()
            })
        };
        let one = run(1);
        for threads in [2, 5] {
            assert!(run(threads) == one, "{tokens} tokens, {threads} threads");
        }
    }
}
