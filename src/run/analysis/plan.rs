//! Experiment → analysis cells: sources are resolved, matrices are found by layer and role, shapes are checked.
//!
//! ```text
//!   block ─ sources ─> Found { labels, matrices by place }        points, dense, checkpoint, folder
//!                        │  place = layer and role, or module where it has no role
//!                        v
//!   place ─ seed ─> cell with a matrix of every source that has one
//! ```

use super::slots::slots;
use crate::config::Experiment;
use crate::config::analysis::*;
use crate::config::experiment::{Dtype, NmPattern, Point, same_sparsity};
use crate::config::source::{ModelSource, WrittenPath};
use crate::execute::device;
use crate::load::{Checkpoint, LoadError, Loader, MatrixSource, NamedMatrix, matrix_folder};
use crate::model::Architecture;
use crate::plan::{
    ANALYSIS, AnalysisCell, AnalysisSource, Backend, Inputs, MatrixFrom, Part, Planned, PrunePoint, points, told_apart,
};
use crate::run::kinds::Ground;
use crate::run::{PrepareError, PreparedModel};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Where a matrix stands: layer, role, and the module's name where there is no role.
type Place = (usize, Option<Role>, String);

/// A source of a block.
struct Found {
    /// What is the same for all of its matrices.
    labels: AnalysisSource,
    matrices: Vec<FoundMatrix>,
    /// Whether its masks depend on calibration windows.
    calibrates: bool,
}

struct FoundMatrix {
    place: Place,
    module: String,
    shape: [usize; 2],
    /// What a file says beyond the labels.
    file: Option<(MatrixSource, NamedMatrix)>,
    sha256: Option<String>,
}

/// What the cells of a batch share.
struct Surroundings<'a> {
    experiment: &'a Experiment,
    model: Option<&'a PreparedModel>,
    backend: Backend,
    dtype: Option<Dtype>,
    points: &'a [(PrunePoint, Option<u64>)],
}

/// Every analysis cell of an experiment, named, and nothing decided yet.
///
/// # Errors
/// When a folder can't be used, or an analysis does not fit the matrices.
pub(super) fn plan(ground: &Ground<'_>) -> Result<Vec<Planned>, PrepareError> {
    let Ground { experiment, backends, models, .. } = ground;
    let needs_model =
        |block: &&AnalysisBlock| block.sources.iter().any(|s| matches!(s.from, SourceFrom::Points | SourceFrom::Dense));
    let (with, without): (Vec<&AnalysisBlock>, Vec<&AnalysisBlock>) = experiment.analyses.iter().partition(needs_model);
    let points = points(experiment);
    let mut planned = Vec::new();
    let alone = Surroundings { experiment, model: None, backend: Backend::Flex, dtype: None, points: &points };
    planned.extend(alone.cells(&without)?);
    for model in models.iter().filter(|_| !with.is_empty()) {
        for &backend in *backends {
            let own = device::default_dtype(backend, model.files.dtype());
            let dtype = experiment.dtype.unwrap_or(own);
            if backend.is_cpu() && dtype != Dtype::F32 {
                return Err(PrepareError::Dtype { backend: backend.name(), dtype: dtype.name() });
            }
            let here = Surroundings { model: Some(model), backend, dtype: Some(dtype), ..alone };
            planned.extend(here.cells(&with)?);
        }
    }
    Ok(planned)
}

