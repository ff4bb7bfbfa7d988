//! Causal attention on the CPU: scores, softmax and the weighted sum of values, without a matrix of
//! all scores.
//!
//! ```text
//!   a task: up to 64 rows of queries that share a key-value head, over tiles of 64 keys
//!
//!   rows [64, dim] ── · tile [dim, 64] ──> scores [64, 64] ── exp ──> weights ── · values [64, dim] ──> out [64, dim]
//!                      (keys, transposed)          largest score and sum so far, a row
//! ```
//!
//! Softmax is taken as the tiles come: a row's sums are scaled when a tile has a larger score
//! (Milakov and Gimelshein, arXiv 1805.02867). One or two rows, as in decoding, take dot products with
//! the keys as they lie. Tasks are independent and cut in the same places whatever the threads, so the
//! result does not depend on their number. It does depend on the instruction set, in the last bits.

use super::cpu::Simd;
use super::exp::exp;
pub use super::heads::{Alibi, Heads};
use rayon::prelude::*;

/// Keys of a tile.
const TILE: usize = 64;
/// Query rows of a task.
const ROWS: usize = 64;
/// Fewer rows than this take dot products: a transposed tile would cost more than it saves.
const TRANSPOSE_FROM: usize = 3;
/// Less work than this, in products, is done on the calling thread: some ten microseconds.
const PARALLEL_FROM: usize = 1 << 16;
const LANES: usize = 16;

/// A sequence whose last tokens ask.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// `[tokens, heads, head_dim]`
    pub queries: &'a [f32],
    /// `[kv_heads, capacity, head_dim]`, of which `past + tokens` are filled.
    pub keys: &'a [f32],
    /// As the keys.
    pub values: &'a [f32],
    /// Tokens before the first query.
    pub past: usize,
}

/// What the queries see, `[tokens, heads, head_dim]` of every sequence, end to end.
///
/// # Panics
/// When a slice is shorter than its shape, or the machine lacks the instruction set.
pub fn attention(shape: &Heads, sequences: &[Sequence<'_>], simd: Simd) -> Vec<f32> {
    assert!(simd.is_available(), "this machine has no {}", simd.name());
    let width = shape.heads * shape.head_dim;
    let tokens: usize = sequences.iter().map(|sequence| sequence.queries.len() / width).sum();
    let mut out = vec![0.0; tokens * width];
    let longest = sequences.iter().map(|sequence| sequence.past + sequence.queries.len() / width).max().unwrap_or(0);
    let bias = shape.key_bias(longest);
    let tasks = tasks(shape, sequences, &bias);
    let work: usize = tasks.iter().map(|task| task.rows * task.end * shape.head_dim).sum();
    let done: Vec<Vec<f32>> = match work < PARALLEL_FROM {
        true => tasks.iter().map(|task| task.run(simd)).collect(),
        false => tasks.par_iter().map(|task| task.run(simd)).collect(),
    };
    for (task, done) in tasks.iter().zip(&done) {
        let part = task.group * shape.head_dim;
        for (token, done) in done.chunks_exact(part).enumerate() {
            out[(task.first_token + token) * width + task.kv_head * part..][..part].copy_from_slice(done);
        }
    }
    out
}

/// Queries of some tokens in the heads that share a key-value head.
struct Task<'a> {
    /// The first query's place among the tokens of all sequences.
    first_token: usize,
    kv_head: usize,
    /// Query heads that share it.
    group: usize,
    dim: usize,
    window: Option<usize>,
    /// Rows: tokens × group.
    rows: usize,
    /// `[.., heads, head_dim]`, from this task's first row.
    queries: &'a [f32],
    /// From one token's queries to the next's.
    stride: usize,
    /// `[.., head_dim]` of the key-value head.
    keys: &'a [f32],
    values: &'a [f32],
    /// The position of the first query.
    position: usize,
    /// The keys that the last query sees end here.
    end: usize,
    scale: f32,
    cap: Option<f32>,
    /// `[group, keys]`, or empty.
    bias: &'a [f32],
}

