//! Attention on CUDA: one token of each sequence or many, by hand or in CubeCL.
//!
//! ```text
//!   one token a sequence    decode.cu    16 bits, fewer than 2048 keys, plain scores; it places its key itself
//!                           CubeCL       else
//!   several                 place, then  flash.cu   16 bits, heads in whole sixteens
//!                                        CubeCL     else
//! ```
//! What makes the launches safe is said in decode.rs.

use super::lanes::{PLANE, burn, client, flat, lanes, like, units};
use super::outputs::array;
use super::raw::flash::Flash;
use super::{Cuda, Tensor, by_hand};
use crate::execute::decode::{Order, Places, Projected, Span, Turns};
use crate::execute::kernels::attention::Heads;
use crate::execute::kernels::cuda::attention::{AttentionForm, attend, gather, place};
use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{Int, Tensor as BurnTensor, TensorData};
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;

/// Planes of an attention where one token asks and where many do, which keep the device busy by their number.
const PLANES_FOR_ONE: usize = 16;
const PLANES_FOR_MANY: usize = 4;
/// Fewer keys than this are too few for `PLANES_FOR_ONE`: four are on their way in each of its groups.
const MANY_KEYS: usize = 128;
/// Keys are shared out among cubes from this many on: a second launch costs as much as reading about a thousand.
const SHARE_FROM: usize = 2048;
/// A cube's share has at least this many keys.
const LEAST_SHARE: usize = 512;
/// Cubes that keep a large device busy.
const CUBES: usize = 256;
/// Units of a cube where elements are on their own.
const UNITS: usize = 256;

/// The angles of each token `[tokens, pairs, 2]`, of sequences that are turned in different ways.
fn angles_of_tokens(turns: &Turns<Cuda>, places: &Places<Cuda>) -> Tensor {
    by_hand::otherwise();
    let of_sequence = |(sequence, span): (usize, &Span)| {
        let first = turns.start(sequence) + span.past;
        (first..first + span.new).map(|row| row as i32)
    };
    let rows: Vec<i32> = places.spans().iter().enumerate().flat_map(of_sequence).collect();
    let rows = BurnTensor::<Cuda, 1, Int>::from_data(TensorData::new(rows, [places.tokens()]), &turns.table.device());
    let width = 2 * turns.pairs;
    let table = turns.table.clone().reshape([turns.table.dims()[0] / width, width]);
    flat(table.select(0, rows))
}

/// What an attention is launched with.
pub(super) struct Attending {
    shape: Heads,
    form: AttentionForm,
    /// Keys that a token of this cache can come to see.
    room: usize,
    scale: f32,
    window: u32,
    head_rows: u32,
    tokens: usize,
    /// Keys that the token with the most sees, and those from its sequence's first on.
    seen: usize,
    longest: usize,
    qkv: [Tensor; 3],
    numbers: Tensor,
    turns: Tensor,
    kv: [Tensor; 2],
}

impl Attending {
    pub(super) fn new(
        shape: &Heads,
        projected: Projected<Cuda>,
        places: &Places<Cuda>,
        turns: Option<&Turns<Cuda>>,
        kv: &[BurnTensor<Cuda, 1>; 2],
    ) -> Self {
        let thrice = |all: BurnTensor<Cuda, 2>| {
            let all = flat(all);
            [all.clone(), all.clone(), all]
        };
        let (order, qkv) = match projected {
            Projected::Separate(each) => (Order::Separate, each.map(flat)),
            Projected::PerHead(all) => (Order::PerHead, thrice(all)),
            Projected::Stacked(all) => (Order::Stacked, thrice(all)),
        };
        let longest = places.spans().iter().map(|span| span.past + span.new).max().unwrap_or(0);
        let seen = shape.window.map_or(longest, |window| longest.min(window));
        let one = places.spans().iter().all(|span| span.new == 1);
        let pairs = turns.map_or(0, |turns| turns.pairs);
        let neighbours = turns.is_some_and(|turns| turns.neighbours);
        let lanes = lanes(&qkv[0], &[shape.head_dim]);
        let form = attention_form(shape, order, lanes, (pairs, neighbours), one.then_some(seen));
        let by_token = turns.is_some_and(|turns| turns.starts.is_some());
        let form = AttentionForm { by_token, ..form };
        let angles = |turns: &Turns<Cuda>| match by_token {
            true => angles_of_tokens(turns, places),
            false => turns.table.clone().into_primitive().tensor(),
        };
        let room = places.spans().iter().map(|span| span.capacity).max().unwrap_or(0);
        Self {
            shape: *shape,
            form,
            room: shape.window.map_or(room, |window| room.min(window)),
            scale: shape.scale,
            window: shape.window.map_or(u32::MAX, |window| window as u32),
            head_rows: places.head_rows() as u32,
            tokens: places.tokens(),
            seen,
            longest,
            // Without rotation nothing reads them.
            turns: turns.map_or_else(|| qkv[0].clone(), angles),
            qkv,
            numbers: places.numbers().clone().into_primitive(),
            kv: kv.each_ref().map(|kept| kept.clone().into_primitive().tensor()),
        }
    }

