//! A cell's name: a hash of all that decides its result, and of nothing else.
//!
//! Not hashed: paths and names, the time, the host, the program's version. What the program's
//! arithmetic means is hashed as [`NUMERICS_VERSION`]. Where something is timed, what it is timed on is
//! hashed too.

use super::cell::{Cell, PrunePoint};
use super::kernel::{KernelCell, KernelInputs};
use crate::config::experiment::Metric;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt;

/// Raised by hand when results change although every parameter is the same.
pub const NUMERICS_VERSION: u32 = 3;

/// The name of a cell: 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CellId(String);

impl CellId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Digests of what a cell reads, 64 hexadecimal digits each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputDigests {
    /// Of the model's configuration and weights.
    pub model: String,
    /// Of the token ids of the texts of the agreement, which the gate uses too.
    pub agreement: String,
    /// Of the token ids of the perplexity windows, where perplexity is measured.
    pub perplexity: Option<String>,
    /// Of the token ids of the calibration windows that the cell's seed draws, where its method calibrates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<String>,
}

impl CellId {
    /// Names a cell.
    pub fn new(cell: &Cell, inputs: &InputDigests) -> Self {
        let perplexity = inputs.perplexity.as_ref().filter(|_| cell.metrics.contains(&Metric::Perplexity));
        let point = cell.prune.as_ref();
        // serde_json keeps the order in which keys are written here: the canonical form.
        let mut canonical = json!({
            "numerics": NUMERICS_VERSION,
            "model": inputs.model,
            "agreement": inputs.agreement,
            "perplexity": perplexity,
            "backend": cell.backend.name(),
            "dtype": cell.dtype.name(),
            "variant": cell.variant.name(),
            "prune": point.map(of_point),
            "seed": cell.seed,
            "metrics": cell.metrics.iter().map(|metric| metric.name()).collect::<Vec<_>>(),
        });
        // What does not calibrate keeps its name whatever the calibration text is.
        if let Some(calibration) = &inputs.calibration {
            canonical["calibration"] = calibration.as_str().into();
        }
        // What times nothing keeps its name wherever it runs.
        if let Some(latency) = cell.latency.as_ref().filter(|_| cell.metrics.contains(&Metric::Latency)) {
            canonical["latency"] = json!({
                "warmup": latency.warmup,
                "repeats": latency.repeats,
                "batch": latency.batch,
                "prompt": latency.prompt,
                "generate": latency.generate,
                "device": latency.timed_on.device,
                "threads": latency.timed_on.threads,
                "kernels": latency.timed_on.kernels,
            });
        }
        Self::of(&canonical)
    }

    /// Names a kernel cell. Its result is a time, so that the device counts.
    pub fn of_kernel(cell: &KernelCell, inputs: &KernelInputs) -> Self {
        let canonical = json!({
            "kernel_policy": inputs.kernel_policy,
            "device": inputs.device,
            "threads": inputs.threads,
            "backend": cell.backend.name(),
            "dtype": cell.dtype.name(),
            "shape": cell.shape,
            "tokens": cell.tokens,
            "format": cell.format.name(),
            "sparsity": cell.sparsity.map(bits),
            "seed": cell.seed,
            "warmup": cell.warmup,
            "repeats": cell.repeats,
        });
        Self::of(&canonical)
    }

    fn of(canonical: &serde_json::Value) -> Self {
        let digest = Sha256::digest(canonical.to_string().as_bytes());
        Self(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The canonical form of a prune point.
fn of_point(point: &PrunePoint) -> Value {
    let mut canonical = json!({
        "method": point.method.name(),
        "scope": point.scope.map(|scope| scope.name()),
        "pattern": point.pattern.to_string(),
        "sparsity": bits(point.sparsity),
        "exclude": point.exclude,
    });
    // Only what the method uses: the names of points from before it existed stay.
    let mut add = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            canonical[key] = value;
        }
    };
    add("damping", point.damping.map(|damping| bits(damping).into()));
    add("blocksize", point.blocksize.map(Value::from));
    add("iterations", point.iterations.map(Value::from));
    add("alpha", point.alpha.map(|alpha| bits(alpha).into()));
    add("budget", point.budget.map(|owl| json!({ "m": bits(owl.m), "lambda": bits(owl.lambda) })));
    add("propagate", point.propagate.map(|propagate| propagate.name().into()));
    canonical
}

/// The bits of a number: 0.3 and 0.30000000000000004 prune different weights.
fn bits(number: f64) -> String {
    format!("{:016x}", number.to_bits())
}

#[cfg(test)]
mod tests {
    use super::super::cell::LatencyPoint;
    use super::super::cell::tests::{calibrated, cell, latency};
    use super::*;
    use crate::config::experiment::{Format, Owl, Propagate, Variant};

    fn inputs() -> InputDigests {
        InputDigests { model: "m".into(), agreement: "a".into(), perplexity: Some("p".into()), calibration: None }
    }

    #[test]
    fn the_canonical_form_is_pinned() {
        // A change here makes every stored cell unknown: raise NUMERICS_VERSION only if results change.
        assert_eq!(CellId::new(&cell(0.3, Variant::Sparse(Format::Csr)), &inputs()).as_str(), "aa1aac950c25ff64");
    }