fn tasks<'a>(shape: &Heads, sequences: &[Sequence<'a>], bias: &'a [f32]) -> Vec<Task<'a>> {
    let bias_of_head = bias.len() / shape.heads;
    let (dim, group) = (shape.head_dim, shape.heads / shape.kv_heads);
    let width = shape.heads * dim;
    let block = (ROWS / group).max(1);
    // Rows are multiplied four at a time: fewer are left over where their number is a multiple of it.
    let step = if group.is_multiple_of(4) { 1 } else { 4 / (1 + usize::from(group.is_multiple_of(2))) };
    let block = if block < step { block } else { block / step * step };
    let mut tasks = Vec::new();
    let mut first_token = 0;
    for sequence in sequences {
        let tokens = sequence.queries.len() / width;
        let head = sequence.keys.len() / shape.kv_heads;
        for kv_head in 0..shape.kv_heads {
            for start in (0..tokens).step_by(block) {
                let count = block.min(tokens - start);
                let position = sequence.past + start;
                tasks.push(Task {
                    first_token: first_token + start,
                    kv_head,
                    group,
                    dim,
                    window: shape.window,
                    rows: count * group,
                    queries: &sequence.queries[start * width + kv_head * group * dim..],
                    stride: width,
                    keys: &sequence.keys[kv_head * head..][..head],
                    values: &sequence.values[kv_head * head..][..head],
                    position,
                    end: position + count,
                    scale: shape.scale,
                    cap: shape.cap,
                    bias: &bias[kv_head * group * bias_of_head..][..group * bias_of_head],
                });
            }
        }
        first_token += tokens;
    }
    tasks
}

impl Task<'_> {
    /// `[rows, head_dim]`
    fn run(&self, simd: Simd) -> Vec<f32> {
        match simd {
            // SAFETY: `simd` comes from run-time detection.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => unsafe { attend_avx512(self) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => unsafe { attend_avx2(self) },
            _ => attend::<false, 8>(self),
        }
    }

    /// The rows' queries, scaled: `[rows, head_dim]`.
    fn scaled_queries(&self) -> Vec<f32> {
        let scale = self.scale;
        let tokens = self.queries.chunks(self.stride).take(self.rows / self.group);
        tokens.flat_map(|token| &token[..self.group * self.dim]).map(|query| query * scale).collect()
    }

    /// Caps a row's scores of the keys from `start`, and adds what belongs to the keys.
    #[inline(always)]
    fn adjust(&self, scores: &mut [f32; TILE], row: usize, start: usize) {
        if let Some(cap) = self.cap {
            scores.iter_mut().for_each(|score| *score = capped(*score, cap));
        }
        if !self.bias.is_empty() {
            let bias = self.bias.chunks_exact(self.bias.len() / self.group).nth(row % self.group).unwrap_or_default();
            scores.iter_mut().zip(&bias[start..]).for_each(|(score, bias)| *score += bias);
        }
    }

    /// The first and the end of the keys from `start` that a row sees.
    #[inline(always)]
    fn visible(&self, row: usize, start: usize) -> (usize, usize) {
        let end = self.position + row / self.group + 1;
        let first = self.window.map_or(0, |window| end.saturating_sub(window));
        (first.saturating_sub(start).min(TILE), end.saturating_sub(start).min(TILE))
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn attend_avx512(task: &Task<'_>) -> Vec<f32> {
    attend::<true, 64>(task)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn attend_avx2(task: &Task<'_>) -> Vec<f32> {
    attend::<true, 16>(task)
}

/// `cap * tanh(score / cap)`; NaN of what is not finite, so that it is not hidden.
#[inline(always)]
fn capped(score: f32, cap: f32) -> f32 {
    let x = score / cap;
    let small = exp(-2.0 * x.abs());
    // Near 0, `1 - small` would lose what the series has: its next term is below a rounding there.
    let square = x * x;
    let series = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0)));
    let tanh = if square < 0.004 { series } else { ((1.0 - small) / (1.0 + small)).copysign(x) };
    cap * tanh + score * 0.0
}

/// What a row has seen so far.
#[derive(Clone, Copy)]
struct Seen {
    /// The largest score.
    max: f32,
    /// The sum of exponentials of scores less `max`.
    sum: f32,
}

