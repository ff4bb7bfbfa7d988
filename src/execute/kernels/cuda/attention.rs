//! Causal attention over a cache of keys and values.
//!
//! ```text
//!   place     keys, rotated, and values of new tokens ──> cache          where several tokens of a sequence come
//!   attend    a cube a (token, head, share of the keys)                  one token: it places its key itself
//!   gather    shares ──> output                                          where keys were shared out
//!
//!   cache     [sequence][kv head][room][head_dim]; `places` tells where a token's sequence begins
//!
//!   plane     | group of lanes: a key | group: the next key | ..         16 bytes of it a lane, four keys on their way
//! ```
//!
//! Softmax is taken as the keys come (Milakov and Gimelshein, arXiv 1805.02867), by each group for its keys
//! in f32; groups, planes and shares are put together in a fixed order.

#![allow(clippy::collapsible_if, reason = "the outer one is decided when a kernel is compiled")]

use crate::execute::decode::Order;
use cubecl::prelude::*;

/// Lanes of a plane.
const PLANE: u32 = 32;
/// Below any score, and its difference to any score is a number.
const LEAST: f32 = -1e30;
/// Keys that a group has on their way.
const AHEAD: usize = 4;

/// What an attention is compiled for. A *vector* is what a lane loads at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionForm {
    /// How the projections lie.
    pub order: Order,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Numbers of a vector.
    pub lanes: usize,
    /// Vectors of a head.
    pub vectors: u32,
    /// Lanes of a group: a power of two.
    pub group: u32,
    /// Vectors that a lane has of a head: `group * held` are at least `vectors`.
    pub held: usize,
    /// Planes of a cube.
    pub planes: u32,
    /// Pairs of a head's features that are rotated.
    pub pairs: u32,
    /// Whether a pair is two neighbours, and not a feature of each half.
    pub neighbours: bool,
    /// Whether scores become `cap · tanh(score / cap)`.
    pub capped: bool,
    /// Whether a number for each head and key is added to the scores.
    pub biased: bool,
    /// Whether the angles are those of the tokens, and not of the positions.
    pub by_token: bool,
    /// Whether the cube places its token's key and value.
    pub places: bool,
    /// Whether the keys are shared out among cubes.
    pub shared: bool,
}

/// Where a head's part of a token begins; 0, 1, 2 are query, key, value. In units of a head's row.
#[cube]
fn row_of(token: u32, head: u32, #[comptime] part: u32, #[comptime] form: AttentionForm) -> u32 {
    let (heads, kv_heads) = (comptime!(form.heads), comptime!(form.kv_heads));
    let sharing = comptime!(heads / kv_heads);
    if comptime!(form.order == Order::Separate) {
        token * comptime!(if part == 0 { heads } else { kv_heads }) + head
    } else if comptime!(form.order == Order::PerHead) {
        let of_kv_heads = token * kv_heads * comptime!(sharing + 2);
        if comptime!(part == 0) {
            of_kv_heads + head / sharing * comptime!(sharing + 2) + head % sharing
        } else {
            of_kv_heads + head * comptime!(sharing + 2) + comptime!(sharing + part - 1)
        }
    } else {
        let before = comptime!(if part == 0 { 0 } else { heads + (part - 1) * kv_heads });
        token * comptime!(heads + 2 * kv_heads) + before + head
    }
}

/// Puts keys, rotated, and values where they are kept. A cube a token.
///
/// # Shapes
/// - `k`, `v`: as `form.order` says
/// - `places`: `[3, tokens]`: ids, positions, rows of the cache where the token's sequence begins
/// - `angles`: `[positions, pairs, 2]`, or `[tokens, pairs, 2]`: cosines and sines
/// - `keys`, `values`: rows of a head; from one head to the next there are `room` rows
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn place<F: Float>(
    k: &Array<F>,
    v: &Array<F>,
    places: &Array<i32>,
    angles: &Array<f32>,
    keys: &mut Array<F>,
    values: &mut Array<F>,
    tokens: u32,
    room: u32,
    #[comptime] form: AttentionForm,
    #[define(F)] _dtype: StorageType,
) {
    let token = CUBE_POS_X;
    let dim = comptime!(form.vectors * form.lanes as u32);
    let pairs = comptime!(form.pairs);
    let position = u32::cast_from(places[(tokens + token) as usize]);
    let turn = if comptime!(form.by_token) { token } else { position };
    let base = u32::cast_from(places[(2 * tokens + token) as usize]);
    let mut at = UNIT_POS_X;
    while at < comptime!(form.kv_heads * dim) {
        let (head, feature) = (at / dim, at % dim);
        let to = (base + head * room + position) * dim + feature;
        let from = row_of(token, head, 1u32, form) * dim;
        let mut number = f32::cast_from(k[(from + feature) as usize]);
        if comptime!(pairs > 0) {
            if feature < comptime!(2 * pairs) {
                let pair = pair_of(feature, form);
                let angle = ((turn * pairs + pair) * 2) as usize;
                let low = f32::cast_from(k[(from + low_of(pair, form)) as usize]);
                let high = f32::cast_from(k[(from + high_of(pair, form)) as usize]);
                number = turned(low, high, angles[angle], angles[angle + 1], feature == low_of(pair, form));
            }
        }
        keys[to as usize] = F::cast_from(number);
        values[to as usize] = v[(row_of(token, head, 2u32, form) * dim + feature) as usize];
        at += CUBE_DIM_X;
    }
}