impl Surroundings<'_> {
    /// The cells of some blocks, place by place.
    fn cells(&self, blocks: &[&AnalysisBlock]) -> Result<Vec<Planned>, PrepareError> {
        let mut cells: Vec<(bool, Place, Planned)> = Vec::new();
        for block in blocks {
            let sources = self.sources(block)?;
            check(block, &sources)?;
            self.fused_parts(block)?;
            for (place, planned) in self.block(block, &sources) {
                cells.push((place.is_none(), place.unwrap_or_default(), planned));
            }
        }
        // The whole model comes last: what is captured for places serves it.
        cells.sort_by(|(a, place_a, _), (b, place_b, _)| (a, place_a).cmp(&(b, place_b)));
        Ok(cells.into_iter().map(|(.., planned)| planned).collect())
    }

    /// Whether anything is drawn: the inputs that lie beside matrices are not.
    fn draws(&self, block: &AnalysisBlock) -> bool {
        block.work.draws() && (self.model.is_some() || !matches!(block.work, Work::ActivationSparsity { .. }))
    }

    fn block(&self, block: &AnalysisBlock, sources: &[Found]) -> Vec<(Option<Place>, Planned)> {
        let draws = self.draws(block);
        let seeded = draws || sources.iter().any(|source| source.labels.seed.is_some());
        let pairs = matches!(block.work, Work::MaskSimilarity { .. });
        let plain = sources.iter().any(|source| source.labels.seed.is_none());
        let mut seeds: Vec<Option<u64>> = Vec::new();
        if !seeded || (!draws && plain) {
            seeds.push(None);
        }
        if seeded {
            seeds.extend(self.experiment.seeds.iter().map(|&seed| Some(seed)));
        }
        let mut places: Vec<&Place> = Vec::new();
        for matrix in sources.iter().flat_map(|source| &source.matrices) {
            if !places.contains(&&matrix.place) {
                places.push(&matrix.place);
            }
        }
        places.sort();
        let mut cells = Vec::new();
        for seed in seeds {
            // Without a draw, what does not depend on a seed is looked at once.
            let here = |source: &&Found| match source.labels.seed {
                None => draws || pairs || seed.is_none(),
                own => own == seed,
            };
            let chosen: Vec<&Found> = sources.iter().filter(here).collect();
            let of_seed = chosen.iter().any(|source| source.labels.seed.is_some());
            if chosen.is_empty() || (pairs && seed.is_some() && !of_seed) {
                continue;
            }
            for place in &places {
                let with = chosen.iter().filter_map(|source| {
                    Some((*source, source.matrices.iter().find(|matrix| matrix.place == **place)?))
                });
                let with: Vec<(&Found, &FoundMatrix)> = with.collect();
                if with.is_empty() || (pairs && with.len() < 2) {
                    continue;
                }
                cells.push((Some((*place).clone()), self.planned(block, seed, Some(place), &with)));
            }
            let models = |source: &&&Found| matches!(source.labels.from, MatrixFrom::Point(_) | MatrixFrom::Dense);
            if matches!(block.work, Work::ActivationSparsity { .. }) && self.model.is_some() {
                let whole: Vec<&Found> = chosen.iter().filter(models).copied().collect();
                if !whole.is_empty() {
                    cells.push((None, self.whole(block, seed, &whole)));
                }
            }
        }
        cells
    }

    /// A fused linear has one input: its parts must have the same threshold, or none.
    fn fused_parts(&self, block: &AnalysisBlock) -> Result<(), PrepareError> {
        let (Some(model), Work::ActivationSparsity { thresholds, .. }) = (self.model, &block.work) else {
            return Ok(());
        };
        let all = slots(&model.architecture);
        let of = |role: Role| thresholds.iter().find(|given| given.role == role).map(|given| given.threshold);
        for slot in all.iter().filter(|slot| slot.rows.is_some() && block.has_layer(slot.layer)) {
            let parts = all.iter().filter(|other| other.module == slot.module);
            let cut: Vec<(bool, Option<f64>)> =
                parts.map(|part| (block.has_role(Some(part.role)), of(part.role))).collect();
            if cut.iter().any(|part| part != &cut[0]) {
                let problem = format!(
                    "`{}` has q, k and v in one linear, and not all of them have the same threshold",
                    model.architecture.modules[slot.module].name
                );
                return Err(problem_of(block, problem, Some("name all of q, k and v, or none of them".into())));
            }
        }
        Ok(())
    }

    /// A cell of one place.
    fn planned(
        &self,
        block: &AnalysisBlock,
        seed: Option<u64>,
        place: Option<&Place>,
        with: &[(&Found, &FoundMatrix)],
    ) -> Planned {
        let mut inputs = Inputs::default();
        let calibrates = with.iter().any(|(source, _)| source.calibrates) || block.work.sees_inputs();
        if let Some(model) = self.model {
            // What depends on no seed sees the windows of the first.
            let windows = seed.or_else(|| self.experiment.seeds.first().copied());
            inputs = model.read.with_windows(None, windows.filter(|_| calibrates));
        }
        let mut sources = Vec::new();
        for (index, (source, matrix)) in with.iter().enumerate() {
            let total = source.matrices.iter().map(|matrix| (matrix.shape[0] * matrix.shape[1]) as u64).sum();
            let mut of = AnalysisSource { module: matrix.module.clone(), total, ..source.labels.clone() };
            if let Some((file, named)) = &matrix.file {
                of.file = Some(file.path.display().to_string());
                let kept = named.name.kept_of();
                of.pattern =
                    kept.map(|(n, m)| NmPattern::NofM { n, m }).or(of.pattern).or(Some(NmPattern::Unstructured));
                let by_pattern = kept.map(|(n, m)| f64::from(m - n) / f64::from(m));
                of.sparsity = named.name.sparsity.or(by_pattern).or(of.sparsity);
            }
            if let Some(sha256) = &matrix.sha256 {
                inputs = inputs.with(&format!("source {index}"), [("sha256", json!(sha256))]);
            }
            sources.push(of);
        }
        let bytes = with.iter().map(|(_, matrix)| matrix_bytes(block, matrix.shape)).sum::<u64>();
        self.finished(block, seed, place, sources, inputs, bytes)
    }

    /// The cell of the whole model: what it predicts when small inputs are 0.
    fn whole(&self, block: &AnalysisBlock, seed: Option<u64>, sources: &[&Found]) -> Planned {
        let inputs = self.model.map_or_else(Inputs::default, |model| model.read.with_texts(seed));
        // Which matrices have a threshold decides, too.
        let selected: Vec<String> = sources[0].matrices.iter().map(|matrix| matrix.module.clone()).collect();
        let roles: Vec<&str> = sources[0].matrices.iter().filter_map(|matrix| Some(matrix.place.1?.name())).collect();
        let inputs = inputs.with("matrices", [("modules", json!(selected)), ("roles", json!(roles))]);
        let sources = sources.iter().map(|source| AnalysisSource { total: 0, ..source.labels.clone() }).collect();
        self.finished(block, seed, None, sources, inputs, 1 << 30)
    }

    fn finished(
        &self,
        block: &AnalysisBlock,
        seed: Option<u64>,
        place: Option<&Place>,
        sources: Vec<AnalysisSource>,
        inputs: Inputs,
        bytes: u64,
    ) -> Planned {
        let depends = self.draws(block) || sources.iter().any(|source| source.seed.is_some());
        let cell = AnalysisCell {
            analysis: block.id.clone(),
            work: block.work.clone(),
            model: self.model.map(|model| model.files.source.clone()),
            backend: self.backend,
            dtype: self.dtype,
            seed: seed.filter(|_| depends),
            layer: place.map(|place| place.0),
            role: place.and_then(|place| place.1),
            feature_axis: block.feature_axis,
            skip_constant: block.skip_constant,
            sources,
        };
        let model = self.model.map_or(0, |model| model.architecture.parameters() as u64 * 8);
        Planned::new(cell, inputs, |id| vec![Part::new(id, ANALYSIS, Inputs::default())], model + bytes)
    }

    /// The sources of a block, with the matrices of each that it asks for.
    fn sources(&self, block: &AnalysisBlock) -> Result<Vec<Found>, PrepareError> {
        let mut found: Vec<Found> = Vec::new();
        for choice in &block.sources {
            let before = found.len();
            match &choice.from {
                SourceFrom::Points => self.of_points(block, choice, &mut found),
                SourceFrom::Dense => {
                    if let Some(model) = self.model {
                        let labels = self.labels(choice, choice.label("dense"), MatrixFrom::Dense);
                        let matrices = of_architecture(block, &model.architecture, None);
                        found.push(Found { labels, matrices, calibrates: false });
                    }
                }
                SourceFrom::Checkpoint(path) => found.push(self.of_checkpoint(block, choice, path)?),
                SourceFrom::Folder { path, inputs, masks } => {
                    found.push(self.of_folder(block, choice, path, [inputs.as_deref(), masks.as_deref()])?);
                }
            }
            if let Some(empty) = found[before..].iter().find(|source| source.matrices.is_empty()) {
                let problem = format!("`{}` has no matrix of the layers and roles that it asks for", empty.labels.name);
                return Err(problem_of(block, problem, Some("change `layers` or `roles`, or leave them out".into())));
            }
        }
        let names: Vec<_> = found.iter().map(|source| (source.labels.name.clone(), source.labels.scope)).collect();
        // The seeds of a point are repeats of one source.
        let mut distinct: Vec<(String, Option<crate::config::experiment::Scope>)> = Vec::new();
        let mut of = Vec::new();
        let mut seen: Vec<(&MatrixFrom, usize)> = Vec::new();
        for (source, name) in found.iter().zip(&names) {
            let known = seen.iter().find(|(from, at)| *from == &source.labels.from && distinct[*at].0 == name.0);
            let at = match known.filter(|_| source.labels.seed.is_some()) {
                Some((_, at)) => *at,
                None => {
                    distinct.push(name.clone());
                    seen.push((&source.labels.from, distinct.len() - 1));
                    distinct.len() - 1
                }
            };
            of.push(at);
        }
        let told = told_apart(&distinct);
        found.iter_mut().zip(of).for_each(|(source, at)| source.labels.name.clone_from(&told[at]));
        Ok(found)
    }

    fn labels(&self, choice: &SourceChoice, name: String, from: MatrixFrom) -> AnalysisSource {
        let SourceChoice { method, sparsity, scope, pattern, .. } = *choice;
        let (seed, module, total, file) = (None, String::new(), 0, None);
        AnalysisSource { name, from, method, scope, pattern, sparsity, seed, module, total, file }
    }

    fn of_points(&self, block: &AnalysisBlock, choice: &SourceChoice, found: &mut Vec<Found>) {
        let Some(model) = self.model else { return };
        for (point, seed) in self.points {
            let PrunePoint { method, scope, pattern, sparsity, .. } = *point;
            if !choice.selects(&Point { method, scope, pattern, sparsity }) {
                continue;
            }
            let own = MatrixFrom::Point(point.clone());
            if found.iter().any(|known| known.labels.from == own && known.labels.seed == *seed) {
                continue;
            }
            let labels = AnalysisSource {
                name: choice.label(&point_name(point.method, point.pattern, point.target())),
                from: own,
                method: Some(point.method),
                scope: point.scope,
                pattern: Some(point.pattern),
                sparsity: point.target(),
                seed: *seed,
                module: String::new(),
                total: 0,
                file: None,
            };
            let matrices = of_architecture(block, &model.architecture, None);
            found.push(Found { labels, matrices, calibrates: point.method.calibrates() });
        }
    }

    fn of_checkpoint(&self, block: &AnalysisBlock, choice: &SourceChoice, path: &Path) -> Result<Found, PrepareError> {
        let loader = Loader::new(true, Arc::new(|_, _, _| ControlFlow::Continue(())));
        let files = loader.find(&ModelSource::Path(WrittenPath::new(&path.display().to_string())))?;
        let (sha256, checkpoint) = (files.digest(), Checkpoint::open(files)?);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let from = MatrixFrom::Checkpoint(path.display().to_string());
        let matrices = of_architecture(block, checkpoint.architecture(), Some(&sha256));
        Ok(Found { labels: self.labels(choice, choice.label(&name), from), matrices, calibrates: false })
    }

    fn of_folder(
        &self,
        block: &AnalysisBlock,
        choice: &SourceChoice,
        path: &Path,
        [inputs, masks]: [Option<&Path>; 2],
    ) -> Result<Found, PrepareError> {
        let folder = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = choice.label(&folder);
        let mut matrices: Vec<FoundMatrix> = Vec::new();
        for named in meant(block, choice, matrix_folder(path)?) {
            let place = place_of(&named);
            if let Some(other) = matrices.iter().find(|matrix| matrix.place == place) {
                let first = other.file.as_ref().map(|(file, _)| file.path.clone()).unwrap_or_default();
                let what = match place.1 {
                    Some(role) => format!("`{role}` of layer {}", place.0),
                    None => format!("`{}` of layer {}", place.2, place.0),
                };
                return Err(LoadError::SameMatrix { first, second: named.path, what }.into());
            }
            let stems = [format!("{name}/{}", named.name.stem()), named.name.stem()];
            let file = MatrixSource::open(&named.path, &stems, masks, inputs)?;
            if matches!(block.work, Work::ActivationSparsity { .. }) && file.inputs.is_none() {
                let what = inputs.map(|path| path.display().to_string()).unwrap_or_default();
                let problem = format!("`{what}` has no inputs `{}`", named.name.stem());
                return Err(problem_of(block, problem, Some("choose others by `layers` and `roles`".into())));
            }
            let (module, shape, sha256) = (named.name.component.clone(), file.shape, Some(file.sha256.clone()));
            matrices.push(FoundMatrix { place, module, shape, file: Some((file, named)), sha256 });
        }
        Ok(Found { labels: self.labels(choice, name, MatrixFrom::Matrix), matrices, calibrates: false })
    }
}