    /// In CUDA C++, where each sequence has one token, and not many keys, and scores are as they come.
    fn by_hand(&self) -> Option<Tensor> {
        let AttentionForm { capped, biased, neighbours, by_token, .. } = self.form;
        if capped || biased || neighbours || by_token || !self.form.places || self.seen >= SHARE_FROM {
            return None;
        }
        if self.room >= SHARE_FROM {
            // Later tokens are another kernel's.
            by_hand::otherwise();
        }
        let ([q, k, v], [keys, values]) = (&self.qkv, &self.kv);
        let form = [self.head_rows as usize, self.form.pairs as usize];
        let places = [&self.numbers, &self.turns];
        // SAFETY: see decode.rs.
        unsafe { by_hand::attend(&self.shape, self.form.order, self.tokens, form, [q, k, v], places, [keys, values]) }
    }

    /// By the tensor core, where sequences have many tokens, whose keys are placed.
    fn by_tiles(&self, biases: &Tensor) -> Option<Tensor> {
        let AttentionForm { order, pairs, neighbours, by_token, biased, .. } = self.form;
        let ([q, ..], [keys, values]) = (&self.qkv, &self.kv);
        let attend = by_hand::form(&self.shape, order, self.tokens, [self.head_rows as usize, pairs as usize]);
        let bias_keys = biased.then_some(self.longest);
        let form = Flash { attend, neighbours, by_token, cap: self.shape.cap, bias_keys };
        // SAFETY: see decode.rs; the steps are those of the order, and biases of as many keys as the longest sequence has.
        unsafe { by_hand::flash(form, q, [&self.numbers, &self.turns, biases], [keys, values]) }
    }

    pub(super) fn run(mut self) -> BurnTensor<Cuda, 2> {
        if let Some(out) = self.by_hand() {
            return burn(out);
        }
        by_hand::otherwise();
        let longest = if self.form.biased { self.longest } else { 0 };
        // Without biases nothing reads them.
        let biases = match self.form.biased {
            true => {
                let data = TensorData::new(self.shape.key_bias(longest), [self.shape.heads * longest]);
                Cuda::float_from_data(data, &self.qkv[0].device)
            }
            false => self.turns.clone(),
        };
        if !self.form.places {
            self.place();
            if let Some(out) = self.by_tiles(&biases) {
                return burn(out);
            }
        }
        let shares = if self.form.places { shares(self.tokens * self.form.heads as usize, self.seen) } else { 1 };
        self.form.shared = shares > 1;
        let dim = self.form.vectors as usize * self.form.lanes;
        let heads = self.form.heads as usize;
        let out = like(&self.qkv[0], [self.tokens, heads * dim]);
        let client = client(&out);
        // Without shares nothing is written there.
        let parts = match self.form.shared {
            true => client.empty(self.tokens * heads * shares * (dim + 2) * size_of::<f32>()),
            false => out.handle.clone(),
        };
        let part_count = self.tokens * heads * shares * (dim + 2);
        let dtype: StorageType = out.dtype.into();
        let [q, k, v] = self.qkv;
        let [keys, values] = self.kv;
        // SAFETY: see decode.rs; `out` and `parts` have room for every token, head and share.
        unsafe {
            attend::launch_unchecked::<CudaRuntime>(
                &client,
                CubeCount::Static(self.tokens as u32, self.form.heads, shares as u32),
                CubeDim::new_1d(self.form.planes * PLANE as u32),
                self.form.lanes,
                array(&q),
                array(&k),
                array(&v),
                array(&self.numbers),
                array(&self.turns),
                array(&biases),
                array(&keys),
                array(&values),
                array(&out),
                ArrayArg::from_raw_parts(parts.clone(), part_count),
                self.tokens as u32,
                self.head_rows,
                self.window,
                self.seen.div_ceil(shares) as u32,
                longest as u32,
                self.scale,
                self.shape.cap.unwrap_or(1.0),
                self.form,
                dtype,
            );
            if self.form.shared {
                gather::launch_unchecked::<CudaRuntime>(
                    &client,
                    CubeCount::Static((self.tokens * heads) as u32, 1, 1),
                    CubeDim::new_1d(units(dim, UNITS)),
                    ArrayArg::from_raw_parts(parts, part_count),
                    array(&out),
                    shares as u32,
                    dim as u32,
                    dtype,
                );
            }
        }
        burn(out)
    }