/// The pair that a rotated feature is of, and the pair's two features.
#[cube]
fn pair_of(feature: u32, #[comptime] form: AttentionForm) -> u32 {
    if comptime!(form.neighbours) { feature / 2 } else { feature % comptime!(form.pairs) }
}

#[cube]
fn low_of(pair: u32, #[comptime] form: AttentionForm) -> u32 {
    if comptime!(form.neighbours) { pair * 2 } else { pair }
}

#[cube]
fn high_of(pair: u32, #[comptime] form: AttentionForm) -> u32 {
    if comptime!(form.neighbours) { pair * 2 + 1 } else { pair + comptime!(form.pairs) }
}

#[cube]
fn turned(low: f32, high: f32, cos: f32, sin: f32, lower: bool) -> f32 {
    select(lower, low * cos - high * sin, high * cos + low * sin)
}

/// A vector of a head that lies raw in `head`, rotated.
#[cube]
fn rotated<N: Size>(
    head: &SharedMemory<f32>,
    from: u32,
    vector: u32,
    angles: &Array<f32>,
    turn: u32,
    #[comptime] form: AttentionForm,
) -> Vector<f32, N> {
    let pairs = comptime!(form.pairs);
    let mut result = Vector::<f32, N>::empty();
    #[unroll]
    for lane in 0..form.lanes {
        let feature = vector * comptime!(form.lanes as u32) + comptime!(lane as u32);
        let mut number = head[(from + feature) as usize];
        if comptime!(pairs > 0) {
            if feature < comptime!(2 * pairs) {
                let pair = pair_of(feature, form);
                let angle = ((turn * pairs + pair) * 2) as usize;
                let low = head[(from + low_of(pair, form)) as usize];
                let high = head[(from + high_of(pair, form)) as usize];
                number = turned(low, high, angles[angle], angles[angle + 1], feature == low_of(pair, form));
            }
        }
        result[lane] = number;
    }
    result
}