/// Where the matrix of a file stands.
fn place_of(named: &NamedMatrix) -> Place {
    let role = Role::of_component(&named.name.component);
    let module = if role.is_none() { named.name.component.clone() } else { String::new() };
    (named.name.layer, role, module)
}

/// The files of a folder that a source means: those of its layers, roles and pattern. Where several are one matrix of a
/// model, the source's sparsity tells which; elsewhere what a file's name says of its sparsity counts.
fn meant(block: &AnalysisBlock, choice: &SourceChoice, mut files: Vec<NamedMatrix>) -> Vec<NamedMatrix> {
    files.retain(|named| {
        let (layer, role, _) = place_of(named);
        let own = named.name.kept_of().map_or(NmPattern::Unstructured, |(n, m)| NmPattern::NofM { n, m });
        block.has_layer(layer) && block.has_role(role) && choice.pattern.is_none_or(|pattern| pattern == own)
    });
    let places: Vec<Place> = files.iter().map(place_of).collect();
    let Some(wanted) = choice.sparsity else { return files };
    let of_sparsity = |named: &NamedMatrix| named.name.sparsity.is_none_or(|own| same_sparsity(own, wanted));
    let alone = |named: &NamedMatrix| places.iter().filter(|place| **place == place_of(named)).count() == 1;
    files.retain(|named| alone(named) || of_sparsity(named));
    files
}

