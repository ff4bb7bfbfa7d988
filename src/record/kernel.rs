//! The numbers of kernel cells, and what follows from them.

use super::cell::Record;
use super::numbers::Numbers;
use crate::choice::Choice;
use crate::config::experiment::Dtype;
use crate::measure::{BackToBack, quantile};
use crate::plan::{CellId, KernelCell, Of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The numbers of a kernel cell, as measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelMeasured {
    /// Seconds of a call, in every timed sample, in order. On the host a sample is a call, with what it takes
    /// to start it; on a device many of them back to back, without.
    pub seconds: Vec<f64>,
    /// How calls were timed on a device.
    pub back_to_back: Option<BackToBack>,
    /// Copies of the weight that took turns.
    pub copies: usize,
    /// Weights that are kept; of `dense`, all; of `threshold`, those that an input above it meets, in the mean
    /// over the tokens.
    pub nonzero: u64,
    /// Bytes stored for a copy of the weight.
    pub weight_bytes: u64,
    /// Bytes of them that a call reads, where that is not all.
    pub read_bytes: Option<u64>,
    /// The threshold below which an input counts as zero, of `threshold`.
    pub threshold: Option<f32>,
    /// max |y − ref| / max |ref| against float64.
    pub max_rel_err: f64,
    /// The code path that ran.
    pub kernel: String,
    /// What `auto` measured to choose the form, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// Median seconds of the dense kernel, timed by the same process; none if that failed.
    pub dense_seconds: Option<f64>,
    /// Bytes that the device reads from memory in a second, at best.
    pub peak_bytes_per_s: f64,
    /// Multiplications and additions that it does in a second, at best.
    pub peak_flops_per_s: f64,
}

/// A kernel cell as reports see it.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelResult {
    /// The cell's name.
    pub id: CellId,
    /// What was timed.
    pub kernel: KernelCell,
    /// The numbers, of a finished cell.
    pub measured: Option<KernelMeasured>,
}

impl KernelResult {
    /// Of a record, if it is one of a kernel cell.
    pub fn of(record: &Record) -> Option<Self> {
        let kernel = KernelCell::of(&record.cell)?;
        let times = record
            .results
            .iter()
            .find_map(|part| if let Numbers::Times(times) = &part.result { Some((**times).clone()) } else { None });
        let measured = times.filter(|_| record.failure.is_none());
        Some(Self { id: record.id.clone(), kernel: kernel.clone(), measured })
    }

    /// The numbers with what they are numbers of, of a finished cell.
    pub fn timed(&self) -> Option<Timed<'_>> {
        self.measured.as_ref().map(|measured| Timed { cell: &self.kernel, measured })
    }
}

/// A finished kernel cell, and what follows from its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Timed<'a> {
    /// What was timed.
    pub cell: &'a KernelCell,
    /// As measured.
    pub measured: &'a KernelMeasured,
}

impl Timed<'_> {
    /// Median seconds of a call.
    pub fn median(&self) -> f64 {
        quantile(&self.measured.seconds, 0.5)
    }

    /// Seconds that 95 of 100 calls stay below.
    pub fn p95(&self) -> f64 {
        quantile(&self.measured.seconds, 0.95)
    }

    /// Seconds of the fastest call.
    pub fn min(&self) -> f64 {
        quantile(&self.measured.seconds, 0.0)
    }

    /// The share of weights that is zero; of `threshold`, of the input.
    pub fn sparsity(&self) -> f64 {
        let [out, inp] = self.cell.shape;
        1.0 - self.measured.nonzero as f64 / (out * inp) as f64
    }

    /// Bytes that a call moves at least: what it reads of the stored weight, the input and the output once each.
    pub fn bytes(&self) -> u64 {
        let [out, inp] = self.cell.shape;
        let number = if self.cell.dtype == Dtype::F32 { 4 } else { 2 };
        let weight = self.measured.read_bytes.unwrap_or(self.measured.weight_bytes);
        weight + ((out + inp) * self.cell.tokens) as u64 * number
    }

    /// Multiplications and additions of a call.
    pub fn flops(&self) -> f64 {
        2.0 * self.measured.nonzero as f64 * self.cell.tokens as f64
    }

    /// Billions of them in a second.
    pub fn gflops(&self) -> f64 {
        self.flops() / self.median() / 1e9
    }

    /// Billions of bytes moved in a second.
    pub fn gbps(&self) -> f64 {
        self.bytes() as f64 / self.median() / 1e9
    }

    /// The least time that memory and arithmetic of the device allow for this format, over the median.
    pub fn roofline_fraction(&self) -> f64 {
        let memory = self.bytes() as f64 / self.measured.peak_bytes_per_s;
        let arithmetic = self.flops() / self.measured.peak_flops_per_s;
        memory.max(arithmetic) / self.median()
    }

    /// The dense kernel's median over this one's.
    pub fn speedup(&self) -> Option<f64> {
        self.measured.dense_seconds.map(|dense| dense / self.median())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Format, KernelFormat};
    use crate::plan::Backend;

    #[test]
    fn what_follows_from_the_numbers() {
        let cell = KernelCell {
            backend: Backend::Flex,
            dtype: Dtype::F32,
            shape: [10, 20],
            tokens: 2,
            format: KernelFormat::Sparse(Format::Csr),
            sparsity: Some(0.75),
            seed: 0,
            warmup: 0,
            repeats: 3,
            given: Default::default(),
        };
        let measured = KernelMeasured {
            seconds: vec![3.0, 1.0, 2.0],
            back_to_back: None,
            copies: 1,
            nonzero: 50,
            weight_bytes: 1000,
            read_bytes: None,
            threshold: None,
            max_rel_err: 0.0,
            kernel: "csr".into(),
            choice: None,
            dense_seconds: Some(3.0),
            peak_bytes_per_s: 1240.0,
            peak_flops_per_s: 400.0,
        };
        let timed = Timed { cell: &cell, measured: &measured };
        assert_eq!((timed.median(), timed.min(), timed.sparsity()), (2.0, 1.0, 0.75));
        // 1000 of the weight, 4 * 2 * 20 of the input, 4 * 2 * 10 of the output.
        assert_eq!((timed.bytes(), timed.flops()), (1240, 200.0));
        assert_eq!((timed.gbps(), timed.gflops()), (620e-9, 100e-9));
        // Memory takes 1 s, arithmetic half of it.
        assert_eq!((timed.roofline_fraction(), timed.speedup()), (0.5, Some(1.5)));
        let part = KernelMeasured { read_bytes: Some(100), ..measured.clone() };
        assert_eq!(Timed { cell: &cell, measured: &part }.bytes(), 340);
    }
}
