//! Model cells: one point of the experiment, with every parameter that decides its results.
//!
//! ```text
//!   batch    model, backend           loaded once
//!     point  and dtype, prune, seed   pruned once, stays in one partition
//!       cell and variant              parts: structure, agreement, perplexity, latency, tasks; gate, of sparse variants
//! ```

use super::identify::{CellId, NUMERICS_VERSION};
use super::task::{Inputs, Kind, Of, Part, Task};
use super::timed::{LatencyPoint, TimedOn};
use crate::column::{self, Column};
use crate::config::experiment::{
    BackendChoice, CalibrationChoice, Dtype, LatencySettings, Method, MethodSettings, Metric, NmPattern, Owl,
    Propagate, Reads, Scope, SettingValue, TaskName, Variant, percent,
};
use crate::config::pivot::CALIBRATION_KEY;
use crate::prune::Request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// A backend that a cell runs on: `auto` is decided before there are cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// An NVIDIA GPU.
    Cuda,
    /// The CPU, through the ndarray crate.
    NdArray,
    /// The CPU, through Burn's own kernels.
    Flex,
}

impl Backend {
    /// The file's spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::NdArray => "ndarray",
            Self::Flex => "flex",
        }
    }

    /// The choice of the file that means this one.
    pub fn choice(self) -> BackendChoice {
        match self {
            Self::Cuda => BackendChoice::Cuda,
            Self::NdArray => BackendChoice::NdArray,
            Self::Flex => BackendChoice::Flex,
        }
    }

    /// Whether it runs on the CPU.
    pub fn is_cpu(self) -> bool {
        self != Self::Cuda
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A point of the prune grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "super::point::Stored", into = "super::point::Stored")]
pub struct PrunePoint {
    /// How the weights that go are chosen.
    pub method: Method,
    /// What weights compete within; none for an N:M pattern.
    pub scope: Option<Scope>,
    /// `unstructured` or `N:M`.
    pub pattern: NmPattern,
    /// The share of weights to remove; 0 where the method takes none.
    pub sparsity: f64,
    /// Globs of module names that stay dense.
    pub exclude: Vec<String>,
    /// The keys of its method, and no others.
    pub settings: MethodSettings,
    /// How the sparsity is spread over blocks, where they don't all get the same.
    pub budget: Option<Owl>,
    /// Which inputs calibration looks at; of methods that calibrate.
    pub propagate: Option<Propagate>,
    /// Which calibration it sees, of methods that calibrate, where the experiment has several. Its windows decide, and
    /// are among what the cell reads; this says which are meant.
    pub calibration: Option<CalibrationChoice>,
    /// The model that it is compared with, as the file spells it, where that is not the dense model itself. Its files are
    /// among what the cell reads.
    pub reference: Option<String>,
}

impl PrunePoint {
    /// A point with the defaults of its method, without a budget.
    pub fn new(method: Method, scope: Option<Scope>, pattern: NmPattern, sparsity: f64, exclude: Vec<String>) -> Self {
        let settings = method.settings(&MethodSettings::default());
        let (budget, propagate) = (None, method.calibrates().then_some(Propagate::Pruned));
        Self {
            method,
            scope,
            pattern,
            sparsity,
            exclude,
            settings,
            budget,
            propagate,
            calibration: None,
            reference: None,
        }
    }

    /// The share of weights that it aims at; none where the method takes none.
    pub fn target(&self) -> Option<f64> {
        self.method.uses("sparsity").then_some(self.sparsity)
    }

    /// What is asked of the method; with a budget, a block's own sparsity takes the place of this one's.
    pub fn request(&self, seed: Option<u64>) -> Request {
        let &Self { method, scope, pattern, sparsity, settings, .. } = self;
        Request { method, scope, pattern, sparsity, seed: seed.unwrap_or(0), settings }
    }
}

