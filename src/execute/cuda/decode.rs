//! What a decoder does between its linears, on CUDA: a launch each, where Burn's operations take up to thirty.
//!
//! Every launch is unchecked. What makes it safe: tensors are made contiguous, their widths are whole
//! vectors (see [`lanes`]), units past a row's end do nothing, and positions and rows of a cache come from
//! [`Places`], whose tensors are as large as it says.

use super::by_hand;
use super::outputs::{self, array};
use super::raw::Gpu;
use super::raw::script::{self, Script};
use super::{Cuda, Tensor};
use crate::execute::decode::{
    Activation, Column, DecodeOps, Norm, NormKind, Order, Places, Projected, Recorded, Span, TimedLaunch, Turns,
};
use crate::execute::kernels::attention::Heads;
use crate::execute::kernels::cuda::argmax::arg_max_rows;
use crate::execute::kernels::cuda::attention::{AttentionForm, attend, gather, place};
use crate::execute::kernels::cuda::gate::gate;
use crate::execute::kernels::cuda::norm::{NormForm, norm_rows};
use crate::execute::kernels::cuda::table::table_rows;
use crate::execute::stage;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{Int, Shape, Tensor as BurnTensor, TensorData, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::prelude::*;
use cubecl::server::Handle;

/// Lanes of a plane.
const PLANE: usize = 32;
/// Bytes that a lane loads at once.
const LOAD: usize = 16;
/// The most planes that share a row: 512 units, one load each of 4096 numbers of 16 bits.
const NORM_PLANES: usize = 16;
/// Units of a cube where elements are on their own.
const UNITS: usize = 256;
/// Planes that look through a row of logits.
const ARG_MAX_PLANES: usize = 32;
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

type Client = ComputeClient<CudaRuntime>;

impl DecodeOps for Cuda {
    fn table_rows(
        x: Option<BurnTensor<Self, 2>>,
        table: &BurnTensor<Self, 2>,
        places: &Places<Self>,
        column: Column,
        offset: usize,
    ) -> BurnTensor<Self, 2> {
        let table = by_rows(table.clone().into_primitive().tensor());
        let (width, stride) = (table.meta.shape()[1], table.meta.strides()[0]);
        let x = x.map(flat);
        let (numbers, from) = (places.numbers().clone().into_primitive(), places.column(column));
        // SAFETY: ids and positions are checked against the table by the decoder.
        let y = unsafe { by_hand::table_rows(x.as_ref(), &table, &numbers, places.tokens(), [stride, from, offset]) };
        if let Some(y) = y {
            return burn(y);
        }
        by_hand::otherwise();
        let lanes = lanes(&table, &[width, stride]);
        let y = like(&table, [places.tokens(), width]);
        let added = x.is_some();
        let x = x.unwrap_or_else(|| y.clone());
        // SAFETY: see the module; ids and positions are checked against the table by the decoder.
        unsafe {
            table_rows::launch_unchecked::<CudaRuntime>(
                &client(&y),
                CubeCount::Static(places.tokens() as u32, 1, 1),
                CubeDim::new_1d(units(width / lanes, UNITS)),
                lanes,
                array(&x),
                array(&table),
                array(&numbers),
                array(&y),
                (width / lanes) as u32,
                (stride / lanes) as u32,
                from as u32,
                offset as u32,
                added,
                y.dtype.into(),
            );
        }
        burn(y)
    }

    fn norm(x: BurnTensor<Self, 2>, added: Vec<BurnTensor<Self, 2>>, norm: Norm<'_, Self>) -> [BurnTensor<Self, 2>; 2] {
        let mut x = flat(x);
        let mut terms: Vec<Tensor> = added.into_iter().map(flat).collect();
        // More than two are added before: no decoder has them.
        while terms.len() > 2 {
            by_hand::otherwise();
            x = flat(burn(x) + burn(terms.remove(0)));
        }
        let [rows, width] = [x.meta.shape()[0], x.meta.shape()[1]];
        let gain = into_contiguous(norm.gain.clone().into_primitive().tensor());
        let bias = norm.bias.map(|bias| into_contiguous(bias.clone().into_primitive().tensor()));
        if let Some(both) = by_hand::norm(&x, &terms, norm.kind, &gain, bias.as_ref()) {
            return both.map(burn);
        }
        by_hand::otherwise();
        let form = norm_form(width, lanes(&x, &[width]), terms.len(), &norm);
        let normed = like(&x, [rows, width]);
        let sum = if terms.is_empty() { x.clone() } else { like(&x, [rows, width]) };
        let (NormKind::Layer { eps } | NormKind::Rms { eps }) = norm.kind;
        let bias = bias.unwrap_or_else(|| gain.clone());
        let term = |index: usize| array(terms.get(index).unwrap_or(&x));
        // SAFETY: see the module; a cube has its row, of `width` numbers in every array. Without terms,
        // `sum` is `x` and not written.
        unsafe {
            norm_rows::launch_unchecked::<CudaRuntime>(
                &client(&normed),
                CubeCount::Static(rows as u32, 1, 1),
                CubeDim::new_1d(form.planes * PLANE as u32),
                form.lanes,
                array(&x),
                term(0),
                term(1),
                array(&gain),
                array(&bias),
                array(&sum),
                array(&normed),
                (width / form.lanes) as u32,
                eps as f32,
                form,
                normed.dtype.into(),
            );
        }
        [burn(sum), burn(normed)]
    }

    fn activate(function: Activation, x: BurnTensor<Self, 2>) -> BurnTensor<Self, 2> {
        elements(function, flat(x), None)
    }

    fn gate(function: Activation, x: BurnTensor<Self, 2>, up: BurnTensor<Self, 2>) -> BurnTensor<Self, 2> {
        elements(function, flat(x), Some(flat(up)))
    }

    fn attend(
        shape: &Heads,
        projected: Projected<Self>,
        places: &Places<Self>,
        turns: Option<&Turns<Self>>,
        kv: &mut [BurnTensor<Self, 1>; 2],
    ) -> BurnTensor<Self, 2> {
        Attending::new(shape, projected, places, turns, kv).run()
    }

    fn arg_max(rows: BurnTensor<Self, 2>) -> Result<Vec<Option<u32>>, String> {
        let rows = flat(rows);
        let found = largest(&rows, None);
        read(&rows.client, &found)
    }

    fn record(
        device: &CudaDevice,
        places: &Places<Self>,
        work: impl FnOnce() -> BurnTensor<Self, 2>,
    ) -> Option<Box<dyn Recorded<Self>>> {
        let gpu = Gpu::of(device)?;
        // What comes is launched when nothing else runs: weights may then be read before a launch waits.
        Cuda::sync(device).ok()?;
        let ((logits, found), script) = script::record(&gpu, || {
            let logits = flat(work());
            let numbers = places.numbers().clone().into_primitive();
            let found = stage::within("arg_max".into(), || largest(&logits, Some(&numbers)));
            (logits, found)
        });
        let script = script?;
        Some(Box::new(Step { script, logits, found }))
    }
}

/// A token of each sequence, which is computed again and again.
struct Step {
    script: Script,
    logits: Tensor,
    /// As of [`largest`].
    found: Handle,
}

impl Recorded<Cuda> for Step {
    fn replay(&self) -> Result<Vec<Option<u32>>, String> {
        self.script.replay();
        self.largest()
    }

    fn place(&self, places: &Places<Cuda>, numbers: Vec<i32>) {
        self.script.write(&places.numbers().clone().into_primitive().handle, numbers);
    }

    fn largest(&self) -> Result<Vec<Option<u32>>, String> {
        read(&self.logits.client, &self.found)
    }

    fn logits(&self) -> BurnTensor<Cuda, 2> {
        burn(self.logits.clone())
    }

    fn timed(&self, places: &Places<Cuda>, numbers: &[i32], rounds: usize) -> Result<Vec<TimedLaunch>, String> {
        self.script.timed(rounds, &|| self.place(places, numbers.to_vec()))
    }
}

/// `[rows, 2]`: the place of the first largest of a row, and 1 if one is not finite. `places` become those of the tokens
/// that come after.
fn largest(rows: &Tensor, places: Option<&Tensor>) -> Handle {
    let [count, width] = [rows.meta.shape()[0], rows.meta.shape()[1]];
    let found = outputs::memory(&rows.client, rows.device.index, count * 2 * size_of::<u32>());
    // SAFETY: `found` has two numbers a row; the places are of as many tokens.
    if unsafe { by_hand::arg_max(rows, &found, places) } {
        return found;
    }
    by_hand::otherwise();
    let lanes = lanes(rows, &[width]);
    // SAFETY: see the module; `found` has two numbers a row.
    unsafe {
        arg_max_rows::launch_unchecked::<CudaRuntime>(
            &rows.client,
            CubeCount::Static(count as u32, 1, 1),
            CubeDim::new_1d((ARG_MAX_PLANES * PLANE) as u32),
            lanes,
            array(rows),
            ArrayArg::from_raw_parts(found.clone(), count * 2),
            (width / lanes) as u32,
            lanes,
            ARG_MAX_PLANES as u32,
            rows.dtype.into(),
        );
    }
    found
}

/// What [`largest`] found.
fn read(client: &Client, found: &Handle) -> Result<Vec<Option<u32>>, String> {
    let bytes = client.read_one(found.clone()).map_err(|error| format!("{error:?}"))?;
    let numbers: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(numbers.chunks_exact(2).map(|row| (row[1] == 0).then_some(row[0])).collect())
}

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
struct Attending {
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
    fn new(
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
        // SAFETY: see the module.
        unsafe { by_hand::attend(&self.shape, self.form.order, self.tokens, form, [q, k, v], places, [keys, values]) }
    }

    fn run(mut self) -> BurnTensor<Cuda, 2> {
        if let Some(out) = self.by_hand() {
            return burn(out);
        }
        by_hand::otherwise();
        if !self.form.places {
            self.place();
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
        let longest = if self.form.biased { self.longest } else { 0 };
        // Without biases nothing reads them.
        let biases = match self.form.biased {
            true => {
                let data = TensorData::new(self.shape.key_bias(longest), [heads * longest]);
                Cuda::float_from_data(data, &self.qkv[0].device)
            }
            false => self.turns.clone(),
        };
        let [q, k, v] = self.qkv;
        let [keys, values] = self.kv;
        // SAFETY: see the module; `out` and `parts` have room for every token, head and share.
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
        // SAFETY: see the module.
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

fn norm_form(width: usize, lanes: usize, added: usize, norm: &Norm<'_, Cuda>) -> NormForm {
    let vectors = width / lanes;
    let planes = vectors.div_ceil(PLANE).clamp(1, NORM_PLANES);
    NormForm {
        lanes,
        steps: vectors.div_ceil(planes * PLANE),
        planes: planes as u32,
        added: added as u32,
        centred: matches!(norm.kind, NormKind::Layer { .. }),
        biased: norm.bias.is_some(),
    }
}

fn elements(function: Activation, x: Tensor, up: Option<Tensor>) -> BurnTensor<Cuda, 2> {
    if let Some(y) = by_hand::gate(function, &x, up.as_ref()) {
        return burn(y);
    }
    by_hand::otherwise();
    let shape = [x.meta.shape()[0], x.meta.shape()[1]];
    let numbers = shape[0] * shape[1];
    let lanes = lanes(&x, &[numbers]);
    let y = like(&x, shape);
    let gated = up.is_some();
    let up = up.unwrap_or_else(|| x.clone());
    let vectors = numbers / lanes;
    // SAFETY: see the module; all arrays have `numbers` numbers.
    unsafe {
        gate::launch_unchecked::<CudaRuntime>(
            &client(&y),
            CubeCount::Static(vectors.div_ceil(UNITS) as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            lanes,
            array(&x),
            array(&up),
            array(&y),
            vectors as u32,
            lanes,
            function,
            gated,
            y.dtype.into(),
        );
    }
    burn(y)
}

/// Numbers that a lane loads at once, of which each of `counts` is a multiple.
fn lanes(tensor: &Tensor, counts: &[usize]) -> usize {
    let mut lanes = LOAD / tensor.dtype.size();
    while counts.iter().any(|count| !count.is_multiple_of(lanes)) {
        lanes /= 2;
    }
    lanes
}

/// Units for this many pieces of work: whole planes, `most` at most.
fn units(work: usize, most: usize) -> u32 {
    (work.div_ceil(PLANE) * PLANE).clamp(PLANE, most) as u32
}

fn client(tensor: &Tensor) -> Client {
    tensor.client.clone()
}

fn flat<const D: usize>(tensor: BurnTensor<Cuda, D>) -> Tensor {
    let tensor = tensor.into_primitive().tensor();
    if !tensor.is_contiguous() {
        by_hand::otherwise();
    }
    into_contiguous(tensor)
}

/// A matrix whose rows are contiguous, though there may be gaps between them.
fn by_rows(table: Tensor) -> Tensor {
    if table.meta.strides()[1] == 1 { table } else { into_contiguous(table) }
}

fn like(tensor: &Tensor, shape: [usize; 2]) -> Tensor {
    outputs::output(tensor, Shape::new(shape), tensor.dtype)
}

fn burn(tensor: Tensor) -> BurnTensor<Cuda, 2> {
    BurnTensor::from_primitive(TensorPrimitive::Float(tensor))
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
