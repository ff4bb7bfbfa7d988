//! One point of the experiment, with every parameter that decides its result.

use crate::config::experiment::{
    BackendChoice, Dtype, KernelFormat, Method, MethodSettings, Metric, NmPattern, Owl, Propagate, Scope, Variant,
};
use crate::config::keyword::Keyword;
use crate::prune::Request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrunePoint {
    /// How the weights that go are chosen.
    #[serde(with = "crate::plan::cell::word")]
    #[schemars(with = "String")]
    pub method: Method,
    /// What weights compete within; none for an N:M pattern.
    #[serde(with = "crate::plan::cell::optional_word")]
    #[schemars(with = "Option<String>")]
    pub scope: Option<Scope>,
    /// `unstructured` or `N:M`.
    #[serde(with = "crate::plan::cell::text")]
    #[schemars(with = "String")]
    pub pattern: NmPattern,
    /// The share of weights to remove; 0 where the method takes none.
    pub sparsity: f64,
    /// Globs of module names that stay dense.
    pub exclude: Vec<String>,
    /// What is added to the diagonal of the Hessian, as a share of its mean; of methods that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damping: Option<f64>,
    /// Columns pruned between two updates of all columns after them; of methods that work so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocksize: Option<usize>,
    /// Updates of the weights; of methods that repeat them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<usize>,
    /// The exponent of the inputs' norms; of methods that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// How the sparsity is spread over blocks, where they don't all get the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Owl>,
    /// Which inputs calibration looks at; of methods that calibrate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub propagate: Option<Propagate>,
}

impl PrunePoint {
    /// A point with the defaults of its method, without a budget.
    pub fn new(method: Method, scope: Option<Scope>, pattern: NmPattern, sparsity: f64, exclude: Vec<String>) -> Self {
        let MethodSettings { damping, blocksize, iterations, alpha } = method.settings(&MethodSettings::default());
        let (budget, propagate) = (None, method.calibrates().then_some(Propagate::Pruned));
        Self { method, scope, pattern, sparsity, exclude, damping, blocksize, iterations, alpha, budget, propagate }
    }

    /// The settings of its method.
    pub fn settings(&self) -> MethodSettings {
        let Self { damping, blocksize, iterations, alpha, .. } = *self;
        MethodSettings { damping, blocksize, iterations, alpha }
    }

    /// The share of weights that it aims at; none where the method takes none.
    pub fn target(&self) -> Option<f64> {
        self.method.uses("sparsity").then_some(self.sparsity)
    }

    /// What is asked of the method; with a budget, a block's own sparsity takes the place of this one's.
    pub fn request(&self, seed: Option<u64>) -> Request {
        let &Self { method, scope, pattern, sparsity, .. } = self;
        Request { method, scope, pattern, sparsity, seed: seed.unwrap_or(0), settings: self.settings() }
    }
}

/// What a cell times, and on what: all that decides how long it takes beside the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LatencyPoint {
    /// Runs before those that count.
    pub warmup: usize,
    /// Runs that count.
    pub repeats: usize,
    /// Sequences at a time; each is timed with each prompt length.
    pub batch: Vec<usize>,
    /// Tokens of the prompt.
    pub prompt: Vec<usize>,
    /// Tokens generated after the prompt.
    pub generate: usize,
    /// Where it runs.
    pub timed_on: TimedOn,
}

/// What decides how long the same work takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimedOn {
    /// The name of the GPU or processor.
    pub device: String,
    /// CPU threads.
    pub threads: usize,
    /// The version of the program's kernels.
    pub kernels: u32,
}

/// One cell: what is run and what is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// The model source, as the file spells it.
    pub model: String,
    /// Where it runs.
    pub backend: Backend,
    /// What its tensors are made of.
    #[serde(with = "crate::plan::cell::word")]
    #[schemars(with = "String")]
    pub dtype: Dtype,
    /// How the model is pruned; none for `dense`.
    pub prune: Option<PrunePoint>,
    /// The seed, where the result depends on one.
    pub seed: Option<u64>,
    /// The form that is executed.
    #[serde(with = "crate::plan::cell::word")]
    #[schemars(with = "String")]
    pub variant: Variant,
    /// What is measured.
    #[serde(with = "crate::plan::cell::words")]
    #[schemars(with = "Vec<String>")]
    pub metrics: Vec<Metric>,
    /// What is timed, where `metrics` has `latency`.
    pub latency: Option<LatencyPoint>,
}

impl Cell {
    /// The notebooks' label: `Dense`, `Masked30`, `CSR33.3`, `Masked2:4`; `MaskedGiven` where the checkpoint says
    /// which weights are pruned, whatever their share.
    pub fn setup(&self) -> String {
        let variant = match self.variant {
            Variant::Dense => "Dense",
            Variant::Masked => "Masked",
            Variant::Csr => "CSR",
            Variant::Bitmap => "Bitmap",
            Variant::Auto => "Auto",
        };
        match &self.prune {
            None => variant.into(),
            Some(PrunePoint { pattern: pattern @ NmPattern::NofM { .. }, .. }) => format!("{variant}{pattern}"),
            Some(point) if point.target().is_none() => format!("{variant}Given"),
            // Rounded to a tenth; Display leaves out a trailing `.0`.
            Some(point) => format!("{variant}{}", (point.sparsity * 1000.0).round() / 10.0),
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
        }
        if let Some(seed) = self.seed {
            write!(f, " seed {seed}")?;
        }
        write!(f, " {} {} {}", self.setup(), self.backend, self.dtype.name())
    }
}

