//! What a decoder does between its linears, on CUDA: a launch each, where Burn's operations take up to thirty.
//!
//! Every launch is unchecked. What makes it safe: tensors are made contiguous, their widths are whole
//! vectors (see [`lanes`]), units past a row's end do nothing, and positions and rows of a cache come from
//! [`Places`], whose tensors are as large as it says.

use super::attention::Attending;
use super::lanes::{Client, PLANE, burn, by_rows, client, flat, lanes, like, units};
use super::outputs::{self, array};
use super::raw::Gpu;
use super::raw::script::{self, Script};
use super::{Cuda, Tensor, by_hand};
use crate::execute::burn_ops;
use crate::execute::convert::Later;
use crate::execute::decode::{
    Activation, Column, DecodeOps, Likely, Norm, NormKind, Places, Projected, Recorded, Target, TimedLaunch, Turns,
};
use crate::execute::kernels::attention::Heads;
use crate::execute::kernels::cuda::argmax::arg_max_rows;
use crate::execute::kernels::cuda::gate::gate;
use crate::execute::kernels::cuda::norm::{NormForm, norm_rows};
use crate::execute::kernels::cuda::table::table_rows;
use crate::execute::stage;
use burn::tensor::Tensor as BurnTensor;
use burn::tensor::backend::Backend;
use burn_cubecl::kernel::into_contiguous;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::prelude::*;
use cubecl::server::Handle;

/// The most planes that share a row: 512 units, one load each of 4096 numbers of 16 bits.
const NORM_PLANES: usize = 16;
/// Units of a cube where elements are on their own.
const UNITS: usize = 256;
/// Planes that look through a row of logits.
const ARG_MAX_PLANES: usize = 32;

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

    fn likely(logits: BurnTensor<Self, 2>, targets: Vec<Target>) -> Later<Vec<Option<Likely>>> {
        let logits = flat(logits);
        by_hand::likely(&logits, &targets).unwrap_or_else(|| burn_ops::likely(burn(logits), &targets))
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