impl Inputs {
    /// Of what is timed, as settings with names.
    fn of_latency(point: &LatencyPoint) -> Self {
        let LatencyPoint { work: LatencySettings { warmup, repeats, batch, prompt, generate }, timed_on } = point;
        let TimedOn { device, threads, kernels } = timed_on;
        Inputs::default().with(
            Metric::Latency.name(),
            [
                ("warmup", json!(warmup)),
                ("repeats", json!(repeats)),
                ("batch", json!(batch)),
                ("prompt", json!(prompt)),
                ("generate", json!(generate)),
                ("device", json!(device)),
                ("threads", json!(threads)),
                ("kernels", json!(kernels)),
            ],
        )
    }
}

/// One cell: what is run. What is measured of it are its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// The model source, as the file spells it.
    pub model: String,
    /// Where it runs.
    pub backend: Backend,
    /// What its tensors are made of.
    pub dtype: Dtype,
    /// How the model is pruned; none for `dense`.
    pub prune: Option<PrunePoint>,
    /// The seed, where the result depends on one.
    pub seed: Option<u64>,
    /// The form that is executed.
    pub variant: Variant,
    /// Tokens at once that the stored form is chosen for, where it depends on them: see [`Cell::form_tokens`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
}

impl Cell {
    /// The notebooks' label: `Dense`, `Masked30`, `CSR33.3`, `Masked2:4`; `MaskedGiven` where the checkpoint says
    /// which weights are pruned, whatever their share.
    pub fn setup(&self) -> String {
        let variant = match self.variant {
            Variant::Dense => "Dense",
            Variant::Masked => "Masked",
            Variant::Sparse(format) => format.row().label,
            Variant::Auto => "Auto",
        };
        match &self.prune {
            None => variant.into(),
            Some(PrunePoint { pattern: pattern @ NmPattern::NofM { .. }, .. }) => format!("{variant}{pattern}"),
            Some(point) if point.target().is_none() => format!("{variant}Given"),
            Some(point) => format!("{variant}{}", percent(point.sparsity)),
        }
    }

    /// Whether two cells differ in no more than the variant: they share a pattern.
    pub fn same_point(&self, other: &Self) -> bool {
        (&self.model, self.backend, self.dtype, &self.prune, self.seed)
            == (&other.model, other.backend, other.dtype, &other.prune, other.seed)
    }
}

impl fmt::Display for Cell {
    /// `builtin:tiny-opt magnitude global CSR30 flex f32`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.model)?;
        if let Some(point) = &self.prune {
            write!(f, " {}", point.method.name())?;
            if let Some(scope) = point.scope {
                write!(f, " {}", scope.name())?;
            }
            if point.budget.is_some() {
                write!(f, " owl")?;
            }
            if let Some(reference) = &point.reference {
                write!(f, " against {reference}")?;
            }
            if let Some(calibration) = &point.calibration {
                write!(f, " ({calibration})")?;
            }
        }
        if let Some(seed) = self.seed {
            write!(f, " seed {seed}")?;
        }
        write!(f, " {} {} {}", self.setup(), self.backend, self.dtype.name())
    }
}

impl Cell {
    /// Tokens at once that a variant's stored form is chosen for, of those that matter most; none where the form is the
    /// same for any number.
    pub fn form_tokens(variant: Variant, backend: Backend, decisive: usize) -> Option<usize> {
        match variant {
            Variant::Dense | Variant::Masked => None,
            Variant::Sparse(_) if backend.is_cpu() => None,
            Variant::Sparse(_) | Variant::Auto => Some(decisive),
        }
    }
}

/// The part that says how far a sparse variant is from the masked one, and which kernels it ran.
pub const GATE: &str = "gate";

/// What the parts of model cells depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartInputs {
    /// The agreement texts as token ids, which the gate looks at too.
    pub agreement: Inputs,
    /// The perplexity windows.
    pub perplexity: Inputs,
    /// Bytes of that text that its scored tokens stand for.
    pub perplexity_bytes: usize,
    /// The items of each task.
    pub tasks: Vec<(TaskName, Inputs)>,
    /// What is timed, where something is.
    pub latency: Option<LatencyPoint>,
}

