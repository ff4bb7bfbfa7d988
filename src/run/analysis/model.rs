//! Analyses of a model's prune points: the model is loaded once, and every point is pruned once.

use super::activations::{Cut, behaviour, first_tokens, input_norms, inputs_of, thresholds_of};
use super::matrix::{Matrix, Opened, Raw, head_dim, slot_of};
use super::numbers;
use super::places;
use super::sheet::Sheet;
use super::slots::slots;
use super::source::{of_folder, record};
use crate::config::analysis::Work;
use crate::execute::SparseBackend;
use crate::load::{Checkpoint, LoadError};
use crate::model::{Decoder, LinearWeight};
use crate::plan::{AnalysisCell, AnalysisSource, MatrixFrom, Planned, PrunePoint};
use crate::record::{AnalysisNumbers, Failure, FailureKind};
use crate::run::PreparedModel;
use crate::run::backend::{OnBackend, burn_dtype, bytes_per_number};
use crate::run::model::{CellError, Keep, Pruned, Room, Session, Stopped, calibrate, patterns};
use crate::run::panics::{self, caught, panicked};
use crate::run::scheduler::{Desk, RunError};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Inputs that are kept from one place to the next, at most: beyond that a text runs anew for each.
const INPUTS_KEPT: usize = 1 << 30;

/// The cells of one model on one backend.
pub(super) struct Batch<'b, 'd> {
    pub desk: &'b mut Desk<'d>,
    pub model: &'b PreparedModel,
    pub cells: &'b [(&'b Planned, &'b AnalysisCell)],
}

impl OnBackend for Batch<'_, '_> {
    type Output = Result<(), RunError>;

    fn on<B: SparseBackend>(self, device: B::Device) -> Self::Output {
        let Self { desk, model, cells } = self;
        let mut state: Option<Result<State<'_, B>, String>> = None;
        let mut opened = Opened::default();
        for place in places(cells) {
            let taken = desk.take(place, |(planned, _)| planned);
            if !taken.is_empty() && state.is_none() {
                state = Some(load(desk, model, cells, &device)?);
            }
            for (planned, cell) in taken {
                if desk.stop() {
                    return Ok(());
                }
                desk.watch.begins(&planned.task);
                match state.as_mut() {
                    Some(Ok(state)) => {
                        let Some(result) = state.cell(desk, cell, &mut opened) else { return Ok(()) };
                        let (start, result) = result;
                        record(desk, planned, start, state.session.load_seconds, result)?;
                    }
                    Some(Err(message)) => {
                        let failure = Failure::new(FailureKind::Other, format!("loading the model failed: {message}"));
                        record(desk, planned, Instant::now(), 0.0, Err(failure))?;
                    }
                    None => unreachable!("it was loaded above"),
                }
            }
        }
        Ok(())
    }
}

/// The model, or what the device says.
fn load<'a, B: SparseBackend>(
    desk: &Desk<'_>,
    model: &'a PreparedModel,
    cells: &'a [(&'a Planned, &'a AnalysisCell)],
    device: &B::Device,
) -> Result<Result<State<'a, B>, String>, RunError> {
    let (_, first) = cells[0];
    desk.watch.loading(&model.files.source, first.backend.name());
    let dtype = first.dtype.unwrap_or(model.files.dtype());
    let load = || {
        let checkpoint = Checkpoint::open(model.files.clone())?;
        Session::<B>::load(checkpoint, model.tokens.clone(), dtype, Keep::AsStored, device)
    };
    match (caught(load), panics::take()) {
        (Ok(Err(error)), None) => Err(RunError::Load(error)),
        (Ok(Ok(session)), None) => {
            Ok(Ok(State { session, model, cells, known: HashMap::new(), norms: HashMap::new(), inputs: None }))
        }
        (_, Some(message)) | (Err(message), _) => Ok(Err(message)),
    }
}

/// Which masks, as text: a prune point and its seed.
type PointName = String;

/// The inputs of linears that one source sees, on the windows of one seed.
struct Inputs {
    of: (PointName, Option<u64>, usize),
    by_module: HashMap<usize, Arc<Vec<f32>>>,
}

