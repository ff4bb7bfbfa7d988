//! What enters linears while a text runs through a model, and what the model predicts when small inputs are 0.
//!
//! ```text
//!   windows ── stage by stage ──> inputs of a group of linears, batch by batch ──> norms, or the inputs themselves
//!                                  the same numbers enter q, k and v: they are kept once
//! ```

use super::matrix::Matrix;
use super::sheet::{Sheet, row};
use crate::analysis::{Linear, activation_sparsity, input_thresholds};
use crate::config::analysis::RoleThreshold;
use crate::execute::{ReadError, SparseBackend, host_numbers};
use crate::load::Tokens;
use crate::measure::{ForwardError, agreement, all_logits, likelihood};
use crate::model::{Batch, Decoder, Stage};
use crate::plan::AnalysisCell;
use crate::run::model::{CellError, Stopped};
use crate::run::scheduler::Watch;
use burn::tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;

/// Tokens that run through a stage at a time, unless one window alone has more.
const TOKENS: usize = 1024;

/// The first tokens of some windows.
pub(super) fn first_tokens(windows: &[Vec<u32>], tokens: usize) -> Vec<Vec<u32>> {
    let mut left = tokens;
    let mut some = Vec::new();
    for window in windows {
        let window = &window[..window.len().min(left)];
        left -= window.len();
        if !window.is_empty() {
            some.push(window.to_vec());
        }
    }
    some
}

/// Runs windows through a model; `see` is shown what enters the linears of each group, batch by batch, and `end` is called
/// when all batches have gone through a group's stage.
pub(super) fn walk<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    windows: &[Vec<u32>],
    watch: &dyn Watch,
    wanted: &dyn Fn(&[usize]) -> bool,
    see: &mut dyn FnMut(&[usize], Vec<f32>),
    end: &mut dyn FnMut(),
) -> Result<(), Stopped> {
    let longest = windows.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let mut batches = Vec::new();
    for windows in windows.chunks((TOKENS / longest).max(1)) {
        let batch = Batch::new(windows.iter().map(Vec::as_slice));
        batches.push(decoder.begin(&batch).map_err(|error| CellError::from(ForwardError::from(error)))?);
    }
    let decoder = &*decoder;
    let stages: Vec<Stage> = decoder.architecture().stages().collect();
    for (at, &stage) in stages.iter().enumerate() {
        watch.stage(&format!("looking at inputs, part {} of {}", at + 1, stages.len()));
        let mut problem: Option<ReadError> = None;
        let mut advanced = Vec::with_capacity(batches.len());
        for batch in batches {
            if watch.interrupted() {
                return Err(Stopped::Interrupted);
            }
            advanced.push(decoder.run_stage(stage, batch, |linears, x: &Tensor<B, 2>| {
                if wanted(linears) {
                    match host_numbers(x.clone()) {
                        Ok(numbers) => see(linears, numbers),
                        Err(error) => problem = Some(error),
                    }
                }
            }));
        }
        if let Some(error) = problem {
            return Err(Stopped::Failed(error.into()));
        }
        batches = advanced;
        end();
    }
    Ok(())
}

/// The norms of the inputs of every linear, over all tokens.
pub(super) fn input_norms<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    windows: &[Vec<u32>],
    watch: &dyn Watch,
) -> Result<HashMap<usize, Arc<Vec<f64>>>, Stopped> {
    let widths: Vec<usize> =
        decoder.architecture().modules.iter().map(|m| m.shape.last().copied().unwrap_or(0)).collect();
    let mut sums: HashMap<Vec<usize>, Vec<f64>> = HashMap::new();
    let mut see = |linears: &[usize], numbers: Vec<f32>| {
        let width = widths[linears[0]];
        let sums = sums.entry(linears.to_vec()).or_insert_with(|| vec![0.0; width]);
        for row in numbers.chunks(width) {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
        }
    };
    let head = decoder.architecture().head;
    walk(decoder, windows, watch, &|linears| !linears.contains(&head), &mut see, &mut || {})?;
    let mut norms = HashMap::new();
    for (linears, sums) in sums {
        let of_group = Arc::new(sums.into_iter().map(f64::sqrt).collect::<Vec<f64>>());
        norms.extend(linears.into_iter().map(|linear| (linear, Arc::clone(&of_group))));
    }
    Ok(norms)
}

/// The inputs of some linears, `[tokens, in_features]` each.
pub(super) fn inputs_of<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    windows: &[Vec<u32>],
    watch: &dyn Watch,
    wanted: &[usize],
) -> Result<HashMap<usize, Arc<Vec<f32>>>, Stopped> {
    let mut all: HashMap<Vec<usize>, Vec<f32>> = HashMap::new();
    let mut see = |linears: &[usize], numbers: Vec<f32>| all.entry(linears.to_vec()).or_default().extend(numbers);
    let meant = |linears: &[usize]| linears.iter().any(|linear| wanted.contains(linear));
    walk(decoder, windows, watch, &meant, &mut see, &mut || {})?;
    let mut inputs = HashMap::new();
    for (linears, numbers) in all {
        let numbers = Arc::new(numbers);
        inputs.extend(linears.into_iter().map(|linear| (linear, Arc::clone(&numbers))));
    }
    Ok(inputs)
}