/// The parts of a cell: its structure always, what `metrics` has, and the gate of a sparse variant.
pub fn parts(id: &CellId, cell: &Cell, metrics: &[Metric], inputs: &PartInputs) -> Vec<Part> {
    let mut parts = vec![Part::new(id, Metric::Structure.name(), Inputs::default())];
    let mut metrics = metrics.to_vec();
    metrics.sort_unstable();
    for metric in metrics {
        let inputs = match metric.reads() {
            // The structure, which is there already.
            Reads::Weights => continue,
            Reads::AgreementTexts => inputs.agreement.clone(),
            Reads::PerplexityText => inputs.perplexity.clone(),
            Reads::PerplexityBytes => {
                inputs.perplexity.clone().with("bytes", [("bytes", inputs.perplexity_bytes.into())])
            }
            Reads::Tasks => {
                let part = |(task, inputs): &(TaskName, Inputs)| Part::new(id, task.name(), inputs.clone());
                parts.extend(inputs.tasks.iter().map(part));
                continue;
            }
            Reads::Clock => inputs.latency.as_ref().map(Inputs::of_latency).unwrap_or_default(),
        };
        parts.push(Part::new(id, metric.name(), inputs));
    }
    let gated = match cell.variant {
        Variant::Dense | Variant::Masked => false,
        Variant::Sparse(_) | Variant::Auto => true,
    };
    if gated {
        // The kernels that ran are listed for the prompts that were timed, too.
        let timed = inputs.latency.as_ref().map(|latency| &latency.work);
        let gate = match timed {
            Some(LatencySettings { batch, prompt, .. }) => {
                inputs.agreement.clone().with("timed", [("batch", json!(batch)), ("prompt", json!(prompt))])
            }
            None => inputs.agreement.clone(),
        };
        parts.push(Part { check: true, ..Part::new(id, GATE, gate) });
    }
    parts
}

impl Kind for Cell {
    fn name(&self) -> &'static str {
        "model"
    }

    fn canonical(&self) -> Value {
        let Self { model: _, backend, dtype, prune, seed, variant, tokens } = self;
        json!({
            "numerics": NUMERICS_VERSION,
            "backend": backend.name(),
            "dtype": dtype.name(),
            "variant": variant.name(),
            "prune": prune.as_ref().map(canonical_point),
            "seed": seed,
            "tokens": tokens,
        })
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    fn belongs_with(&self, other: &Task) -> bool {
        Self::of(other).is_some_and(|other| self.same_point(other))
    }

    fn same_batch(&self, other: &Task) -> bool {
        Self::of(other).is_some_and(|other| (&self.model, self.backend) == (&other.model, other.backend))
    }

    fn setup(&self) -> String {
        Self::setup(self)
    }

    fn key(&self) -> Vec<(&'static str, column::Value)> {
        let calibration = if self.calibration().is_some() { Self::CALIBRATION } else { &[] };
        [Self::KEY, calibration].into_iter().flat_map(|columns| column::entries(columns, self)).collect()
    }
}

impl Cell {
    /// What tells model cells apart: the columns that their tables begin with.
    pub const KEY: &[Column<Self>] = &[
        Column { name: "setup", help: "a short label: variant and target", get: |cell| Self::setup(cell).into() },
        Column { name: "model", help: "the model, as the file spells it", get: |cell| cell.model.clone().into() },
        Column { name: "method", help: "how weights were chosen", get: |cell| cell.of_point(|p| Some(p.method)) },
        Column { name: "scope", help: "what a weight competed with", get: |cell| cell.of_point(|p| p.scope) },
        Column {
            name: "pattern",
            help: "which weights may stay together: `unstructured` or `N:M`",
            get: |cell| cell.of_point(|p| Some(p.pattern.to_string())),
        },
        Column {
            name: "sparsity_target",
            help: "the sparsity asked for",
            get: |cell| cell.of_point(PrunePoint::target),
        },
        Column { name: "seed", help: "the seed of everything random", get: |cell| cell.seed.into() },
        Column { name: "variant", help: "the form in which it ran", get: |cell| cell.variant.into() },
        Column { name: "backend", help: "what it ran on", get: |cell| cell.backend.name().into() },
        Column { name: "dtype", help: "the number format", get: |cell| cell.dtype.into() },
    ];