    fn place(&self) {
        let [_, k, v] = &self.qkv;
        let [keys, values] = &self.kv;
        let dim = self.form.vectors as usize * self.form.lanes;
        // SAFETY: see decode.rs.
        unsafe {
            place::launch_unchecked::<CudaRuntime>(
                &client(k),
                CubeCount::Static(self.tokens as u32, 1, 1),
                CubeDim::new_1d(units(self.form.kv_heads as usize * dim, UNITS)),
                array(k),
                array(v),
                array(&self.numbers),
                array(&self.turns),
                array(keys),
                array(values),
                self.tokens as u32,
                self.head_rows,
                self.form,
                k.dtype.into(),
            );
        }
    }
}

/// `one` has the keys that are seen where every sequence has one token.
fn attention_form(
    shape: &Heads,
    order: Order,
    lanes: usize,
    (pairs, neighbours): (usize, bool),
    one: Option<usize>,
) -> AttentionForm {
    let vectors = shape.head_dim / lanes;
    let group = vectors.next_power_of_two().min(PLANE);
    let planes = if one.is_some_and(|keys| keys >= MANY_KEYS) { PLANES_FOR_ONE } else { PLANES_FOR_MANY };
    AttentionForm {
        order,
        heads: shape.heads as u32,
        kv_heads: shape.kv_heads as u32,
        lanes,
        vectors: vectors as u32,
        group: group as u32,
        held: vectors.div_ceil(group),
        // The units of a cube load a query at once.
        planes: planes.max(vectors.div_ceil(PLANE)) as u32,
        pairs: pairs as u32,
        neighbours,
        capped: shape.cap.is_some(),
        biased: shape.alibi.is_some(),
        by_token: false,
        places: one.is_some(),
        shared: false,
    }
}

/// Among how many cubes the keys of a token and head are shared out.
fn shares(cubes: usize, keys: usize) -> usize {
    if keys < SHARE_FROM { 1 } else { (keys / LEAST_SHARE).min(CUBES / cubes).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cover_a_head_and_fit_a_plane() {
        for (head_dim, lanes) in [(128, 8), (128, 4), (80, 8), (96, 8), (6, 2), (7, 1), (256, 4), (512, 1)] {
            for one in [None, Some(5), Some(5000)] {
                let shape = Heads::new(4, 2, head_dim);
                let form = attention_form(&shape, Order::Separate, lanes, (0, false), one);
                assert!(form.group.is_power_of_two() && form.group as usize <= PLANE);
                assert!(form.group as usize * form.held >= form.vectors as usize);
                assert_eq!(form.vectors as usize * lanes, head_dim);
                assert!(form.planes as usize * PLANE >= form.vectors as usize && form.planes <= 32);
            }
        }
    }

    #[test]
    fn shares_leave_no_key_out_and_no_cube_idle() {
        for cubes in [1, 32, 100, 5000] {
            for keys in [1, 2047, 2048, 5001, 100_000] {
                let shares = shares(cubes, keys);
                assert!(shares >= 1 && shares * keys.div_ceil(shares) >= keys);
                assert!(shares == 1 || (keys / shares >= LEAST_SHARE && cubes * shares <= CUBES));
            }
        }
    }
}
