//! A task of a model: its items scored, and what is right counted.

use super::error::CellError;
use crate::config::experiment::TaskMetric;
use crate::execute::SparseBackend;
use crate::load::{TaskItem, TaskTokens, Tokenizer};
use crate::measure::{
    Asked, ForwardError, Scored, Writing, end_of_answer, last_number, likeliest, likeliest_by_length, mean_and_error,
    same_number, score, strict_number, write_greedily,
};
use crate::model::Decoder;
use crate::record::{ItemRow, TaskNumbers, TaskValue};

/// What ends a written answer, beside the token that ends a text.
const ENDS: [&str; 3] = ["Question:", "</s>", "<|im_end|>"];

/// Asks all items of a task. `stage` is told how far it is.
///
/// # Errors
/// When an item does not fit the model, or a logit is not finite.
pub(super) fn ask<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    task: &TaskTokens,
    tokenizer: &Tokenizer,
    stage: &dyn Fn(&str),
) -> Result<TaskNumbers, CellError> {
    let count = task.items.len();
    let done = |done: usize| stage(&format!("{} {done}/{count} items", task.task));
    done(0);
    let rows = match task.task.generates() {
        true => written(decoder, task, tokenizer, &done)?,
        false => chosen(decoder, task, &done)?,
    };
    let metrics = task.metrics.iter().enumerate().map(|(index, metric)| value(*metric, index, &rows)).collect();
    let is_cut = |item: &&TaskItem| item.requests.iter().any(|request| request.dropped > 0);
    Ok(TaskNumbers::new(task.task, task.shots, task.items.iter().filter(is_cut).count(), metrics, rows))
}

/// Which choices are the likeliest.
fn chosen<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    task: &TaskTokens,
    done: &dyn Fn(usize),
) -> Result<Vec<ItemRow>, CellError> {
    let items: Vec<Vec<Asked<'_>>> = task.items.iter().map(asked).collect();
    let scores = score(decoder, &items, done).map_err(|error| named(error, task))?;
    Ok(task.items.iter().zip(&scores).map(|(item, scores)| row(item, scores, task.metrics)).collect())
}

fn asked(item: &TaskItem) -> Vec<Asked<'_>> {
    item.requests.iter().map(|request| Asked { input: &request.input, targets: &request.targets }).collect()
}

fn row(item: &TaskItem, scores: &[Scored], metrics: &[TaskMetric]) -> ItemRow {
    let log_likelihoods: Vec<f64> = scores.iter().map(|scored| scored.log_likelihood).collect();
    let by_choice = |choice: usize| (Some(choice), choice == item.gold);
    let answer = |metric: &TaskMetric| match metric {
        // With nothing to choose from, what counts is whether the model would have said it.
        TaskMetric::Acc if scores.len() == 1 => Some((None, scores[0].greedy)),
        TaskMetric::Acc => Some(by_choice(likeliest(&log_likelihoods))),
        TaskMetric::AccNorm => Some(by_choice(likeliest_by_length(&log_likelihoods, &item.characters))),
        TaskMetric::Perplexity | TaskMetric::StrictMatch | TaskMetric::FlexibleMatch => None,
    };
    let answers = metrics.iter().filter_map(answer).collect();
    ItemRow { row: item.row, gold: item.gold, answers, log_likelihoods, written: None }
}

/// A metric over all items; `index` is its place among the task's.
fn value(metric: TaskMetric, index: usize, rows: &[ItemRow]) -> TaskValue {
    if metric.is_share() {
        let right: Vec<f64> = rows.iter().map(|row| f64::from(u8::from(row.answers[index].1))).collect();
        let (value, stderr) = mean_and_error(&right);
        return TaskValue { metric, value, stderr };
    }
    let losses: Vec<f64> = rows.iter().flat_map(|row| row.log_likelihoods.first().copied()).collect();
    let (mean, error) = mean_and_error(&losses);
    let value = (-mean).exp();
    // By the delta method; lm-evaluation-harness draws resamples, to about the same where it is small.
    TaskValue { metric, value, stderr: error.map(|error| value * error) }
}

/// What the model writes, and whether its numbers are right.
fn written<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    task: &TaskTokens,
    tokenizer: &Tokenizer,
    done: &dyn Fn(usize),
) -> Result<Vec<ItemRow>, CellError> {
    let prompts: Vec<&[u32]> = task.items.iter().map(|item| item.requests[0].input.as_slice()).collect();
    let eos = tokenizer.eos();
    // A text that can't be had ends nothing, and is an error below.
    let has_ended = |ids: &[u32]| tokenizer.decode(ids).is_ok_and(|text| end_of_answer(&text, &ENDS).is_some());
    let ends = |ids: &[u32]| ids.last() == eos.as_ref() || has_ended(ids);
    let writing = Writing { prompts: &prompts, most: TaskTokens::WRITTEN };
    let answers = write_greedily(decoder, writing, &ends, done);
    let answers = answers.map_err(|error| named(error, task))?;
    let row = |(item, ids): (&TaskItem, Vec<u32>)| {
        let mut text = tokenizer.decode(&ids)?;
        text.truncate(end_of_answer(&text, &ENDS).unwrap_or(text.len()));
        let right = item.answer.as_deref().unwrap_or_default();
        let found = [strict_number(&text), last_number(&text)];
        let answers = found.map(|found| (None, same_number(found, right))).to_vec();
        Ok(ItemRow { row: item.row, gold: 0, answers, log_likelihoods: Vec::new(), written: Some(text) })
    };
    task.items.iter().zip(answers).map(row).collect()
}

/// An error with the row that it is about.
fn named(error: ForwardError, task: &TaskTokens) -> CellError {
    match error {
        ForwardError::NotFinite { token: item } => {
            let row = task.items.get(item).map_or(0, |item| item.row);
            CellError::TaskLogits { task: task.task, row, file: task.source.clone() }
        }
        ForwardError::Decoder(_) | ForwardError::Read(_) => error.into(),
    }
}
