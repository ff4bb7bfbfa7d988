//! The name of a cell and of each of its parts: a hash of all that decides the results, and of nothing else.
//!
//! Not hashed: paths and names, the time, the host, the program's version. What the program's
//! arithmetic means is hashed as [`NUMERICS_VERSION`]. Where something is timed, what it is timed on is
//! hashed too.

use super::task::{Inputs, Task};
use crate::hex::hex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fmt;

/// Raised by hand when results change although every parameter is the same.
pub const NUMERICS_VERSION: u32 = 3;

/// A name: 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CellId(String);

impl CellId {
    /// The name that a file has, which need not be a cell's.
    pub fn named(text: String) -> Self {
        Self(text)
    }

    /// Names a cell.
    pub fn new(task: &Task, inputs: &Inputs) -> Self {
        let kind = task.kind();
        // serde_json keeps the order in which keys are written here: the canonical form.
        Self::of(&json!({ "kind": kind.name(), "task": kind.canonical(), "inputs": inputs.deciding() }))
    }

    /// Names a group of results of a cell.
    pub fn of_part(cell: &Self, group: &str, inputs: &Inputs) -> Self {
        Self::of(&json!({ "cell": cell.as_str(), "group": group, "inputs": inputs.deciding() }))
    }

    fn of(canonical: &serde_json::Value) -> Self {
        let digest = Sha256::digest(canonical.to_string().as_bytes());
        Self(hex(&digest[..8]))
    }

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

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::kernel::KernelCell;
    use super::super::kernel::tests::{inputs as machine, kernel};
    use super::super::model::tests::{calibrated, cell};
    use super::super::model::{Cell, PrunePoint};
    use super::*;
    use crate::config::experiment::{
        Dtype, Format, KernelFormat, MethodSettings, Owl, Propagate, SettingValue, Variant,
    };

    fn inputs() -> Inputs {
        Inputs::default().with("model", [("sha256", "m".into())])
    }

    fn name_of(cell: &Cell) -> CellId {
        CellId::new(&cell.clone().into(), &inputs())
    }

    /// How many names there are, and how many of them differ.
    fn counts(mut names: Vec<CellId>) -> (usize, usize) {
        let count = names.len();
        names.sort();
        names.dedup();
        (count, names.len())
    }

    #[test]
    fn the_canonical_form_is_pinned() {
        // A change here makes every stored cell unknown: raise NUMERICS_VERSION only if results change.
        assert_eq!(name_of(&cell(0.3, Variant::Sparse(Format::Csr))).as_str(), "38c345ed5eda0f6e");
        let kernel = CellId::new(&kernel(KernelFormat::Sparse(Format::Csr), Some(0.5)).into(), &machine());
        assert_eq!(kernel.as_str(), "d841306724352fdd");
        let part = CellId::of_part(&CellId::named("00ff".into()), "perplexity", &inputs());
        assert_eq!(part.as_str(), "e88779dc2a083470");
    }

    #[test]
    fn everything_that_decides_a_result_changes_the_name() {
        let base = cell(0.3, Variant::Sparse(Format::Csr));
        let mut names = vec![name_of(&base)];
        let mut add = |change: &dyn Fn(&mut Cell)| {
            let mut changed = base.clone();
            change(&mut changed);
            names.push(name_of(&changed));
        };
        add(&|c| c.variant = Variant::Masked);
        add(&|c| c.seed = Some(0));
        add(&|c| c.seed = Some(1));
        add(&|c| c.backend = Backend::NdArray);
        add(&|c| c.tokens = Some(1));
        add(&|c| c.prune.as_mut().unwrap().sparsity = 0.1 + 0.2);
        add(&|c| c.prune.as_mut().unwrap().exclude.clear());
        add(&|c| c.prune.as_mut().unwrap().scope = None);
        let read = |inputs: &Inputs| CellId::new(&base.clone().into(), inputs);
        names.push(read(&Inputs::default().with("model", [("sha256", "n".into())])));
        for digest in ["c", "d"] {
            names.push(read(&inputs().with("calibration", [("sha256", digest.into())])));
        }
        assert_eq!(counts(names), (12, 12));
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
        let given = |name: &str, value| MethodSettings::given(&[(name, value)]);
        add(&|p| p.settings = given("damping", SettingValue::Real(0.01)));
        add(&|p| p.settings = given("damping", SettingValue::Real(0.1)));
        add(&|p| p.settings = given("blocksize", SettingValue::Count(128)));
        add(&|p| p.settings = given("iterations", SettingValue::Count(128)));
        add(&|p| p.settings = given("alpha", SettingValue::Real(1.0)));
        add(&|p| p.settings = MethodSettings::default());
        add(&|p| p.budget = Some(Owl::default()));
        add(&|p| p.budget = Some(Owl { m: 7.0, ..Owl::default() }));
        add(&|p| p.budget = Some(Owl { lambda: 0.1, ..Owl::default() }));
        add(&|p| p.propagate = Some(Propagate::Dense));
        assert_eq!(counts(names), (11, 11));
    }

    #[test]
    fn everything_that_decides_a_kernels_time_changes_its_name() {
        let base = kernel(KernelFormat::Sparse(Format::Csr), Some(0.5));
        let named = |cell: &KernelCell, inputs: &Inputs| CellId::new(&cell.clone().into(), inputs);
        let mut names = vec![named(&base, &machine())];
        let changes: [fn(&mut KernelCell); 9] = [
            |c| c.backend = Backend::NdArray,
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
            names.push(named(&changed, &machine()));
        }
        for (key, value) in [("device", json!("other")), ("threads", json!(1)), ("kernels", json!(2))] {
            let mut changed = machine();
            changed.0.get_mut("machine").unwrap().insert(key.into(), value);
            names.push(named(&base, &changed));
        }
        assert_eq!(counts(names), (13, 13));
    }

    #[test]
    fn what_does_not_decide_a_result_does_not() {
        let base = cell(0.3, Variant::Sparse(Format::Csr));
        let renamed = Cell { model: "path:elsewhere".into(), ..base.clone() };
        assert_eq!(name_of(&base), name_of(&renamed));
        let told = Inputs::default().with("model", [("sha256", "m".into()), ("text", "x".into())]);
        assert_eq!(name_of(&base), CellId::new(&base.into(), &told));
    }
}