/// The matrices of a model that a block asks for.
fn of_architecture(block: &AnalysisBlock, architecture: &Architecture, sha256: Option<&str>) -> Vec<FoundMatrix> {
    let wanted = slots(architecture).into_iter();
    let wanted = wanted.filter(|slot| block.has_layer(slot.layer) && block.has_role(Some(slot.role)));
    let found = wanted.map(|slot| {
        let module = architecture.modules[slot.module].name.clone();
        // Of experts there are several of a role.
        let of = slot.expert.map_or_else(String::new, |_| module.clone());
        let place = (slot.layer, Some(slot.role), of);
        let (shape, sha256) = (slot.shape(architecture), sha256.map(ToOwned::to_owned));
        FoundMatrix { place, module, shape, file: None, sha256 }
    });
    found.collect()
}

/// An estimate of what an analysis of a matrix takes.
fn matrix_bytes(block: &AnalysisBlock, [out, inp]: [usize; 2]) -> u64 {
    let (cells, features) = ((out * inp) as u64, out.max(inp) as u64);
    let table = match block.work {
        Work::Hierarchy { .. } => 2 * features * features,
        Work::ActivationSparsity { tokens, .. } => (tokens * (out + inp)) as u64 * 8,
        _ => 0,
    };
    cells * 8 + table
}