    /// What tells model cells apart too where calibration is an axis.
    pub const CALIBRATION: &[Column<Self>] = &[
        Column {
            name: CALIBRATION_KEY[0],
            help: "the text that calibrated methods saw",
            get: |cell| cell.calibration().map(|choice| choice.text.clone()).into(),
        },
        Column {
            name: CALIBRATION_KEY[1],
            help: "windows of it",
            get: |cell| cell.calibration().map(|choice| choice.samples as u64).into(),
        },
        Column {
            name: CALIBRATION_KEY[2],
            help: "tokens of such a window, where the file says how many",
            get: |cell| cell.calibration().and_then(|choice| choice.length).map(|length| length as u64).into(),
        },
    ];

    /// The model that it is compared with, where that is not the dense model itself.
    pub fn reference(&self) -> Option<&str> {
        self.prune.as_ref()?.reference.as_deref()
    }

    /// Which of several calibrations it saw.
    pub fn calibration(&self) -> Option<&CalibrationChoice> {
        self.prune.as_ref()?.calibration.as_ref()
    }

    /// What a prune point has, of a cell that has one.
    fn of_point<T: Into<column::Value>>(&self, get: impl Fn(&PrunePoint) -> Option<T>) -> column::Value {
        self.prune.as_ref().and_then(get).into()
    }
}

/// The canonical form of a prune point.
pub(super) fn canonical_point(point: &PrunePoint) -> Value {
    let mut canonical = json!({
        "method": point.method.name(),
        "scope": point.scope.map(|scope| scope.name()),
        "pattern": point.pattern.to_string(),
        "sparsity": bits(point.sparsity),
        "exclude": point.exclude,
    });
    // Only what the method uses, so that a key that comes later leaves the names of points without it.
    let mut add = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            canonical[key] = value;
        }
    };
    for (name, value) in point.settings.iter() {
        add(
            name,
            Some(match value {
                SettingValue::Real(number) => bits(number).into(),
                SettingValue::Count(count) => count.into(),
            }),
        );
    }
    add("budget", point.budget.map(|owl| json!({ "m": bits(owl.m), "lambda": bits(owl.lambda) })));
    add("propagate", point.propagate.map(|propagate| propagate.name().into()));
    canonical
}