/// Inlined into functions that enable instruction sets; `FMA` where they have fused products.
#[inline(always)]
fn attend<const FMA: bool, const COLUMNS: usize>(task: &Task<'_>) -> Vec<f32> {
    let (rows, dim) = (task.rows, task.dim);
    let queries = task.scaled_queries();
    let mut out = vec![0.0; rows * dim];
    let mut scores = vec![[0.0f32; TILE]; rows];
    let mut seen = vec![Seen { max: f32::MIN, sum: 0.0 }; rows];
    let mut transposed = if rows < TRANSPOSE_FROM { Vec::new() } else { vec![[0.0f32; TILE]; dim] };
    let first = task.window.map_or(0, |window| (task.position + 1).saturating_sub(window));
    for start in (first / TILE * TILE..task.end).step_by(TILE) {
        let count = TILE.min(task.end - start);
        let keys = &task.keys[start * dim..(start + count) * dim];
        if transposed.is_empty() {
            for (scores, query) in scores.iter_mut().zip(queries.chunks_exact(dim)) {
                for (score, key) in scores.iter_mut().zip(keys.chunks_exact(dim)) {
                    *score = dot::<FMA>(query, key);
                }
            }
        } else {
            transpose(keys, dim, &mut transposed);
            let scores = scores.as_flattened_mut();
            scores.fill(0.0);
            add_product::<FMA, COLUMNS>(scores, TILE, &queries, dim, transposed.as_flattened(), dim);
        }
        for (row, ((scores, seen), out)) in scores.iter_mut().zip(&mut seen).zip(out.chunks_exact_mut(dim)).enumerate()
        {
            task.adjust(scores, row, start);
            let scale = weigh(scores, seen, task.visible(row, start));
            if scale != 1.0 {
                out.iter_mut().for_each(|out| *out *= scale);
            }
        }
        let values = &task.values[start * dim..(start + count) * dim];
        add_product::<FMA, COLUMNS>(&mut out, dim, scores.as_flattened(), TILE, values, count);
    }
    for (seen, out) in seen.iter().zip(out.chunks_exact_mut(dim)) {
        let scale = 1.0 / seen.sum;
        out.iter_mut().for_each(|out| *out *= scale);
    }
    out
}

/// Turns a row's scores into weights, 0 outside `first..end`; returns the factor for what came before.
///
/// A score that is NaN or infinite makes the sum NaN.
#[inline(always)]
fn weigh(scores: &mut [f32; TILE], seen: &mut Seen, (first, end): (usize, usize)) -> f32 {
    if first >= end {
        scores.fill(0.0);
        return 1.0;
    }
    // Hidden scores are small, not infinite: the arithmetic below is the same for all.
    scores[..first].fill(f32::MIN);
    scores[end..].fill(f32::MIN);
    let (chunks, _) = scores.as_chunks::<LANES>();
    let mut lanes = [f32::MIN; LANES];
    for chunk in chunks {
        for (lane, &score) in lanes.iter_mut().zip(chunk) {
            *lane = if score > *lane { score } else { *lane };
        }
    }
    let max = seen.max.max(fold(lanes, |a, b| if b > a { b } else { a }));
    for score in scores.iter_mut() {
        // 0, or NaN of what is not finite.
        let poison = *score * 0.0;
        *score = exp(*score - max) + poison;
    }
    scores[..first].fill(0.0);
    scores[end..].fill(0.0);
    let (chunks, _) = scores.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for chunk in chunks {
        for (lane, &weight) in lanes.iter_mut().zip(chunk) {
            *lane += weight;
        }
    }
    let scale = if seen.sum == 0.0 { 1.0 } else { exp(seen.max - max) };
    *seen = Seen { max, sum: seen.sum * scale + fold(lanes, |a, b| a + b) };
    scale
}

/// `[keys, dim]` → `[dim, TILE]`; what is after the last key stays.
#[inline(always)]
fn transpose(keys: &[f32], dim: usize, to: &mut [[f32; TILE]]) {
    /// Keys and features of a block that is turned in registers.
    const SIDE: usize = 8;
    let (whole_keys, whole_features) = (keys.len() / dim / SIDE * SIDE, dim / SIDE * SIDE);
    for first in (0..whole_keys).step_by(SIDE) {
        for feature in (0..whole_features).step_by(SIDE) {
            let block: [[f32; SIDE]; SIDE] = std::array::from_fn(|key| load(&keys[(first + key) * dim..], feature));
            for (turned, to) in to[feature..feature + SIDE].iter_mut().enumerate() {
                let column: [f32; SIDE] = std::array::from_fn(|key| block[key][turned]);
                to[first..first + SIDE].copy_from_slice(&column);
            }
        }
    }
    for (column, key) in keys.chunks_exact(dim).enumerate() {
        let first = if column < whole_keys { whole_features } else { 0 };
        for (row, &number) in to[first..].iter_mut().zip(&key[first..]) {
            row[column] = number;
        }
    }
}

#[inline(always)]
fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] = add::<FMA>(lanes[lane], a[lane], b[lane]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).fold(0.0, |sum, (&a, &b)| add::<FMA>(sum, a, b));
    fold(lanes, |a, b| a + b) + rest
}

/// Halves folded onto each other, which takes four steps instead of sixteen.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], both: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (low, &mut high) in low.iter_mut().zip(high) {
            *low = both(*low, high);
        }
        width /= 2;
    }
    lanes[0]
}