/// What a token's query sees of its share of the keys. Cubes: `[tokens, heads, shares]`.
///
/// # Shapes
/// - `q`, `k`, `v`, `places`, `angles`, `keys`, `values`: as of [`place`]
/// - `biases`, if there are: `[heads, bias_keys]`, of the keys from the sequence's first on
/// - `out`: `[tokens, heads, head_dim]`
/// - `parts`, if keys are shared out: `[tokens, heads, shares, head_dim + 2]`: sums of values, the largest
///   score, the sum of weights
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn attend<F: Float, N: Size>(
    q: &Array<Vector<F, N>>,
    k: &Array<Vector<F, N>>,
    v: &Array<Vector<F, N>>,
    places: &Array<i32>,
    angles: &Array<f32>,
    biases: &Array<f32>,
    keys: &mut Array<Vector<F, N>>,
    values: &mut Array<Vector<F, N>>,
    out: &mut Array<F>,
    parts: &mut Array<f32>,
    tokens: u32,
    room: u32,
    window: u32,
    share: u32,
    bias_keys: u32,
    scale: f32,
    cap: f32,
    #[comptime] form: AttentionForm,
    #[define(F)] _dtype: StorageType,
) {
    let (token, head) = (CUBE_POS_X, CUBE_POS_Y);
    let vectors = comptime!(form.vectors);
    let dim = comptime!(form.vectors * form.lanes as u32);
    let kv_head = head / comptime!(form.heads / form.kv_heads);
    let position = u32::cast_from(places[(tokens + token) as usize]);
    let turn = if comptime!(form.by_token) { token } else { position };
    let base = u32::cast_from(places[(2 * tokens + token) as usize]) + kv_head * room;
    let end = position + 1;
    let begin = select(end > window, end - window, 0u32) + CUBE_POS_Z * share;
    let stop = select(begin + share < end, begin + share, end);

    // The query, and the token's own key, as they came.
    let mut raw = SharedMemory::<f32>::new(comptime!(2 * dim as usize));
    let mine = comptime!(form.places) && begin < end && stop == end;
    if UNIT_POS_X < vectors {
        let query = Vector::<f32, N>::cast_from(q[(row_of(token, head, 0u32, form) * vectors + UNIT_POS_X) as usize]);
        #[unroll]
        for lane in 0..form.lanes {
            raw[UNIT_POS_X as usize * form.lanes + lane] = query[lane];
        }
        if mine {
            let key =
                Vector::<f32, N>::cast_from(k[(row_of(token, kv_head, 1u32, form) * vectors + UNIT_POS_X) as usize]);
            #[unroll]
            for lane in 0..form.lanes {
                raw[dim as usize + UNIT_POS_X as usize * form.lanes + lane] = key[lane];
            }
        }
    }
    sync_cube();
    if mine && UNIT_POS_X < vectors {
        // The heads that share a key-value head all write it, the same numbers, and each reads its own.
        let to = ((base + position) * vectors + UNIT_POS_X) as usize;
        keys[to] = Vector::<F, N>::cast_from(rotated::<N>(&raw, dim, UNIT_POS_X, angles, turn, form));
        values[to] = v[(row_of(token, kv_head, 2u32, form) * vectors + UNIT_POS_X) as usize];
    }
    let (lane, group) = (UNIT_POS_X % comptime!(form.group), UNIT_POS_X / comptime!(form.group));
    let groups = comptime!(form.planes * PLANE / form.group);
    let mut query = Array::<Vector<f32, N>>::new(comptime!(form.held));
    let mut sums = Array::<Vector<f32, N>>::new(comptime!(form.held));
    #[unroll]
    for held in 0..form.held {
        let vector = lane + comptime!(held as u32 * form.group);
        query[held] = Vector::new(0.0f32);
        sums[held] = Vector::new(0.0f32);
        if vector < vectors {
            query[held] = rotated::<N>(&raw, 0u32, vector, angles, turn, form) * Vector::new(scale);
        }
    }
    sync_cube();

    let mut most = f32::new(LEAST);
    let mut weight = 0.0f32;
    let mut first = begin;
    while first < stop {
        let mut loaded_keys = Array::<Vector<F, N>>::new(comptime!(AHEAD * form.held));
        let mut loaded_values = Array::<Vector<F, N>>::new(comptime!(AHEAD * form.held));
        #[unroll]
        for ahead in 0..AHEAD {
            let key = first + group + comptime!(ahead as u32) * groups;
            let row = (base + select(key < stop, key, stop - 1)) * vectors;
            #[unroll]
            for held in 0..form.held {
                let vector = lane + comptime!(held as u32 * form.group);
                let at = (row + select(vector < vectors, vector, vectors - 1)) as usize;
                loaded_keys[comptime!(ahead * form.held + held)] = keys[at];
                loaded_values[comptime!(ahead * form.held + held)] = values[at];
            }
        }
        let mut scores = Array::<f32>::new(AHEAD);
        let mut now = most;
        #[unroll]
        for ahead in 0..AHEAD {
            let mut score = 0.0f32;
            #[unroll]
            for held in 0..form.held {
                let key = loaded_keys[comptime!(ahead * form.held + held)];
                let query = query[held];
                #[unroll]
                for number in 0..form.lanes {
                    score += f32::cast_from(key[number]) * query[number];
                }
            }
            score = group_sum(score, form.group);
            let key = first + group + comptime!(ahead as u32) * groups;
            if comptime!(form.biased) {
                score += biases[(head * bias_keys + select(key < stop, key, stop - 1)) as usize];
            }
            if comptime!(form.capped) {
                score = cap * f32::tanh(score / cap);
            }
            scores[ahead] = select(key < stop, score, f32::new(LEAST));
            now = max(now, scores[ahead]);
        }
        let fade = f32::exp(most - now);
        weight *= fade;
        #[unroll]
        for held in 0..form.held {
            sums[held] *= Vector::new(fade);
        }
        #[unroll]
        for ahead in 0..AHEAD {
            let key = first + group + comptime!(ahead as u32) * groups;
            let share = select(key < stop, f32::exp(scores[ahead] - now), 0.0f32);
            weight += share;
            #[unroll]
            for held in 0..form.held {
                sums[held] += Vector::<f32, N>::cast_from(loaded_values[comptime!(ahead * form.held + held)])
                    * Vector::new(share);
            }
        }
        most = now;
        first += comptime!(AHEAD as u32) * groups;
    }
    finish::<F, N>(&mut sums, most, weight, out, parts, form);
}

#[cube]
fn group_sum(number: f32, #[comptime] group: u32) -> f32 {
    let mut sum = number;
    #[unroll]
    for level in 0..5u32 {
        if comptime!(1u32 << level < group) {
            sum += plane_shuffle_xor(sum, comptime!(1u32 << level));
        }
    }
    sum
}

