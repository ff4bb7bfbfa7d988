//! What a task gives: its numbers, which are in the cell's file, and its items, which have a file of their own.
//!
//! ```text
//!   cells/CELL.json            {"task": {"task": "boolq", "items": 3270, "metrics": [{"metric": "acc", "value": ..}], "kept": SHA-256}}
//!   items/CELL-boolq-KEPT.csv  row,gold,acc_choice,acc,log_likelihoods
//!                              1,0,1,0,-3.7128 -2.9054                   KEPT: the first digits of the file's SHA-256
//! ```
//! With the items, two models are compared item by item. A file that does not have its digest is not believed.

use super::provenance::sha256;
use crate::config::tasks::{TaskMetric, TaskName};
use crate::plan::CellId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The numbers of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskNumbers {
    /// The task.
    pub task: TaskName,
    /// Examples in front of an item.
    pub shots: usize,
    /// Items.
    pub items: usize,
    /// Items whose context was cut in front, since the model has no room for it.
    pub cut: usize,
    /// What the task gives.
    pub metrics: Vec<TaskValue>,
    /// SHA-256 of the file of items.
    pub kept: String,
    /// The items; a record that was read has none until their file is.
    #[serde(skip)]
    pub rows: Vec<ItemRow>,
}

/// A number of a task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskValue {
    /// Which one.
    pub metric: TaskMetric,
    /// Its value.
    pub value: f64,
    /// Its standard error over items, where there are two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<f64>,
}

/// What came out of an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ItemRow {
    /// Its row in the dataset, from 1.
    pub row: usize,
    /// The right choice, from 0.
    pub gold: usize,
    /// For each metric that is a share of items: the choice that was made, where there are any, and whether it is right.
    pub answers: Vec<(Option<usize>, bool)>,
    /// The log-likelihood of each choice.
    pub log_likelihoods: Vec<f64>,
    /// What the model has written.
    pub written: Option<String>,
}

impl TaskNumbers {
    /// With the digest of its items.
    pub fn new(task: TaskName, shots: usize, cut: usize, metrics: Vec<TaskValue>, rows: Vec<ItemRow>) -> Self {
        let mut numbers = Self { task, shots, items: rows.len(), cut, metrics, kept: String::new(), rows };
        numbers.kept = sha256(numbers.file().as_bytes());
        numbers
    }

    /// The metrics that are shares of items, in the order of [`ItemRow::answers`].
    pub fn shares(&self) -> impl Iterator<Item = TaskMetric> + '_ {
        self.metrics.iter().map(|value| value.metric).filter(|metric| metric.is_share())
    }

    /// Where a cell's items are, from the folder of results.
    pub fn path(&self, cell: &CellId) -> PathBuf {
        let kept: String = self.kept.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        PathBuf::from(format!("items/{cell}-{}-{kept}.csv", self.task))
    }

    /// The file of items.
    pub fn file(&self) -> String {
        let written = self.rows.iter().any(|row| row.written.is_some());
        let mut names = vec!["row".to_owned(), "gold".into()];
        names.extend(self.shares().flat_map(|metric| [format!("{metric}_choice"), metric.to_string()]));
        names.push("log_likelihoods".into());
        names.extend(written.then(|| "written".to_owned()));
        let mut out = csv::Writer::from_writer(Vec::new());
        let mut write =
            |row: &[String]| out.write_record(row).expect("rows are as long as the header, and memory takes all");
        write(&names);
        for ItemRow { row, gold, answers, log_likelihoods, written: text } in &self.rows {
            let mut fields = vec![row.to_string(), gold.to_string()];
            for (choice, right) in answers {
                fields.extend([
                    choice.map_or_else(String::new, |choice| choice.to_string()),
                    u8::from(*right).to_string(),
                ]);
            }
            // The digits of an f32: more would say nothing, and a file has tens of thousands of them.
            let numbers: Vec<String> = log_likelihoods.iter().map(|number| (*number as f32).to_string()).collect();
            fields.push(numbers.join(" "));
            fields.extend(written.then(|| text.clone().unwrap_or_default()));
            write(&fields);
        }
        String::from_utf8(out.into_inner().expect("memory takes all")).expect("only strings were written")
    }

    /// Takes the items of a file; whether it is the one that was kept.
    #[must_use]
    pub fn take_file(&mut self, bytes: &[u8]) -> bool {
        if sha256(bytes) != self.kept {
            return false;
        }
        let shares = self.shares().count();
        let rows: Option<Vec<ItemRow>> =
            csv::Reader::from_reader(bytes).records().map(|record| row_of(&record.ok()?, shares)).collect();
        let whole = rows.filter(|rows| rows.len() == self.items);
        let taken = whole.is_some();
        self.rows = whole.unwrap_or_default();
        taken
    }

    /// A number of it.
    pub fn value(&self, metric: TaskMetric) -> Option<&TaskValue> {
        self.metrics.iter().find(|value| value.metric == metric)
    }
}