/// `sum + a * b`
#[inline(always)]
fn add<const FMA: bool>(sum: f32, a: f32, b: f32) -> f32 {
    // Without the instruction, `mul_add` would be a call.
    if FMA { a.mul_add(b, sum) } else { sum + a * b }
}

/// `sums [rows, width] += factors [rows, depth] · matrix [depth, width]`; rows of `factors` are `stride` apart.
///
/// Four rows by `LANES` columns stay in registers while the depth goes by.
#[inline(always)]
fn add_product<const FMA: bool, const LANES: usize>(
    sums: &mut [f32],
    width: usize,
    factors: &[f32],
    stride: usize,
    matrix: &[f32],
    depth: usize,
) {
    let whole = width / LANES * LANES;
    let mut fours = sums.chunks_exact_mut(4 * width);
    let mut factors_of_fours = factors.chunks_exact(4 * stride);
    for (sums, factors) in (&mut fours).zip(&mut factors_of_fours) {
        for column in (0..whole).step_by(LANES) {
            four_rows::<FMA, LANES>(sums, width, column, factors, stride, matrix, depth);
        }
        for (sums, factors) in sums.chunks_exact_mut(width).zip(factors.chunks_exact(stride)) {
            rest_of_row::<FMA>(sums, whole, factors, matrix, depth);
        }
    }
    let factors = factors_of_fours.remainder();
    for (sums, factors) in fours.into_remainder().chunks_exact_mut(width).zip(factors.chunks_exact(stride)) {
        for column in (0..whole).step_by(LANES) {
            one_row::<FMA, LANES>(sums, column, factors, matrix, depth);
        }
        rest_of_row::<FMA>(sums, whole, factors, matrix, depth);
    }
}

#[inline(always)]
fn four_rows<const FMA: bool, const LANES: usize>(
    sums: &mut [f32],
    width: usize,
    column: usize,
    factors: &[f32],
    stride: usize,
    matrix: &[f32],
    depth: usize,
) {
    let (a, rest) = sums.split_at_mut(width);
    let (b, rest) = rest.split_at_mut(width);
    let (c, d) = rest.split_at_mut(width);
    let (mut sum_a, mut sum_b) = (load::<LANES>(a, column), load::<LANES>(b, column));
    let (mut sum_c, mut sum_d) = (load::<LANES>(c, column), load::<LANES>(d, column));
    let rows = matrix.chunks_exact(width).take(depth);
    let (factors_a, rest) = factors.split_at(stride);
    let (factors_b, rest) = rest.split_at(stride);
    let (factors_c, factors_d) = rest.split_at(stride);
    let factors = factors_a.iter().zip(factors_b).zip(factors_c).zip(factors_d);
    for (row, (((&fa, &fb), &fc), &fd)) in rows.zip(factors) {
        let row = load::<LANES>(row, column);
        add_lanes::<FMA, LANES>(&mut sum_a, fa, &row);
        add_lanes::<FMA, LANES>(&mut sum_b, fb, &row);
        add_lanes::<FMA, LANES>(&mut sum_c, fc, &row);
        add_lanes::<FMA, LANES>(&mut sum_d, fd, &row);
    }
    for (to, sum) in [(a, sum_a), (b, sum_b), (c, sum_c), (d, sum_d)] {
        to[column..column + LANES].copy_from_slice(&sum);
    }
}

#[inline(always)]
fn one_row<const FMA: bool, const LANES: usize>(
    sums: &mut [f32],
    column: usize,
    factors: &[f32],
    matrix: &[f32],
    depth: usize,
) {
    let mut sum = load::<LANES>(sums, column);
    for (row, &factor) in matrix.chunks_exact(sums.len()).take(depth).zip(factors) {
        add_lanes::<FMA, LANES>(&mut sum, factor, &load::<LANES>(row, column));
    }
    sums[column..column + LANES].copy_from_slice(&sum);
}

/// The columns that fill no lanes.
#[inline(always)]
fn rest_of_row<const FMA: bool>(sums: &mut [f32], from: usize, factors: &[f32], matrix: &[f32], depth: usize) {
    let width = sums.len();
    if from == width {
        return;
    }
    for (row, &factor) in matrix.chunks_exact(width).take(depth).zip(factors) {
        for (sum, &number) in sums[from..].iter_mut().zip(&row[from..]) {
            *sum = add::<FMA>(*sum, factor, number);
        }
    }
}

#[inline(always)]
fn add_lanes<const FMA: bool, const LANES: usize>(sums: &mut [f32; LANES], factor: f32, row: &[f32; LANES]) {
    for (sum, &number) in sums.iter_mut().zip(row) {
        *sum = add::<FMA>(*sum, factor, number);
    }
}