/// Puts a cube's groups together and writes what they saw.
#[cube]
fn finish<F: Float, N: Size>(
    sums: &mut Array<Vector<f32, N>>,
    most: f32,
    weight: f32,
    out: &mut Array<F>,
    parts: &mut Array<f32>,
    #[comptime] form: AttentionForm,
) {
    let dim = comptime!(form.vectors * form.lanes as u32);
    let planes = comptime!(form.planes);
    let mut largest = most;
    #[unroll]
    for level in 0..5u32 {
        if comptime!(1u32 << level >= form.group) {
            largest = max(largest, plane_shuffle_xor(largest, comptime!(1u32 << level)));
        }
    }
    let fade = f32::exp(most - largest);
    let mut total = weight * fade;
    #[unroll]
    for level in 0..5u32 {
        if comptime!(1u32 << level >= form.group) {
            total += plane_shuffle_xor(total, comptime!(1u32 << level));
        }
    }
    // [plane][head_dim + 2]
    let mut seen = SharedMemory::<f32>::new(comptime!((planes * (dim + 2)) as usize));
    let (lane, plane) = (UNIT_POS_X % PLANE, UNIT_POS_X / PLANE);
    let to = plane * comptime!(dim + 2);
    #[unroll]
    for held in 0..form.held {
        let vector = lane + comptime!(held as u32 * form.group);
        let faded = sums[held] * Vector::new(fade);
        #[unroll]
        for number in 0..form.lanes {
            let mut sum = faded[number];
            #[unroll]
            for level in 0..5u32 {
                if comptime!(1u32 << level >= form.group) {
                    sum += plane_shuffle_xor(sum, comptime!(1u32 << level));
                }
            }
            if lane < comptime!(form.group) && vector < comptime!(form.vectors) {
                seen[(to + vector * comptime!(form.lanes as u32) + comptime!(number as u32)) as usize] = sum;
            }
        }
    }
    if lane == 0 {
        seen[(to + dim) as usize] = largest;
        seen[(to + dim + 1) as usize] = total;
    }
    sync_cube();
    let mut largest = f32::new(LEAST);
    #[unroll]
    for plane in 0..planes {
        largest = max(largest, seen[comptime!((plane * (dim + 2) + dim) as usize)]);
    }
    let row = CUBE_POS_X * comptime!(form.heads) + CUBE_POS_Y;
    let mut feature = UNIT_POS_X;
    while feature < dim {
        let mut sum = 0.0f32;
        let mut total = 0.0f32;
        #[unroll]
        for plane in 0..planes {
            let fade = f32::exp(seen[comptime!((plane * (dim + 2) + dim) as usize)] - largest);
            sum += seen[(comptime!(plane * (dim + 2)) + feature) as usize] * fade;
            total += seen[comptime!((plane * (dim + 2) + dim + 1) as usize)] * fade;
        }
        if comptime!(form.shared) {
            let part = (row * CUBE_COUNT_Z + CUBE_POS_Z) * comptime!(dim + 2);
            parts[(part + feature) as usize] = sum;
            if feature == 0 {
                parts[(part + dim) as usize] = largest;
                parts[(part + dim + 1) as usize] = total;
            }
        } else {
            out[(row * dim + feature) as usize] = F::cast_from(sum / total);
        }
        feature += CUBE_DIM_X;
    }
}

/// Puts the shares of the keys together. A cube a row of `out`.
///
/// # Shapes
/// - `parts`: `[rows, shares, head_dim + 2]`
/// - `out`: `[rows, head_dim]`
#[cube(launch_unchecked)]
pub fn gather<F: Float>(
    parts: &Array<f32>,
    out: &mut Array<F>,
    shares: u32,
    #[comptime] dim: u32,
    #[define(F)] _dtype: StorageType,
) {
    let from = CUBE_POS_X * shares * comptime!(dim + 2);
    let mut largest = f32::new(LEAST);
    for share in 0..shares {
        largest = max(largest, parts[(from + share * comptime!(dim + 2) + dim) as usize]);
    }
    let mut feature = UNIT_POS_X;
    while feature < dim {
        let mut sum = 0.0f32;
        let mut total = 0.0f32;
        for share in 0..shares {
            let part = from + share * comptime!(dim + 2);
            let fade = f32::exp(parts[(part + dim) as usize] - largest);
            sum += parts[(part + feature) as usize] * fade;
            total += parts[(part + dim + 1) as usize] * fade;
        }
        out[(CUBE_POS_X * dim + feature) as usize] = F::cast_from(sum / total);
        feature += CUBE_DIM_X;
    }
}