fn problem_of(block: &AnalysisBlock, problem: String, hint: Option<String>) -> PrepareError {
    PrepareError::Analysis { id: block.id.clone(), problem, hint }
}

/// Whether what is asked for fits the matrices.
fn check(block: &AnalysisBlock, sources: &[Found]) -> Result<(), PrepareError> {
    for (source, matrix) in sources.iter().flat_map(|source| source.matrices.iter().map(move |matrix| (source, matrix)))
    {
        let [out, inp] = matrix.shape;
        let features = match block.feature_axis.resolved(&matrix.module) {
            FeatureAxis::In | FeatureAxis::Residual => inp,
            FeatureAxis::Out => out,
        };
        let (layer, name) = (matrix.place.0, &matrix.module);
        let of = format!("`{name}` of layer {layer} of `{}`, which has {features} features", source.labels.name);
        let too_many = |key: &str, asked: usize| {
            let problem = format!("`{key}` is {asked}, too many for {of}");
            Err(problem_of(block, problem, Some(format!("set `{key}` to {features} or less, or choose other `roles`"))))
        };
        let given = |references: &References| match references {
            References::Given(list) => list.iter().copied().find(|&reference| reference >= features),
            References::Random(_) | References::All => None,
        };
        for order in block.work.orders() {
            match order {
                Order::Groups { work, .. } if work.group_size > features => {
                    return too_many("group_size", work.group_size);
                }
                Order::Cluster { work, .. } => {
                    if let Some(&k) = work.k.iter().find(|&&k| k > features) {
                        return too_many("k", k);
                    }
                }
                Order::Groups { .. } | Order::Identity | Order::Density => {}
            }
        }
        let reference = match &block.work {
            Work::HammingGradient { references, .. } | Work::Neighbours { references, .. } => given(references),
            Work::Clustering(work) => {
                if let Some(&k) = work.k.iter().find(|&&k| k > features) {
                    return too_many("k", k);
                }
                given(&work.references)
            }
            Work::Groups(work) => {
                if work.group_size > features {
                    return too_many("group_size", work.group_size);
                }
                given(&work.references)
            }
            Work::Structure { .. }
            | Work::MaskSimilarity { .. }
            | Work::Spy { .. }
            | Work::BlockCoherence { .. }
            | Work::Hierarchy { .. }
            | Work::ActivationSparsity { .. } => None,
        };
        if let Some(reference) = reference {
            let problem = format!("there is no reference {reference} in {of}");
            return Err(problem_of(block, problem, Some(format!("expected 0 to {}", features - 1))));
        }
    }
    pairs_fit(block, sources)
}