/// The bits of a number: 0.3 and 0.30000000000000004 prune different weights.
pub(super) fn bits(number: f64) -> String {
    format!("{:016x}", number.to_bits())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::experiment::Format;

    /// A cell for the tests of this folder.
    pub(crate) fn cell(sparsity: f64, variant: Variant) -> Cell {
        let (scope, pattern) = (Some(Scope::Global), NmPattern::Unstructured);
        let point = PrunePoint::new(Method::Magnitude, scope, pattern, sparsity, vec!["lm_head".into()]);
        Cell {
            model: "builtin:tiny-opt".into(),
            backend: Backend::Flex,
            dtype: Dtype::F32,
            prune: (variant != Variant::Dense).then_some(point),
            seed: None,
            variant,
            tokens: None,
        }
    }

    /// A workload for the tests of this folder.
    pub(crate) fn latency() -> LatencyPoint {
        let timed_on = TimedOn { device: "cpu".into(), threads: 2, kernels: 1 };
        let work = LatencySettings { warmup: 3, repeats: 20, batch: vec![1], prompt: vec![128], generate: 32 };
        LatencyPoint { work, timed_on }
    }

    #[test]
    fn setups_are_the_notebooks_labels() {
        assert_eq!(cell(0.3, Variant::Dense).setup(), "Dense");
        assert_eq!(cell(0.3, Variant::Masked).setup(), "Masked30");
        assert_eq!(cell(1.0 / 3.0, Variant::Sparse(Format::Csr)).setup(), "CSR33.3");
        assert_eq!(cell(0.7, Variant::Sparse(Format::Bitmap)).setup(), "Bitmap70");
        assert_eq!(cell(0.7, Variant::Auto).setup(), "Auto70");
        // Not all, and not none.
        assert_eq!(cell(0.999999, Variant::Masked).setup(), "Masked99.9999");
        assert_eq!(cell(0.9996, Variant::Masked).setup(), "Masked99.96");
        assert_eq!(cell(0.9994, Variant::Masked).setup(), "Masked99.9");
        assert_eq!(cell(0.00001, Variant::Sparse(Format::Csr)).setup(), "CSR0.001");
        assert_eq!(cell(0.0, Variant::Sparse(Format::Csr)).setup(), "CSR0");
        let all_but_none = [f64::MIN_POSITIVE, 1e-300, 1e-17, 1.0 - f64::EPSILON / 2.0];
        for label in all_but_none.map(|sparsity| cell(sparsity, Variant::Sparse(Format::Csr)).setup()) {
            assert!(label != "CSR0" && label != "CSR100", "{label}");
        }
        // Not `CSR3250`, nor what CSR at 32 % is called.
        assert_eq!(cell(0.5, Variant::Sparse(Format::Csr32)).setup(), "CSR32-50");
        assert_eq!(cell(0.325, Variant::Sparse(Format::Csr32)).setup(), "CSR32-32.5");
        assert_eq!([0.32, 0.325].map(|s| cell(s, Variant::Sparse(Format::Csr)).setup()), ["CSR32", "CSR32.5"]);
        let mut pattern = cell(0.5, Variant::Masked);
        pattern.prune.as_mut().unwrap().pattern = NmPattern::NofM { n: 2, m: 4 };
        assert_eq!(pattern.setup(), "Masked2:4");
        pattern.variant = Variant::Sparse(Format::Nm);
        assert_eq!(pattern.setup(), "NM2:4");
        let mut given = cell(0.0, Variant::Sparse(Format::Csr));
        given.prune = Some(PrunePoint::new(Method::Given, None, NmPattern::Unstructured, 0.0, Vec::new()));
        assert_eq!(given.setup(), "CSRGiven");
        given.variant = Variant::Sparse(Format::Csr32);
        assert_eq!(given.setup(), "CSR32-Given");
    }

    /// A calibrated cell for the tests of this folder.
    pub(crate) fn calibrated() -> Cell {
        let (scope, pattern) = (Some(Scope::Layer), NmPattern::Unstructured);
        let point = PrunePoint::new(Method::Ria, scope, pattern, 0.5, vec!["lm_head".into()]);
        Cell { prune: Some(point), seed: Some(0), ..cell(0.5, Variant::Masked) }
    }

    #[test]
    fn a_point_without_settings_is_written_as_ever() {
        let json = serde_json::to_string(&cell(0.5, Variant::Sparse(Format::Csr)).prune).unwrap();
        let expected = "{\"method\":\"magnitude\",\"scope\":\"global\",\"pattern\":\"unstructured\",\
                        \"sparsity\":0.5,\"exclude\":[\"lm_head\"]}";
        assert_eq!(json, expected);
        let mut cell = calibrated();
        cell.prune.as_mut().unwrap().budget = Some(Owl::default());
        let json = serde_json::to_string(&cell).unwrap();
        assert!(
            json.contains("\"alpha\":0.5,\"budget\":{\"m\":5.0,\"lambda\":0.08},\"propagate\":\"pruned\""),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Cell>(&json).unwrap(), cell);
        assert_eq!(cell.to_string(), "builtin:tiny-opt ria layer owl seed 0 Masked50 flex f32");
    }

    #[test]
    fn a_cell_survives_its_file() {
        for variant in [Variant::Dense, Variant::Sparse(Format::Csr), Variant::Auto] {
            let cell = Cell { tokens: Cell::form_tokens(variant, Backend::Cuda, 7), ..cell(0.7, variant) };
            let task = Task::from(cell);
            let json = serde_json::to_string(&task).unwrap();
            assert!(json.starts_with("{\"kind\":\"model\",\"model\":\"builtin:tiny-opt\""), "{json}");
            assert_eq!(serde_json::from_str::<Task>(&json).unwrap(), task);
        }
    }

    #[test]
    fn only_forms_that_depend_on_tokens_are_named_after_them() {
        let all = |backend| {
            [
                Variant::Dense,
                Variant::Masked,
                Variant::Sparse(Format::Csr),
                Variant::Sparse(Format::Bitmap),
                Variant::Auto,
            ]
            .map(|variant| Cell::form_tokens(variant, backend, 9))
        };
        assert_eq!(all(Backend::Flex), [None, None, None, None, Some(9)]);
        assert_eq!(all(Backend::Cuda), [None, None, Some(9), Some(9), Some(9)]);
        assert_eq!(Cell::form_tokens(Variant::Sparse(Format::Csr), Backend::Cuda, 1), Some(1));
    }

    fn inputs() -> PartInputs {
        let text = |name, digest: &str| Inputs::default().with(name, [("sha256", digest.into())]);
        PartInputs {
            agreement: text("agreement", "a"),
            perplexity: text("perplexity", "p"),
            perplexity_bytes: 7,
            tasks: Vec::new(),
            latency: None,
        }
    }

    /// Groups whose names differ between two sets of inputs.
    fn changed(variant: Variant, change: impl FnOnce(&mut PartInputs)) -> Vec<&'static str> {
        let metrics = [Metric::Structure, Metric::Agreement, Metric::Perplexity, Metric::Latency];
        let id = CellId::named("00ff".into());
        let base = PartInputs { latency: Some(latency()), ..inputs() };
        let mut other = base.clone();
        change(&mut other);
        let of = |inputs| parts(&id, &cell(0.5, variant), &metrics, inputs);
        of(&base).iter().zip(of(&other)).filter(|(a, b)| a.id != b.id).map(|(a, _)| a.group).collect()
    }

    #[test]
    fn what_decides_a_part_changes_its_name_and_no_other() {
        let text = |name, digest: &str| Inputs::default().with(name, [("sha256", digest.into())]);
        assert_eq!(changed(Variant::Masked, |i| i.perplexity = text("perplexity", "q")), ["perplexity"]);
        assert_eq!(changed(Variant::Masked, |i| i.agreement = text("agreement", "b")), ["agreement"]);
        assert_eq!(
            changed(Variant::Sparse(Format::Csr), |i| i.agreement = text("agreement", "b")),
            ["agreement", "gate"]
        );
        let timed: [fn(&mut LatencyPoint); 6] = [
            |l| l.work.warmup = 4,
            |l| l.work.repeats = 4,
            |l| l.work.generate = 4,
            |l| l.timed_on.device = "gpu".into(),
            |l| l.timed_on.threads = 4,
            |l| l.timed_on.kernels = 4,
        ];
        for change in timed {
            assert_eq!(changed(Variant::Sparse(Format::Csr), |i| change(i.latency.as_mut().unwrap())), ["latency"]);
        }
        let axes: [fn(&mut LatencyPoint); 2] = [|l| l.work.batch.push(4), |l| l.work.prompt.push(4)];
        for change in axes {
            assert_eq!(
                changed(Variant::Sparse(Format::Csr), |i| change(i.latency.as_mut().unwrap())),
                ["latency", "gate"]
            );
        }
        assert!(changed(Variant::Sparse(Format::Csr), |_| ()).is_empty());
    }

    #[test]
    fn structure_is_always_there_and_the_gate_of_sparse_variants() {
        let id = CellId::named("00ff".into());
        let groups = |variant, metrics: &[Metric]| {
            let parts = parts(&id, &cell(0.5, variant), metrics, &inputs());
            parts.iter().map(|part| (part.group, part.check)).collect::<Vec<_>>()
        };
        let (structure, perplexity) = (("structure", false), ("perplexity", false));
        assert_eq!(groups(Variant::Masked, &[Metric::Perplexity]), [structure, perplexity]);
        assert_eq!(
            groups(Variant::Sparse(Format::Csr), &[Metric::Perplexity]),
            [structure, perplexity, ("gate", true)]
        );
    }
}