fn row_of(record: &csv::StringRecord, shares: usize) -> Option<ItemRow> {
    let number = |index: usize| record.get(index)?.parse::<usize>().ok();
    let answers = (0..shares).map(|share| Some((number(2 + 2 * share), number(3 + 2 * share)? == 1)));
    let answers = answers.collect::<Option<Vec<_>>>()?;
    let numbers = record.get(2 + 2 * shares)?.split(' ').filter(|text| !text.is_empty());
    Some(ItemRow {
        row: number(0)?,
        gold: number(1)?,
        answers,
        log_likelihoods: numbers.map(|text| text.parse().ok()).collect::<Option<_>>()?,
        written: record.get(3 + 2 * shares).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(task: &str, metrics: &[TaskMetric], rows: Vec<ItemRow>) -> TaskNumbers {
        let value = |metric: &TaskMetric| TaskValue { metric: *metric, value: 0.5, stderr: Some(0.1) };
        TaskNumbers::new(task.parse().unwrap(), 0, 0, metrics.iter().map(value).collect(), rows)
    }

    #[test]
    fn items_come_back_from_their_file_and_from_no_other() {
        let row = |row, answers, written: Option<&str>| ItemRow {
            row,
            gold: 1,
            answers,
            log_likelihoods: if written.is_some() { Vec::new() } else { vec![-1.5, -2.25] },
            written: written.map(str::to_owned),
        };
        let choices = vec![
            row(1, vec![(Some(1), true), (Some(0), false)], None),
            row(7, vec![(Some(0), false), (Some(1), true)], None),
        ];
        let written = vec![row(1, vec![(None, false), (None, true)], Some("a,\"b\"\n#### 3"))];
        let both = [
            numbers("piqa", &[TaskMetric::Acc, TaskMetric::AccNorm], choices),
            numbers("gsm8k", &[TaskMetric::StrictMatch, TaskMetric::FlexibleMatch], written),
        ];
        for numbers in both {
            let file = numbers.file();
            let mut read: TaskNumbers = serde_json::from_str(&serde_json::to_string(&numbers).unwrap()).unwrap();
            assert!(read.rows.is_empty() && read.take_file(file.as_bytes()));
            assert_eq!(read, numbers);
            assert!(!read.take_file(file.replace('7', "8").replace('3', "4").as_bytes()));
            let path = numbers.path(&CellId::named("00ff".into()));
            assert!(path.to_str().unwrap().starts_with(&format!("items/00ff-{}-", numbers.task)), "{path:?}");
        }
    }

    #[test]
    fn the_file_says_what_was_chosen() {
        let row = ItemRow { row: 3, gold: 0, answers: vec![(None, true)], log_likelihoods: vec![-0.1], written: None };
        let numbers = numbers("lambada_openai", &[TaskMetric::Acc, TaskMetric::Perplexity], vec![row]);
        assert_eq!(numbers.file(), "row,gold,acc_choice,acc,log_likelihoods\n3,0,,1,-0.1\n");
    }
}