#[inline(always)]
fn load<const LANES: usize>(row: &[f32], column: usize) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes.copy_from_slice(&row[column..column + LANES]);
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: usize, length: usize) -> Vec<f32> {
        let number = |i: usize| {
            let mut h = (seed * 1_000_003 + i) as u64 + 1;
            h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (h >> 40) as f32 / (1u64 << 22) as f32 - 2.0
        };
        (0..length).map(number).collect()
    }

    /// The definition, in f64.
    fn reference(shape: &Heads, sequence: &Sequence<'_>) -> Vec<f64> {
        let Heads { heads, kv_heads, head_dim, window, .. } = *shape;
        let tokens = sequence.queries.len() / heads / head_dim;
        let capacity = sequence.keys.len() / kv_heads / head_dim;
        let mut out = Vec::new();
        for token in 0..tokens {
            for head in 0..heads {
                let query = &sequence.queries[(token * heads + head) * head_dim..][..head_dim];
                let end = sequence.past + token + 1;
                let first = window.map_or(0, |window| end.saturating_sub(window));
                let row = |from: &'_ [f32], key: usize| -> Vec<f64> {
                    let start = (head / (heads / kv_heads) * capacity + key) * head_dim;
                    from[start..start + head_dim].iter().map(|&x| f64::from(x)).collect()
                };
                let score = |key| {
                    let products = row(sequence.keys, key).into_iter().zip(query).map(|(k, &q)| k * f64::from(q));
                    (products.sum::<f64>() / (head_dim as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (first..end).map(score).collect();
                let total: f64 = weights.iter().sum();
                for feature in 0..head_dim {
                    let seen = (first..end).zip(&weights).map(|(key, w)| w * row(sequence.values, key)[feature]);
                    out.push(seen.sum::<f64>() / total);
                }
            }
        }
        out
    }

    fn simds() -> Vec<Simd> {
        let mut simds = vec![Simd::Portable, Simd::detect()];
        if Simd::detect() == Simd::Avx512 {
            simds.push(Simd::Avx2);
        }
        simds
    }

    fn check(shape: Heads, tokens: usize, past: usize, capacity: usize) {
        let queries = random(1, tokens * shape.heads * shape.head_dim);
        let mut keys = random(2, shape.kv_heads * capacity * shape.head_dim);
        let values = random(3, keys.len());
        for head in keys.chunks_mut(capacity * shape.head_dim) {
            // What is after the last token must not matter.
            head[(past + tokens) * shape.head_dim..].fill(f32::NAN);
        }
        let sequence = Sequence { queries: &queries, keys: &keys, values: &values, past };
        let expected = reference(&shape, &sequence);
        for simd in simds() {
            let got = attention(&shape, &[sequence], simd);
            assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().zip(&expected) {
                let error = (f64::from(*got) - expected).abs();
                assert!(error < 2e-6, "{simd:?} {shape:?} {tokens} after {past}: {got} != {expected}");
            }
        }
    }

    #[test]
    fn matches_the_definition_in_float64() {
        for (heads, kv_heads, head_dim) in [(2, 2, 16), (6, 2, 20), (4, 1, 7), (3, 3, 64)] {
            for window in [None, Some(1), Some(5), Some(70)] {
                let shape = Heads { window, ..Heads::new(heads, kv_heads, head_dim) };
                for (tokens, past) in [(1, 0), (1, 64), (1, 130), (2, 63), (3, 61), (65, 0), (130, 3), (40, 100)] {
                    check(shape, tokens, past, past + tokens + 3);
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let shape = Heads::new(6, 3, 32);
        let (queries, keys, values) = (random(1, 200 * 6 * 32), random(2, 200 * 3 * 32), random(3, 200 * 3 * 32));
        let sequence = Sequence { queries: &queries, keys: &keys, values: &values, past: 0 };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| attention(&shape, &[sequence], Simd::detect()))
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        let shape = Heads::new(1, 1, 4);
        for bad in [f32::NAN, f32::INFINITY, 1e38] {
            let mut keys = random(2, 5 * 4);
            keys[4..8].fill(bad);
            let values = random(3, 5 * 4);
            for tokens in [1, 4] {
                let queries = vec![1e5; tokens * 4];
                let sequence = Sequence { queries: &queries, keys: &keys, values: &values, past: 5 - tokens };
                for simd in simds() {
                    let got = attention(&shape, &[sequence], simd);
                    assert!(got[got.len() - 4..].iter().all(|x| x.is_nan()), "{simd:?} {bad} {tokens}: {got:?}");
                }
            }
        }
    }
}