/// The thresholds of some linears: quantiles of their inputs' magnitudes, one for each target.
pub(super) fn thresholds_of<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    windows: &[Vec<u32>],
    watch: &dyn Watch,
    wanted: &[usize],
    targets: &[f64],
) -> Result<HashMap<usize, Vec<f64>>, Stopped> {
    let all = std::cell::RefCell::new(HashMap::<Vec<usize>, Vec<f32>>::new());
    let mut thresholds = HashMap::new();
    let meant = |linears: &[usize]| linears.iter().any(|linear| wanted.contains(linear));
    let mut see = |linears: &[usize], numbers: Vec<f32>| {
        all.borrow_mut().entry(linears.to_vec()).or_default().extend(numbers);
    };
    // What a stage has seen goes with it, so that one stage's inputs are held at a time.
    let mut end = || {
        for (linears, numbers) in all.borrow_mut().drain() {
            let found = input_thresholds(&numbers, targets);
            thresholds.extend(linears.into_iter().map(|linear| (linear, found.clone())));
        }
    };
    walk(decoder, windows, watch, &meant, &mut see, &mut end)?;
    Ok(thresholds)
}

/// A target, none where thresholds are given, and the threshold of each linear.
pub(super) type Cut = (Option<f64>, Vec<(usize, f64)>);

/// What a model predicts when small inputs are 0: for each target its linears' thresholds.
pub(super) fn behaviour<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    tokens: &Tokens,
    cuts: &[Cut],
    source: usize,
    watch: &dyn Watch,
    sheet: &mut Sheet,
) -> Result<(), Stopped> {
    let vocabulary = decoder.architecture().vocabulary;
    let of_text = |decoder: &mut Decoder<B>| match &tokens.perplexity {
        Some(windows) => {
            let found = likelihood(decoder, &windows.tokens, windows.overlap, windows.bytes, |_| {});
            found.map(|likelihood| Some(likelihood.perplexity()))
        }
        None => Ok(None),
    };
    watch.stage("predictions as they are");
    let reference = all_logits(decoder, &tokens.agreement).map_err(CellError::from)?;
    let base = of_text(decoder).map_err(CellError::from)?;
    for (target, thresholds) in cuts {
        if watch.interrupted() {
            return Err(Stopped::Interrupted);
        }
        watch.stage("predictions without small inputs");
        let mut cut = decoder.clone();
        thresholds.iter().for_each(|&(module, threshold)| cut.set_threshold(module, threshold));
        let logits = all_logits(&mut cut, &tokens.agreement).map_err(CellError::from)?;
        let found = agreement(&reference, &logits, vocabulary);
        let perplexity = of_text(&mut cut).map_err(CellError::from)?;
        sheet.push(
            "activation_behaviour",
            source,
            row![*target, found.top1_match, found.top5_overlap, perplexity, base, found.kl_nats, found.positions,],
        );
    }
    Ok(())
}

/// What thresholds do to a matrix, a row for each and each size of a batch.
pub(super) fn sparsity_rows(
    cell: &AnalysisCell,
    matrix: &Matrix,
    source: usize,
    (targets, given, batch): (&[f64], &[RoleThreshold], &[usize]),
    sheet: &mut Sheet,
) {
    let Some(inputs) = &matrix.inputs else { return };
    let named = given.iter().filter(|threshold| Some(threshold.role) == cell.role);
    let cuts: Vec<(Option<f64>, f64)> = match given.is_empty() {
        true => targets.iter().copied().map(Some).zip(input_thresholds(inputs, targets)).collect(),
        false => named.map(|threshold| (None, threshold.threshold)).collect(),
    };
    let thresholds: Vec<f64> = cuts.iter().map(|(_, threshold)| *threshold).collect();
    let linear = Linear { inputs, weights: &matrix.weights, pattern: &matrix.pattern };
    let tokens = inputs.len() / matrix.pattern.cols();
    for ((target, _), line) in cuts.iter().zip(activation_sparsity(&linear, &thresholds, batch)) {
        for (size, union) in &line.batch_union_kept {
            sheet.push(
                "activation_sparsity",
                source,
                row![
                    *target,
                    line.threshold,
                    tokens,
                    line.achieved_mean,
                    line.achieved_p5,
                    line.achieved_p95,
                    line.rel_output_error,
                    line.rel_output_error_token_mean,
                    *size,
                    *union,
                    line.weights_touched,
                    line.weights_touched_fraction,
                    line.weights_touched_of_kept,
                ],
            );
        }
    }
}