/// Sources that are compared must have matrices of one shape.
fn pairs_fit(block: &AnalysisBlock, sources: &[Found]) -> Result<(), PrepareError> {
    let Work::MaskSimilarity { pairs, .. } = &block.work else { return Ok(()) };
    let compared = |a: &Found, b: &Found| match pairs {
        None => a.labels.name != b.labels.name,
        Some(pairs) => pairs.iter().any(|[x, y]| *x == a.labels.name && *y == b.labels.name),
    };
    let mut any = false;
    for a in sources {
        for b in sources.iter().filter(|b| compared(a, b)) {
            for one in &a.matrices {
                let Some(other) = b.matrices.iter().find(|other| other.place == one.place) else { continue };
                any = true;
                if one.shape != other.shape {
                    let (x, y) = (&a.labels.name, &b.labels.name);
                    let problem = format!(
                        "`{}` of layer {} is {:?} in `{x}` and {:?} in `{y}`",
                        one.module, one.place.0, one.shape, other.shape
                    );
                    return Err(problem_of(block, problem, Some("compare matrices of one shape".into())));
                }
            }
        }
    }
    match any {
        true => Ok(()),
        false => {
            let problem = "no two of its sources have the same layer and role".to_owned();
            Err(problem_of(block, problem, Some("name at least two sources of one model".into())))
        }
    }
}
