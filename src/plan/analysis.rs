//! Analysis cells: one analysis of one matrix position each, over all of its sources.
//!
//! ```text
//!   batch      model, backend, dtype                 loaded and pruned once; none where only folders are looked at
//!     place    layer and role, or the whole model    stays in one partition
//!       cell   analysis, seed                        sources side by side: what is compared is in one cell
//! ```
//! Sources stand together in a cell because references are drawn from features that are constant in none of them, and
//! because pairs are compared. A killed run loses the place that it was at, and no finished one.
//!
//! The ID holds the analysis's `id`, which random draws depend on; not what sources are called, nor where their files are.

use super::model::{Backend, PrunePoint, canonical_point};
use super::task::{Kind, Of, Task};
use crate::column::{self, Column};
use crate::config::analysis::{FeatureAxis, Role, Work};
use crate::config::experiment::{Dtype, Method, NmPattern, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// The part that has the numbers of an analysis.
pub const ANALYSIS: &str = "analysis";

/// Raised by hand when numbers of analyses change although every parameter is the same.
const ANALYSIS_VERSION: u32 = 1;

/// One analysis of the matrices of one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnalysisCell {
    /// The analysis's name.
    pub analysis: String,
    /// What is done.
    pub work: Work,
    /// The model source, as the file spells it; none where only folders are looked at.
    pub model: Option<String>,
    /// What the model is pruned on.
    pub backend: Backend,
    /// What its tensors are made of.
    pub dtype: Option<Dtype>,
    /// The seed of draws, where the result depends on one.
    pub seed: Option<u64>,
    /// The layer; none where the whole model is looked at.
    pub layer: Option<usize>,
    /// The role in it, where the matrix has one.
    pub role: Option<Role>,
    /// What features are, as the file says.
    pub feature_axis: FeatureAxis,
    /// Whether constant features are left out.
    pub skip_constant: bool,
    /// Whose matrices.
    pub sources: Vec<AnalysisSource>,
}

/// A matrix of an analysis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnalysisSource {
    /// What tables call the source.
    pub name: String,
    /// Where the matrix comes from.
    pub from: MatrixFrom,
    /// How it was pruned, where that is known.
    pub method: Option<Method>,
    /// What weights competed within.
    pub scope: Option<Scope>,
    /// The pattern.
    #[schemars(with = "Option<String>")]
    pub pattern: Option<NmPattern>,
    /// The share of weights that should have gone.
    pub sparsity: Option<f64>,
    /// The seed that the pruning depends on.
    pub seed: Option<u64>,
    /// The module's name; empty where the whole model is looked at.
    pub module: String,
    /// Positions of all matrices of the source that the analysis looks at.
    #[serde(default)]
    pub total: u64,
    /// The file that the matrix is in, of folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Where a matrix comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "a cell has a handful of them, most of them points")]
pub enum MatrixFrom {
    /// A prune point of the file.
    Point(PrunePoint),
    /// The model as it is.
    Dense,
    /// A checkpoint, named after the folder.
    Checkpoint(String),
    /// A file with one matrix.
    Matrix,
}

impl AnalysisCell {
    /// Where it looks: what cells of one place have in common.
    fn place(&self) -> impl Eq + use<'_> {
        (self.layer, self.role, self.named_module())
    }

    /// The module's name, where layer and role do not say which it is: of matrices without a role, and of experts.
    fn named_module(&self) -> Option<&str> {
        let module = self.sources.first().map(|source| source.module.as_str());
        module.filter(|module| self.role.is_none() || module.contains(".experts."))
    }

    /// What cells have in common that share what is loaded.
    fn batch(&self) -> impl Eq + use<'_> {
        (&self.model, self.backend, self.dtype)
    }

    /// What a source's rows say of its seed: that of draws where there are any.
    pub fn seed_of(&self, source: &AnalysisSource) -> Option<u64> {
        if self.work.draws() { self.seed } else { source.seed }
    }

    /// `in` or `out` of a source's matrix.
    pub fn axis_of(&self, source: &AnalysisSource) -> FeatureAxis {
        self.feature_axis.resolved(&source.module)
    }
}

impl fmt::Display for AnalysisCell {
    /// `similarity builtin:tiny-opt layer 0 q seed 1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.analysis)?;
        if let Some(model) = &self.model {
            write!(f, " {model}")?;
        }
        if let Some(layer) = self.layer {
            write!(f, " layer {layer}")?;
        }
        if let Some(role) = self.role {
            write!(f, " {role}")?;
        }
        if let Some(module) = self.named_module().filter(|module| !module.is_empty()) {
            write!(f, " {module}")?;
        }
        if let Some(seed) = self.seed {
            write!(f, " seed {seed}")?;
        }
        Ok(())
    }
}