    #[test]
    fn everything_that_decides_a_result_changes_the_name() {
        let base = cell(0.3, Variant::Sparse(Format::Csr));
        let name = |cell: &Cell| CellId::new(cell, &inputs());
        let mut names = vec![name(&base)];
        let mut add = |change: &dyn Fn(&mut Cell)| {
            let mut changed = base.clone();
            change(&mut changed);
            names.push(name(&changed));
        };
        add(&|c| c.variant = Variant::Masked);
        add(&|c| c.seed = Some(0));
        add(&|c| c.seed = Some(1));
        add(&|c| c.backend = super::super::Backend::NdArray);
        add(&|c| c.metrics.push(Metric::Perplexity));
        add(&|c| c.prune.as_mut().unwrap().sparsity = 0.1 + 0.2);
        add(&|c| c.prune.as_mut().unwrap().exclude.clear());
        add(&|c| c.prune.as_mut().unwrap().scope = None);
        names.push(CellId::new(&base, &InputDigests { model: "n".into(), ..inputs() }));
        names.push(CellId::new(&base, &InputDigests { agreement: "b".into(), ..inputs() }));
        for calibration in ["c", "d"] {
            names.push(CellId::new(&base, &InputDigests { calibration: Some(calibration.into()), ..inputs() }));
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn everything_that_a_method_uses_changes_the_name() {
        let base = calibrated();
        let mut names = vec![name_of(&base)];
        let mut add = |change: &dyn Fn(&mut PrunePoint)| {
            let mut changed = base.clone();
            change(changed.prune.as_mut().unwrap());
            names.push(name_of(&changed));
        };
        add(&|p| p.damping = Some(0.01));
        add(&|p| p.damping = Some(0.1));
        add(&|p| p.blocksize = Some(128));
        add(&|p| p.iterations = Some(128));
        add(&|p| p.alpha = Some(1.0));
        add(&|p| p.alpha = None);
        add(&|p| p.budget = Some(Owl::default()));
        add(&|p| p.budget = Some(Owl { m: 7.0, ..Owl::default() }));
        add(&|p| p.budget = Some(Owl { lambda: 0.1, ..Owl::default() }));
        add(&|p| p.propagate = Some(Propagate::Dense));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), count), (11, 11));
    }

    fn name_of(cell: &Cell) -> CellId {
        CellId::new(cell, &inputs())
    }

    #[test]
    fn everything_that_decides_a_time_changes_the_name() {
        let mut base = cell(0.3, Variant::Sparse(Format::Csr));
        base.metrics.push(Metric::Latency);
        let mut names = vec![name_of(&base)];
        let mut add = |change: &dyn Fn(&mut LatencyPoint)| {
            let mut changed = latency();
            change(&mut changed);
            names.push(name_of(&Cell { latency: Some(changed), ..base.clone() }));
        };
        add(&|_| ());
        add(&|l| l.warmup = 4);
        add(&|l| l.repeats = 4);
        add(&|l| l.batch.push(4));
        add(&|l| l.prompt.push(4));
        add(&|l| l.generate = 4);
        add(&|l| l.timed_on.device = "gpu".into());
        add(&|l| l.timed_on.threads = 4);
        add(&|l| l.timed_on.kernels = 4);
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn everything_that_decides_a_kernels_time_changes_its_name() {
        use super::super::kernel::tests::{inputs, kernel};
        use crate::config::experiment::{Dtype, KernelFormat};
        let base = kernel(KernelFormat::Sparse(Format::Csr), Some(0.5));
        // A change here makes every stored cell unknown: raise the kernel policy instead if only times change.
        assert_eq!(CellId::of_kernel(&base, &inputs()).as_str(), "d4346f38e9cbd524");
        let mut names = vec![CellId::of_kernel(&base, &inputs())];
        let changes: [fn(&mut KernelCell); 9] = [
            |c| c.backend = super::super::Backend::NdArray,
            |c| c.dtype = Dtype::F16,
            |c| c.shape = [4, 8],
            |c| c.tokens = 3,
            |c| c.format = KernelFormat::Sparse(Format::Bitmap),
            |c| c.sparsity = Some(0.6),
            |c| c.seed = 1,
            |c| c.warmup = 1,
            |c| c.repeats = 1,
        ];
        for change in changes {
            let mut changed = base.clone();
            change(&mut changed);
            names.push(CellId::of_kernel(&changed, &inputs()));
        }
        let changes: [fn(&mut KernelInputs); 3] =
            [|i| i.device = "other".into(), |i| i.threads = Some(1), |i| i.kernel_policy = 2];
        for change in changes {
            let mut changed = inputs();
            change(&mut changed);
            names.push(CellId::of_kernel(&base, &changed));
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), count), (13, 13));
    }

    #[test]
    fn what_does_not_decide_a_result_does_not() {
        let base = cell(0.3, Variant::Sparse(Format::Csr));
        // Nor does what would be timed, where nothing is.
        assert_eq!(name_of(&base), name_of(&Cell { latency: Some(latency()), ..base.clone() }));
        let renamed = Cell { model: "path:elsewhere".into(), ..base.clone() };
        assert_eq!(CellId::new(&base, &inputs()), CellId::new(&renamed, &inputs()));
        // The perplexity text does not matter to a cell that does not measure perplexity.
        let other = InputDigests { perplexity: None, ..inputs() };
        assert_eq!(CellId::new(&base, &inputs()), CellId::new(&base, &other));
    }
}
