//! Calibrated pruning: windows go through the model stage by stage, and every stage is pruned as they pass.
//!
//! ```text
//!   windows ─ Entry ─┐
//!                    v       activations of all windows, between two stages
//!   State ──────> stage, dense weights, every batch ──> sums over the inputs of its linears, one stage's at a time
//!     │                                                    │  each point that prunes here
//!     │                                                    v
//!     │                                             pruned linears, kept until the point's cells run
//!     ├─ `propagate = "dense"`: the outputs of the dense stage, one state for all such points
//!     └─ `propagate = "pruned"`: the outputs of the pruned stage, a state for each point
//! ```
//!
//! All points begin in one state, so that those that look at dense inputs share every forward pass and every sum;
//! of the others at least the first stage is shared. What a point gets does not depend on the points beside it.
//! The dense weights of the session are read, never changed, and no second model is made.

use super::error::CellError;
use super::patterns::{Prunable, prunable, prune_linear, ties};
use super::pruned::{Calibrated, Pruned};
use super::session::Session;
use crate::config::experiment::{Dtype, Propagate};
use crate::execute::{GramSums, ReadError, SparseBackend};
use crate::measure::ForwardError;
use crate::model::{Activations, Batch, Decoder, LinearWeight, Stage};
use crate::plan::PrunePoint;
use crate::prune::{self, GramStatistics, Needs, owl};
use crate::record::Scarce;
use crate::run::Watch;
use crate::run::backend::burn_dtype;
use std::time::{Duration, Instant};

/// Tokens that run through a stage at a time, unless one window alone has more: on the host enough for matrix
/// products to be efficient while activations stay in the cache, on a device enough to fill it.
const HOST_TOKENS: usize = 1024;
const DEVICE_TOKENS: usize = 8192;

/// What a stage's linears read, group by group, and the stage's outputs.
type Looked<B> = (Vec<Option<GramStatistics>>, Vec<Activations<B>>);

/// Why calibration ended early, for all of its points.
pub(in crate::run) enum Stopped {
    /// The user wants to stop.
    Interrupted,
    /// The model can't run the windows, or the device failed.
    Failed(CellError),
}

impl<E: Into<CellError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Prunes a session's model by methods that look at inputs; one result a point.
///
/// # Errors
/// When the user stops it, the model can't run the windows or the device fails.
pub(in crate::run) fn calibrate<B: SparseBackend>(
    session: &mut Session<B>,
    windows: &[Vec<u32>],
    points: &[&PrunePoint],
    dtype: Dtype,
    watch: &dyn Watch,
) -> Result<Vec<Result<Calibrated, CellError>>, Stopped> {
    let start = Instant::now();
    let batches = begin(session, windows)?;
    let session = &*session;
    let mut work: Vec<Work<'_, B>> = points.iter().map(|point| Work::new(session, point)).collect();
    let mut engine = Engine { session, dtype, watch, pruning: Duration::ZERO };
    engine.budgets(&mut work, &batches)?;
    engine.walk(&mut work, batches)?;
    let calibrate_seconds = (start.elapsed() - engine.pruning).as_secs_f64();
    let result = |work: Work<'_, B>| match work.failure {
        Some(error) => Err(error),
        None => {
            let ties = ties(work.ties, &work.linears);
            let (mut layers, prune_seconds) = (work.layers, work.seconds.as_secs_f64());
            layers.sort_by_key(|pruned| pruned.module);
            let scarce = work.scarce.found();
            Ok(Calibrated { layers, calibrate_seconds, prune_seconds, ties, scarce })
        }
    };
    Ok(work.into_iter().map(result).collect())
}

/// What enters the first stage.
fn begin<B: SparseBackend>(session: &mut Session<B>, windows: &[Vec<u32>]) -> Result<Vec<Activations<B>>, Stopped> {
    let tokens = if B::ON_HOST { HOST_TOKENS } else { DEVICE_TOKENS };
    let longest = windows.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let batches = windows.chunks((tokens / longest).max(1)).map(|windows| {
        let batch = Batch::new(windows.iter().map(Vec::as_slice));
        session.decoder.begin(&batch).map_err(|error| Stopped::from(ForwardError::from(error)))
    });
    batches.collect()
}

/// A point on its way through the model.
struct Work<'a, B: SparseBackend> {
    point: &'a PrunePoint,
    /// The linears that it prunes.
    linears: Vec<Prunable<'a, B>>,
    /// The sparsity of each block, where they differ.
    budget: Option<Vec<f64>>,
    layers: Vec<Pruned>,
    /// Weights that tie so far, where the method knows.
    ties: Option<u64>,
    /// Experts that few tokens reach.
    scarce: Scarce,
    seconds: Duration,
    failure: Option<CellError>,
}