impl Kind for AnalysisCell {
    fn name(&self) -> &'static str {
        "analysis"
    }

    fn canonical(&self) -> Value {
        let Self { analysis, work, model, backend, dtype, seed, layer, role, feature_axis, skip_constant, sources } =
            self;
        let source = |source: &AnalysisSource| {
            let AnalysisSource { from, seed, module, total, .. } = source;
            let from = match from {
                MatrixFrom::Point(point) => canonical_point(point),
                MatrixFrom::Dense => json!("dense"),
                MatrixFrom::Checkpoint(_) => json!("checkpoint"),
                MatrixFrom::Matrix => json!("matrix"),
            };
            json!({ "from": from, "seed": seed, "module": module, "total": total })
        };
        json!({
            "numerics": super::NUMERICS_VERSION,
            "version": ANALYSIS_VERSION,
            "analysis": analysis,
            "work": work,
            // Without a model nothing depends on a backend.
            "backend": model.as_ref().map(|_| backend.name()),
            "dtype": dtype.map(|dtype| dtype.name()),
            "seed": seed,
            "layer": layer,
            "role": role,
            "feature_axis": feature_axis.name(),
            "skip_constant": skip_constant,
            "sources": sources.iter().map(source).collect::<Vec<_>>(),
        })
    }

    fn belongs_with(&self, other: &Task) -> bool {
        Self::of(other).is_some_and(|other| self.batch() == other.batch() && self.place() == other.place())
    }

    fn same_batch(&self, other: &Task) -> bool {
        Self::of(other).is_some_and(|other| self.batch() == other.batch())
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    fn setup(&self) -> String {
        self.analysis.clone()
    }

    fn key(&self) -> Vec<(&'static str, column::Value)> {
        column::entries(Self::KEY, self)
    }
}

impl AnalysisCell {
    /// What tells analysis cells apart.
    pub const KEY: &[Column<Self>] = &[
        Column { name: "analysis", help: "the `id` of the analysis", get: |cell| cell.analysis.as_str().into() },
        Column { name: "kind", help: "what the analysis looks at", get: |cell| cell.work.kind().name().into() },
        Column { name: "model", help: "the model, as the file spells it", get: |cell| cell.model.clone().into() },
        Column { name: "layer", help: "the layer, counted from 0", get: |cell| cell.layer.into() },
        Column { name: "role", help: "the matrix in its layer", get: |cell| cell.role.map(Role::name).into() },
        Column { name: "seed", help: "the seed of everything random", get: |cell| cell.seed.into() },
    ];
}

/// The names of sources, told apart where several would be called the same: by scope, then by number.
pub fn told_apart(names: &[(String, Option<Scope>)]) -> Vec<String> {
    let clash = |name: &str, all: &[String]| all.iter().filter(|other| *other == name).count() > 1;
    let plain: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
    let scoped: Vec<String> = names
        .iter()
        .map(|(name, scope)| match scope.filter(|_| clash(name, &plain)) {
            Some(scope) => format!("{name}-{scope}"),
            None => name.clone(),
        })
        .collect();
    let number = |(index, name): (usize, &String)| {
        let before = scoped[..index].iter().filter(|other| *other == name).count();
        if before == 0 { name.clone() } else { format!("{name}-{}", before + 1) }
    };
    scoped.iter().enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_by_scope_and_number() {
        let names = [("a", Some(Scope::Row)), ("b", None), ("a", Some(Scope::Global)), ("a", Some(Scope::Row))];
        let names: Vec<_> = names.into_iter().map(|(name, scope)| (name.to_owned(), scope)).collect();
        assert_eq!(told_apart(&names), ["a-row", "b", "a-global", "a-row-2"]);
        assert_eq!(told_apart(&names[..2]), ["a", "b"]);
    }

    #[test]
    fn an_id_holds_what_decides_and_no_names() {
        use super::super::{CellId, Inputs};
        let source = |name: &str, file: &str, module: &str| AnalysisSource {
            name: name.into(),
            from: MatrixFrom::Matrix,
            method: None,
            scope: None,
            pattern: None,
            sparsity: None,
            seed: None,
            total: 8,
            module: module.into(),
            file: Some(file.into()),
        };
        let cell = |id: &str, source: AnalysisSource| AnalysisCell {
            analysis: id.into(),
            work: Work::Hierarchy { linkage: crate::config::analysis::TreeLinkage::Average, cuts: vec![2] },
            model: None,
            backend: Backend::Flex,
            dtype: None,
            seed: None,
            layer: Some(1),
            role: Some(Role::Q),
            feature_axis: FeatureAxis::In,
            skip_constant: true,
            sources: vec![source],
        };
        let id = |cell: AnalysisCell| CellId::new(&cell.into(), &Inputs::default());
        let plain = id(cell("tree", source("a", "x.pt", "q_proj")));
        assert_eq!(plain, id(cell("tree", source("b", "y.pt", "q_proj"))));
        assert_ne!(plain, id(cell("other", source("a", "x.pt", "q_proj"))));
        assert_ne!(plain, id(cell("tree", source("a", "x.pt", "k_proj"))));
        let task = Task::from(cell("tree", source("a", "x.pt", "q_proj")));
        assert_eq!(serde_json::from_str::<Task>(&serde_json::to_string(&task).unwrap()).unwrap(), task);
    }
}