/// A closed set of words, as [`crate::config::keyword`] declares them.
pub(crate) trait Word: Copy + PartialEq + 'static {
    const ALL: &'static [Keyword<Self>];
}

macro_rules! words {
    ($($type:ty),+) => { $(impl Word for $type { const ALL: &'static [Keyword<Self>] = <$type>::ALL; })+ };
}
words!(Method, Scope, Dtype, Variant, Metric, KernelFormat);

fn spelling<T: Word>(value: T) -> &'static str {
    T::ALL.iter().find(|word| word.value == value).map_or("", |word| word.name)
}

fn parse<T: Word, E: serde::de::Error>(name: &str) -> Result<T, E> {
    let word = T::ALL.iter().find(|word| word.name == name);
    word.map(|word| word.value).ok_or_else(|| E::custom(format!("unknown word `{name}`")))
}

pub(super) mod word {
    use super::*;
    pub fn serialize<T: Word, S: serde::Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(spelling(*value))
    }
    pub fn deserialize<'de, T: Word, D: serde::Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        parse(&String::deserialize(d)?)
    }
}

mod optional_word {
    use super::*;
    pub fn serialize<T: Word, S: serde::Serializer>(value: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
        value.map(spelling).serialize(s)
    }
    pub fn deserialize<'de, T: Word, D: serde::Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
        Option::<String>::deserialize(d)?.map(|name| parse(&name)).transpose()
    }
}

mod words {
    use super::*;
    pub fn serialize<T: Word, S: serde::Serializer>(values: &[T], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(values.iter().map(|&value| spelling(value)))
    }
    pub fn deserialize<'de, T: Word, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
        Vec::<String>::deserialize(d)?.iter().map(|name| parse(name)).collect()
    }
}

mod text {
    use super::*;
    pub fn serialize<T: fmt::Display, S: serde::Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<NmPattern, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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
            metrics: vec![Metric::Structure],
            latency: None,
        }
    }

    /// A workload for the tests of this folder.
    pub(crate) fn latency() -> LatencyPoint {
        let timed_on = TimedOn { device: "cpu".into(), threads: 2, kernels: 1 };
        LatencyPoint { warmup: 3, repeats: 20, batch: vec![1], prompt: vec![128], generate: 32, timed_on }
    }

    #[test]
    fn setups_are_the_notebooks_labels() {
        assert_eq!(cell(0.3, Variant::Dense).setup(), "Dense");
        assert_eq!(cell(0.3, Variant::Masked).setup(), "Masked30");
        assert_eq!(cell(1.0 / 3.0, Variant::Csr).setup(), "CSR33.3");
        assert_eq!(cell(0.7, Variant::Bitmap).setup(), "Bitmap70");
        assert_eq!(cell(0.7, Variant::Auto).setup(), "Auto70");
        let mut pattern = cell(0.5, Variant::Masked);
        pattern.prune.as_mut().unwrap().pattern = NmPattern::NofM { n: 2, m: 4 };
        assert_eq!(pattern.setup(), "Masked2:4");
        let mut given = cell(0.0, Variant::Csr);
        given.prune = Some(PrunePoint::new(Method::Given, None, NmPattern::Unstructured, 0.0, Vec::new()));
        assert_eq!(given.setup(), "CSRGiven");
    }

    /// A calibrated cell for the tests of this folder.
    pub(crate) fn calibrated() -> Cell {
        let (scope, pattern) = (Some(Scope::Layer), NmPattern::Unstructured);
        let point = PrunePoint::new(Method::Ria, scope, pattern, 0.5, vec!["lm_head".into()]);
        Cell { prune: Some(point), seed: Some(0), ..cell(0.5, Variant::Masked) }
    }

    #[test]
    fn a_point_without_settings_is_written_as_ever() {
        let json = serde_json::to_string(&cell(0.5, Variant::Csr).prune).unwrap();
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
        for variant in [Variant::Dense, Variant::Csr] {
            let cell = Cell { latency: (variant == Variant::Csr).then(latency), ..cell(0.7, variant) };
            let json = serde_json::to_string(&cell).unwrap();
            assert_eq!(serde_json::from_str::<Cell>(&json).unwrap(), cell);
        }
        // Files from before there were latencies.
        let old = serde_json::to_string(&cell(0.7, Variant::Csr)).unwrap().replace(",\"latency\":null", "");
        assert!(!old.contains("latency"));
        assert_eq!(serde_json::from_str::<Cell>(&old).unwrap(), cell(0.7, Variant::Csr));
    }
}