impl<'a, B: SparseBackend> Work<'a, B> {
    fn new(session: &'a Session<B>, point: &'a PrunePoint) -> Self {
        let (linears, failure) = match prunable(session, point) {
            Ok(linears) => (linears, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let (layers, seconds, scarce) = (Vec::new(), Duration::ZERO, Scarce::default());
        Self { point, linears, budget: None, layers, ties: Some(0), scarce, seconds, failure }
    }

    /// Those of some linears that it prunes.
    fn among(&self, modules: &[usize]) -> impl Iterator<Item = &Prunable<'a, B>> {
        let live = self.failure.is_none();
        self.linears.iter().filter(move |linear| live && modules.contains(&linear.module))
    }

    fn prunes(&self, groups: &[Vec<usize>]) -> bool {
        groups.iter().any(|group| self.among(group).next().is_some())
    }

    fn needs(&self) -> Needs {
        self.point.method.entry().inputs
    }

    fn sparsity(&self, stage: Stage) -> f64 {
        match (&self.budget, stage) {
            (Some(budget), Stage::Block(index)) => budget[index],
            _ => self.point.sparsity,
        }
    }

    /// The share of outliers among what it prunes of a block.
    fn outlier_share(
        &self,
        groups: &[Vec<usize>],
        inputs: &[Option<GramStatistics>],
    ) -> Result<Option<f64>, ReadError> {
        let mut linears = Vec::new();
        for (group, inputs) in groups.iter().zip(inputs) {
            let Some(inputs) = inputs else { continue };
            for linear in self.among(group) {
                linears.push((linear.layer(self.point.method)?, inputs));
            }
        }
        let owl = self.point.budget.filter(|_| !linears.is_empty());
        Ok(owl.map(|owl| owl::outlier_share(&linears, owl.m)))
    }

    /// Spreads its sparsity over the blocks that have shares of outliers.
    fn spread(&mut self, shares: &[(usize, f64)], blocks: usize) {
        let Some(owl) = self.point.budget else { return };
        let (places, shares): (Vec<usize>, Vec<f64>) = shares.iter().copied().unzip();
        match owl::sparsities(&shares, self.point.sparsity, owl.lambda) {
            Ok(sparsities) => {
                let mut budget = vec![self.point.sparsity; blocks];
                places.into_iter().zip(sparsities).for_each(|(block, sparsity)| budget[block] = sparsity);
                self.budget = Some(budget);
            }
            Err(error) => self.failure = Some(error.into()),
        }
    }

    /// Prunes what it prunes of a stage.
    fn prune(&mut self, stage: Stage, groups: &[Vec<usize>], inputs: &[Option<GramStatistics>], dtype: Dtype) {
        let start = Instant::now();
        let request = prune::Request { sparsity: self.sparsity(stage), ..self.point.request(None) };
        let (mut layers, mut scarce) = (Vec::new(), self.scarce);
        for (group, inputs) in groups.iter().zip(inputs) {
            let Some(inputs) = inputs else { continue };
            layers.extend(self.among(group).map(|linear| prune_linear(linear, inputs, &request, dtype)));
            scarce.add(self.among(group).filter(|linear| linear.is_expert).count(), inputs.tokens());
        }
        self.scarce = scarce;
        match layers.into_iter().collect::<Result<Vec<(Pruned, Option<u64>)>, _>>() {
            Ok(layers) => {
                for (pruned, ties) in layers {
                    self.layers.push(pruned);
                    self.ties = self.ties.zip(ties).map(|(sum, ties)| sum + ties);
                }
            }
            Err(error) => {
                self.failure = Some(error);
                self.layers.clear();
            }
        }
        self.seconds += start.elapsed();
    }
}

/// Activations of all windows between two stages, and the points that see them.
struct State<B: SparseBackend> {
    batches: Vec<Activations<B>>,
    /// Indices of [`Work`].
    points: Vec<usize>,
}

struct Engine<'a, B: SparseBackend> {
    session: &'a Session<B>,
    dtype: Dtype,
    watch: &'a dyn Watch,
    /// The time of all points' pruning.
    pruning: Duration,
}