/// A loaded model, and what is known of its points.
struct State<'a, B: SparseBackend> {
    session: Session<B>,
    model: &'a PreparedModel,
    cells: &'a [(&'a Planned, &'a AnalysisCell)],
    known: HashMap<PointName, Result<Vec<Pruned>, Failure>>,
    norms: HashMap<PointName, HashMap<usize, Arc<Vec<f64>>>>,
    inputs: Option<Vec<Inputs>>,
}

fn name_of(source: &AnalysisSource) -> PointName {
    match &source.from {
        MatrixFrom::Point(point) => json!([point, source.seed]).to_string(),
        MatrixFrom::Dense | MatrixFrom::Checkpoint(_) | MatrixFrom::Matrix => "dense".into(),
    }
}

fn failed(failure: &Failure) -> Stopped {
    Stopped::Failed(CellError::Point(failure.message.clone()))
}

/// When a cell began, and its numbers or why there are none.
type Numbered = (Instant, Result<AnalysisNumbers, Failure>);

impl<B: SparseBackend> State<'_, B> {
    /// Runs a cell; none where the user wants to stop.
    fn cell(&mut self, desk: &Desk<'_>, cell: &AnalysisCell, opened: &mut Opened) -> Option<Numbered> {
        let start = Instant::now();
        let mut result = match caught(|| self.numbers(desk, cell, opened)) {
            Ok(Err(Stopped::Interrupted)) => return None,
            Ok(Err(Stopped::Failed(error))) => Err(error.failure()),
            Ok(Ok(numbers)) => Ok(numbers),
            Err(message) => Err(Failure::new(FailureKind::Other, message)),
        };
        if panicked(&mut result) {
            (self.norms, self.inputs) = (HashMap::new(), None);
        }
        Some((start, result))
    }

    fn numbers(
        &mut self,
        desk: &Desk<'_>,
        cell: &AnalysisCell,
        opened: &mut Opened,
    ) -> Result<AnalysisNumbers, Stopped> {
        for source in &cell.sources {
            if let MatrixFrom::Point(point) = &source.from {
                self.prune(desk, point, source)?;
            }
        }
        if cell.layer.is_none() {
            return self.whole(desk, cell);
        }
        let mut matrices = Vec::new();
        for source in &cell.sources {
            let of = match &source.from {
                MatrixFrom::Point(_) | MatrixFrom::Dense => self.matrix(desk, cell, source)?,
                MatrixFrom::Checkpoint(_) | MatrixFrom::Matrix => {
                    of_folder(&desk.prepared.experiment, cell, source, opened).map_err(CellError::from)?
                }
            };
            let missing = || CellError::from(LoadError::NoMatrices(source.name.clone().into()));
            matrices.push(of.ok_or_else(missing)?);
        }
        desk.watch.stage("analysing");
        Ok(numbers::numbers(cell, &matrices))
    }

    /// Decides which weights of a point go, unless that is known. Points that look at the same windows are calibrated
    /// together.
    fn prune(&mut self, desk: &Desk<'_>, point: &PrunePoint, source: &AnalysisSource) -> Result<(), Stopped> {
        let name = name_of(source);
        if !self.known.contains_key(&name) {
            let dtype = self.model_dtype();
            if let Some(layers) =
                desk.shelf.take((&self.model.files.source, self.cells[0].1.backend), point, source.seed)
            {
                self.known.insert(name.clone(), Ok(layers));
            } else if point.method.calibrates() {
                self.calibrate(desk, point, source)?;
            } else {
                desk.watch.stage("pruning");
                let found = patterns(&self.session, point, source.seed, dtype).map(|(layers, _)| layers);
                self.known.insert(name.clone(), found.map_err(|error| error.failure()));
            }
        }
        match self.known.get(&name) {
            Some(Err(failure)) => Err(failed(failure)),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn model_dtype(&self) -> crate::config::experiment::Dtype {
        self.cells.first().and_then(|(_, cell)| cell.dtype).unwrap_or(self.model.files.dtype())
    }

    fn calibrate(&mut self, desk: &Desk<'_>, point: &PrunePoint, source: &AnalysisSource) -> Result<(), Stopped> {
        let (seed, dtype) = (source.seed, self.model_dtype());
        let mut points = vec![point];
        let others = self.cells.iter().flat_map(|(_, cell)| &cell.sources).filter(|other| other.seed == seed);
        for other in others {
            if let MatrixFrom::Point(more) = &other.from
                && more.method.calibrates()
                && !points.contains(&more)
                && !self.known.contains_key(&name_of(other))
            {
                points.push(more);
            }
        }
        let windows = seed.and_then(|seed| self.session.tokens.calibration_of(None, seed)).unwrap_or_default().to_vec();
        let tokens = windows.iter().map(Vec::len).sum();
        let backend = self.cells[0].1.backend;
        let room = Room::current(desk.prepared.experiment.device_index, backend);
        points.truncate(room.fitting(&points, self.session.decoder.architecture(), tokens, dtype));
        let results = calibrate(&mut self.session, &windows, &points, dtype, desk.watch)?;
        for (point, result) in points.into_iter().zip(results) {
            let layers = result.map(|calibrated| calibrated.layers).map_err(|error| error.failure());
            self.known.insert(json!([point, seed]).to_string(), layers);
        }
        Ok(())
    }

    /// The pruned linears of a source; none of the dense model.
    fn layers(&self, source: &AnalysisSource) -> &[Pruned] {
        match self.known.get(&name_of(source)) {
            Some(Ok(layers)) => layers,
            Some(Err(_)) | None => &[],
        }
    }

    /// The matrix of a source at the place of a cell.
    fn matrix(
        &mut self,
        desk: &Desk<'_>,
        cell: &AnalysisCell,
        source: &AnalysisSource,
    ) -> Result<Option<Matrix>, Stopped> {
        let architecture = self.session.decoder.architecture().clone();
        let Some(slot) = slot_of(cell, &architecture) else { return Ok(None) };
        let dense = self.session.dense(slot.module);
        let shape = &architecture.modules[slot.module].shape;
        let pruned = self.layers(source).iter().find(|pruned| pruned.module == slot.module);
        let (weights, kept) = match pruned {
            Some(pruned) => (pruned.weights(dense)?.into_owned(), Some(pruned.pattern.clone())),
            None => (dense.host()?.into_owned(), None),
        };
        let raw = Raw { shape: [shape[0], shape[1]], weights, kept };
        let (pattern, weights, explicit) = raw.rows(slot.rows.as_deref()).masked();
        let norms = match cell.work {
            Work::Structure { scores: true, .. } => self.norms(desk, cell, source)?.get(&slot.module).cloned(),
            _ => None,
        };
        let inputs = match cell.work {
            Work::ActivationSparsity { tokens, .. } => self.inputs(desk, cell, source, slot.module, tokens)?,
            _ => None,
        };
        let dtype = self.model_dtype();
        Ok(Some(Matrix {
            pattern,
            weights,
            path: self.model.files.source.clone(),
            sha256: self.model.files.digest(),
            dtype: dtype.name().into(),
            value_bytes: bytes_per_number(dtype),
            explicit,
            head_dim: head_dim(&architecture, cell.role),
            norms: norms.map(|norms| norms.to_vec()),
            inputs: inputs.map(|inputs| inputs.to_vec()),
        }))
    }

    /// The model as a source has it.
    fn decoder(&self, source: &AnalysisSource) -> Result<Decoder<B>, Stopped> {
        let mut decoder = self.session.decoder.clone();
        let dtype = burn_dtype(self.model_dtype());
        for pruned in self.layers(source) {
            let masked = pruned.masked(self.session.dense(pruned.module), dtype, self.session.decoder.device())?;
            decoder.set_weight(pruned.module, LinearWeight::Dense(masked));
        }
        Ok(decoder)
    }

    /// The windows that a cell looks at: of its seed, or the first of the experiment.
    fn windows(&self, desk: &Desk<'_>, cell: &AnalysisCell) -> Vec<Vec<u32>> {
        let seed = cell.seed.or_else(|| desk.prepared.experiment.seeds.first().copied());
        seed.and_then(|seed| self.session.tokens.calibration_of(None, seed)).unwrap_or_default().to_vec()
    }

    fn norms(
        &mut self,
        desk: &Desk<'_>,
        cell: &AnalysisCell,
        source: &AnalysisSource,
    ) -> Result<&HashMap<usize, Arc<Vec<f64>>>, Stopped> {
        let name = format!("{} {:?}", name_of(source), cell.seed);
        if !self.norms.contains_key(&name) {
            let windows = self.windows(desk, cell);
            let norms = input_norms(&mut self.decoder(source)?, &windows, desk.watch)?;
            self.norms.insert(name.clone(), norms);
        }
        Ok(&self.norms[&name])
    }

    /// What enters a linear of a source.
    fn inputs(
        &mut self,
        desk: &Desk<'_>,
        cell: &AnalysisCell,
        source: &AnalysisSource,
        module: usize,
        tokens: usize,
    ) -> Result<Option<Arc<Vec<f32>>>, Stopped> {
        let of = (name_of(source), cell.seed, tokens);
        let kept = self.inputs.get_or_insert_default();
        if let Some(known) = kept.iter().find(|known| known.of == of && known.by_module.contains_key(&module)) {
            return Ok(known.by_module.get(&module).cloned());
        }
        let windows = first_tokens(&self.windows(desk, cell), tokens);
        let architecture = self.session.decoder.architecture();
        let all: Vec<usize> = slots(architecture).into_iter().map(|slot| slot.module).collect();
        let numbers: usize = all.iter().map(|&module| architecture.modules[module].shape[1] * tokens * 4).sum();
        let sources = self.cells.iter().flat_map(|(_, cell)| &cell.sources).map(name_of);
        let sources = sources.collect::<std::collections::HashSet<_>>().len();
        let wanted = if numbers * sources <= INPUTS_KEPT { all } else { vec![module] };
        let by_module = inputs_of(&mut self.decoder(source)?, &windows, desk.watch, &wanted)?;
        let found = by_module.get(&module).cloned();
        let kept = self.inputs.get_or_insert_default();
        if wanted.len() == 1 {
            kept.clear();
        }
        kept.push(Inputs { of, by_module });
        Ok(found)
    }

    /// What the whole model predicts when small inputs are 0.
    fn whole(&mut self, desk: &Desk<'_>, cell: &AnalysisCell) -> Result<AnalysisNumbers, Stopped> {
        let Work::ActivationSparsity { targets, thresholds, tokens, .. } = &cell.work else {
            return Ok(AnalysisNumbers::default());
        };
        let mut sheet = Sheet::default();
        let block = desk.prepared.experiment.analyses.iter().find(|block| block.id == cell.analysis);
        let meant = slots(self.session.decoder.architecture())
            .into_iter()
            .filter(|slot| block.is_none_or(|block| block.has_layer(slot.layer) && block.has_role(Some(slot.role))));
        let meant: Vec<(usize, crate::config::analysis::Role)> = meant.map(|slot| (slot.module, slot.role)).collect();
        let modules: Vec<usize> = meant.iter().map(|(module, _)| *module).collect();
        let windows = first_tokens(&self.windows(desk, cell), *tokens);
        for (index, source) in cell.sources.iter().enumerate() {
            let mut decoder = self.decoder(source)?;
            let cuts: Vec<Cut> = if thresholds.is_empty() {
                let found = thresholds_of(&mut decoder, &windows, desk.watch, &modules, targets)?;
                let cut = |(at, target): (usize, &f64)| {
                    (
                        Some(*target),
                        modules.iter().filter_map(|module| Some((*module, found.get(module)?[at]))).collect(),
                    )
                };
                targets.iter().enumerate().map(cut).collect()
            } else {
                let of_role = |role| thresholds.iter().find(|given| given.role == role).map(|given| given.threshold);
                vec![(None, meant.iter().filter_map(|&(module, role)| Some((module, of_role(role)?))).collect())]
            };
            behaviour(&mut decoder, &self.session.tokens, &cuts, index, desk.watch, &mut sheet)?;
        }
        Ok(sheet.0)
    }
}