impl<B: SparseBackend> Engine<'_, B> {
    /// The sparsities of blocks, for points that spread theirs: a pass through the dense model.
    fn budgets(&mut self, work: &mut [Work<'_, B>], batches: &[Activations<B>]) -> Result<(), Stopped> {
        let spread: Vec<usize> = (0..work.len()).filter(|&i| work[i].point.budget.is_some()).collect();
        if spread.is_empty() {
            return Ok(());
        }
        let architecture = self.session.decoder.architecture();
        let mut shares: Vec<Vec<(usize, f64)>> = vec![Vec::new(); work.len()];
        let mut batches = self.advance(&self.session.decoder, Stage::Entry, batches.to_vec());
        for block in 0..architecture.blocks.len() {
            let stage = Stage::Block(block);
            self.enter("looking for outliers in", stage)?;
            let groups = architecture.linears_of(stage);
            let wanted = wanted(&groups, spread.iter().map(|&i| &work[i]), |_| Needs::Norms);
            let (inputs, advanced) = self.look(stage, &groups, &wanted, batches, true)?;
            batches = advanced;
            for &i in &spread {
                shares[i].extend(work[i].outlier_share(&groups, &inputs)?.map(|share| (block, share)));
            }
        }
        for i in spread {
            work[i].spread(&shares[i], architecture.blocks.len());
        }
        Ok(())
    }

    /// Prunes stage after stage.
    fn walk(&mut self, work: &mut [Work<'_, B>], batches: Vec<Activations<B>>) -> Result<(), Stopped> {
        let architecture = self.session.decoder.architecture();
        let stages: Vec<Stage> = architecture.stages().collect();
        let groups: Vec<Vec<Vec<usize>>> = stages.iter().map(|&stage| architecture.linears_of(stage)).collect();
        let mut states = vec![State { batches, points: (0..work.len()).collect() }];
        for (at, (&stage, groups_here)) in stages.iter().zip(&groups).enumerate() {
            self.enter("calibrating", stage)?;
            let mut next = Vec::new();
            for mut state in states {
                // Who prunes nothing from here on needs no activations.
                state.points.retain(|&i| groups[at..].iter().any(|groups| work[i].prunes(groups)));
                let more = |work: &Work<'_, B>| groups[at + 1..].iter().any(|groups| work.prunes(groups));
                self.stage(stage, groups_here, state, work, more, &mut next)?;
            }
            states = next;
        }
        Ok(())
    }

    /// Runs a state through a stage; `more` says whether a point prunes anything after it.
    fn stage(
        &mut self,
        stage: Stage,
        groups: &[Vec<usize>],
        state: State<B>,
        work: &mut [Work<'_, B>],
        more: impl Fn(&Work<'_, B>) -> bool,
        next: &mut Vec<State<B>>,
    ) -> Result<(), Stopped> {
        let State { batches, points } = state;
        let (pruning, passing): (Vec<usize>, Vec<usize>) = points.iter().partition(|&&i| work[i].prunes(groups));
        if pruning.is_empty() {
            if !passing.is_empty() {
                next.push(State { batches: self.advance(&self.session.decoder, stage, batches), points: passing });
            }
            return Ok(());
        }
        let dense = |i: &&usize| work[**i].point.propagate == Some(Propagate::Dense) && more(&work[**i]);
        let mut stay = passing;
        stay.extend(pruning.iter().filter(dense));
        stay.sort_unstable();
        let mut leave: Vec<usize> = pruning.iter().copied().filter(|i| !stay.contains(i) && more(&work[*i])).collect();
        let wanted = wanted(groups, pruning.iter().map(|&i| &work[i]), Work::needs);
        let inputs = if leave.is_empty() { Vec::new() } else { batches.clone() };
        let (statistics, advanced) = self.look(stage, groups, &wanted, batches, !stay.is_empty())?;
        for &i in &pruning {
            let before = work[i].seconds;
            work[i].prune(stage, groups, &statistics, self.dtype);
            self.pruning += work[i].seconds - before;
        }
        drop(statistics);
        let failed = |i: &usize| work[*i].failure.is_some();
        stay.retain(|i| !failed(i));
        leave.retain(|i| !failed(i));
        if !stay.is_empty() {
            next.push(State { batches: advanced, points: stay });
        }
        let mut inputs = Some(inputs);
        for (place, &i) in leave.iter().enumerate() {
            // The last one takes the inputs: they go as their outputs come.
            let last = place + 1 == leave.len();
            let from = if last { inputs.take() } else { inputs.clone() };
            let decoder = self.pruned(&work[i], groups)?;
            next.push(State { batches: self.advance(&decoder, stage, from.unwrap_or_default()), points: vec![i] });
            self.interrupted()?;
        }
        Ok(())
    }

    /// Runs a stage with dense weights: what its linears read, as sums, and its outputs where they are wanted.
    fn look(
        &self,
        stage: Stage,
        groups: &[Vec<usize>],
        wanted: &[Needs],
        batches: Vec<Activations<B>>,
        advance: bool,
    ) -> Result<Looked<B>, Stopped> {
        let decoder = &self.session.decoder;
        let sums = |(group, needs): (&Vec<usize>, &Needs)| {
            let cols = decoder.architecture().modules[group[0]].shape[1];
            (*needs > Needs::Nothing).then(|| GramSums::<B>::new(cols, *needs == Needs::Gram))
        };
        let mut sums: Vec<Option<GramSums<B>>> = groups.iter().zip(wanted).map(sums).collect();
        let mut advanced = Vec::with_capacity(if advance { batches.len() } else { 0 });
        for batch in batches {
            self.interrupted()?;
            let see = |linears: &[usize], x: &burn::tensor::Tensor<B, 2>| {
                let group = groups.iter().position(|group| group == linears);
                if let Some(sums) = group.and_then(|group| sums[group].as_mut()) {
                    sums.add(x);
                }
            };
            match advance {
                true => advanced.push(decoder.run_stage(stage, batch, see)),
                false => decoder.observe_stage(stage, &batch, see),
            }
        }
        let statistics = sums.into_iter().zip(groups).map(|(sums, group)| {
            let gram = sums.as_ref().is_some_and(GramSums::has_gram);
            let totals = sums.map(GramSums::finish).transpose()?;
            Ok(totals.map(|totals| match totals.tokens {
                0 => unseen(decoder.architecture().modules[group[0]].shape[1], gram),
                tokens => GramStatistics::new(tokens, totals.squares, totals.gram),
            }))
        });
        Ok((statistics.collect::<Result<_, CellError>>()?, advanced))
    }

    /// Runs a stage; the inputs go as the outputs come.
    fn advance(&self, decoder: &Decoder<B>, stage: Stage, batches: Vec<Activations<B>>) -> Vec<Activations<B>> {
        batches.into_iter().map(|batch| decoder.run_stage(stage, batch, |_, _| {})).collect()
    }

    /// The dense model with what a point left of a stage.
    fn pruned(&self, work: &Work<'_, B>, groups: &[Vec<usize>]) -> Result<Decoder<B>, ReadError> {
        let mut decoder = self.session.decoder.clone();
        let dtype = burn_dtype(self.dtype);
        for pruned in work.layers.iter().filter(|pruned| groups.iter().any(|group| group.contains(&pruned.module))) {
            let masked = pruned.masked(self.session.dense(pruned.module), dtype, self.session.decoder.device())?;
            decoder.set_weight(pruned.module, LinearWeight::Dense(masked));
        }
        Ok(decoder)
    }

    fn enter(&self, doing: &str, stage: Stage) -> Result<(), Stopped> {
        self.interrupted()?;
        let blocks = self.session.decoder.architecture().blocks.len();
        let at = match stage {
            Stage::Entry => 0,
            Stage::Block(index) => index + 1,
            Stage::Exit => blocks,
        };
        self.watch.stage(&format!("{doing} {at} of {blocks} blocks"));
        Ok(())
    }

    fn interrupted(&self) -> Result<(), Stopped> {
        if self.watch.interrupted() { Err(Stopped::Interrupted) } else { Ok(()) }
    }
}

/// What is taken for the inputs of an expert that no token reaches: nothing is known of them, and all count alike.
fn unseen(cols: usize, gram: bool) -> GramStatistics {
    let identity = || {
        let mut identity = vec![0.0; cols * cols];
        identity.iter_mut().step_by(cols + 1).for_each(|number| *number = 1.0);
        identity
    };
    GramStatistics::new(0, vec![1.0; cols], gram.then(identity))
}

/// The most that any of some points needs to know of each group of linears.
fn wanted<'w, 'a: 'w, B: SparseBackend + 'a>(
    groups: &[Vec<usize>],
    work: impl Iterator<Item = &'w Work<'a, B>> + Clone,
    needs: impl Fn(&Work<'a, B>) -> Needs,
) -> Vec<Needs> {
    let of_group = |group: &Vec<usize>| {
        let here = work.clone().filter(|work| work.among(group).next().is_some());
        here.map(&needs).max().unwrap_or(Needs::Nothing)
    };
    groups.iter().map(of_group).collect()
}

#[cfg(test)]
mod tests;
