//! Which cells of the plan a process runs: `--only`, `--partition`.

use super::task::Task;
use crate::column::{Value, key_column};
use crate::diagnostic::nearest;
use crate::keyword::backticked;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// What is wrong with a selection.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SelectError {
    /// A condition is not `column OP value`.
    #[error("`{0}` is no condition, expected `column=value`, `column!=value`, or `<`, `<=`, `>`, `>=` with a number")]
    Condition(String),
    /// No such key column.
    #[error("unknown column `{name}`, expected one of {known}{}", meant(name), known = key_names().join(", "))]
    Column {
        /// As it is written.
        name: String,
    },
    /// A percentage where a fraction stands.
    #[error("`{0}` compares a share with a percentage: write `{1}`")]
    Percent(String, String),
    /// No cell of the plan has the value.
    #[error("no cell has `{column}={value}`{}", suggestion(value, known))]
    Value {
        /// The column.
        column: &'static str,
        /// What was asked for.
        value: String,
        /// What cells have.
        known: Vec<String>,
    },
    /// An order on something that is no number.
    #[error("`{0}` compares with `<` or `>`, which needs a number")]
    Number(String),
    /// No `slice:M/N`.
    #[error("`{0}` is no partition, expected `slice:M/N` with 1 <= M <= N")]
    Partition(String),
}

/// `: did you mean `wanda`?` or the values that there are.
fn suggestion(value: &str, known: &[String]) -> String {
    match nearest(value, known.iter().map(String::as_str)) {
        Some(meant) => format!(": did you mean `{meant}`?"),
        None if known.is_empty() => String::new(),
        None => format!(", which has {}", backticked(known)),
    }
}

fn meant(name: &str) -> String {
    nearest(name, key_names()).map_or_else(String::new, |meant| format!(": did you mean `{meant}`?"))
}

/// `--only`: conditions on the key columns, all of which must hold.
///
/// ```
/// # use sparsify_exp::plan::Only;
/// let only: Only = "method=magnitude, sparsity>=0.5".parse()?;
/// assert!("method==x".parse::<Only>().is_ok());
/// assert!("speed=1".parse::<Only>().is_err());
/// # Ok::<(), sparsify_exp::plan::SelectError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Only(Vec<Condition>);

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    column: &'static str,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Is(String),
    IsNot(String),
    Order { least: bool, equal: bool, bound: f64 },
}

/// Longer operators first, so that `<=` is not read as `<`.
const OPERATORS: [&str; 7] = ["==", "!=", "<=", ">=", "=", "<", ">"];

impl FromStr for Only {
    type Err = SelectError;

    fn from_str(text: &str) -> Result<Self, SelectError> {
        text.split([',', '&'])
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(condition)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn condition(text: &str) -> Result<Condition, SelectError> {
    let malformed = || SelectError::Condition(text.into());
    let at = text.find(['=', '!', '<', '>']).ok_or_else(malformed)?;
    let operator = OPERATORS.into_iter().find(|op| text[at..].starts_with(op)).ok_or_else(malformed)?;
    let (name, value) = (text[..at].trim(), text[at + operator.len()..].trim().trim_matches(['"', '\'']));
    let known = Task::key_columns().into_iter().find(|(known, _)| *known == key_column(name));
    let (column, _) = known.ok_or_else(|| SelectError::Column { name: name.into() })?;
    if let Some(percent) = value.strip_suffix('%').map(str::trim).and_then(|number| number.parse::<f64>().ok()) {
        let fraction = format!("{:.8}", percent / 100.0);
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        return Err(SelectError::Percent(text.trim().into(), format!("{name}{operator}{fraction}")));
    }
    let test = match operator {
        "=" | "==" => Test::Is(value.into()),
        "!=" => Test::IsNot(value.into()),
        _ => {
            let bound = value.parse().map_err(|_| SelectError::Number(text.into()))?;
            Test::Order { least: operator.starts_with('>'), equal: operator.ends_with('='), bound }
        }
    };
    Ok(Condition { column, test })
}

impl Only {
    /// The columns that it is about.
    pub fn columns(&self) -> Vec<&'static str> {
        self.0.iter().map(|condition| condition.column).collect()
    }

    /// Whether a cell is selected. No condition on a column that its kind of cell lacks holds.
    pub fn matches(&self, task: &Task) -> bool {
        self.0.iter().all(|condition| condition.holds(task))
    }

    /// Says so where a value is one that no cell of a plan has, which is likely a slip.
    ///
    /// # Errors
    /// The first such value.
    pub fn known(&self, tasks: &[&Task]) -> Result<(), SelectError> {
        /// The most values that a message lists.
        const MOST: usize = 12;
        for Condition { column, test } in &self.0 {
            let (Test::Is(value) | Test::IsNot(value)) = test else { continue };
            let entries = tasks.iter().flat_map(|task| task.kind().key()).filter(|(name, _)| name == column);
            let mut known: Vec<String> = Vec::new();
            let mut there = false;
            for (_, entry) in entries {
                there |= equal(&entry, value);
                let text = entry.to_string();
                if !text.is_empty() && known.len() < MOST && !known.contains(&text) {
                    known.push(text);
                }
            }
            if !there {
                return Err(SelectError::Value { column, value: value.clone(), known });
            }
        }
        Ok(())
    }
}

impl Condition {
    fn holds(&self, task: &Task) -> bool {
        let key = task.kind().key();
        let Some((_, entry)) = key.iter().find(|(name, _)| *name == self.column) else { return false };
        match &self.test {
            Test::Is(value) => equal(entry, value),
            Test::IsNot(value) => !equal(entry, value),
            Test::Order { least, equal, bound } => entry.number().is_some_and(|value| {
                (value == *bound && *equal) || if *least { value > *bound } else { value < *bound }
            }),
        }
    }
}

/// The names of the key columns of all kinds.
fn key_names() -> Vec<&'static str> {
    Task::key_columns().into_iter().map(|(name, _)| name).collect()
}

/// Numbers compare as numbers, so that `0.50` is `0.5`.
fn equal(entry: &Value, text: &str) -> bool {
    entry.to_string() == text || text.parse::<f64>().is_ok_and(|number| entry.same(&number.into()))
}

/// `--partition slice:M/N`: every N-th prune point or kernel matrix, beginning with the M-th.
///
/// The cells of a prune point stay together, since they share the pruning and the masked logits, and
/// so do the kernel cells of a matrix, since the sparse ones are compared with the dense one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    slice: usize,
    slices: usize,
}

impl FromStr for Partition {
    type Err = SelectError;

    fn from_str(text: &str) -> Result<Self, SelectError> {
        let error = || SelectError::Partition(text.into());
        let (slice, slices) = text.strip_prefix("slice:").and_then(|rest| rest.split_once('/')).ok_or_else(error)?;
        let (slice, slices) = (slice.parse().map_err(|_| error())?, slices.parse().map_err(|_| error())?);
        if (1..=slices).contains(&slice) { Ok(Self { slice, slices }) } else { Err(error()) }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slice:{}/{}", self.slice, self.slices)
    }
}

impl Partition {
    /// For each cell of a plan whether it is this process's.
    pub fn mine(&self, tasks: &[&Task]) -> Vec<bool> {
        let mut point = 0;
        let mut mine = Vec::with_capacity(tasks.len());
        for (index, task) in tasks.iter().enumerate() {
            if index > 0 && !task.kind().belongs_with(tasks[index - 1]) {
                point += 1;
            }
            mine.push(point % self.slices == self.slice - 1);
        }
        mine
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::tests::kernel;
    use super::super::model::tests::cell;
    use super::*;
    use crate::config::experiment::{Format, KernelFormat, Variant};

    #[test]
    fn conditions_select() {
        let [dense, csr] = [Variant::Dense, Variant::Sparse(Format::Csr)].map(|variant| Task::from(cell(0.5, variant)));
        let selects = |text: &str, task: &Task| text.parse::<Only>().unwrap().matches(task);
        assert!(selects("variant=csr, sparsity=0.50", &csr));
        assert!(selects("sparsity >= 0.5 & sparsity<0.6", &csr));
        assert!(!selects("sparsity>0.5", &csr) && !selects("sparsity>0.1", &dense));
        assert!(selects("method!=magnitude", &dense) && selects("setup=CSR50", &csr));
        assert!(!selects("format=csr", &csr) && !selects("format!=csr", &csr));
    }

    #[test]
    fn conditions_select_kernels() {
        let [dense, csr] = [(KernelFormat::Dense, None), (KernelFormat::Sparse(Format::Csr), Some(0.5))]
            .map(|(f, s)| Task::from(kernel(f, s)));
        let selects = |text: &str, task: &Task| text.parse::<Only>().unwrap().matches(task);
        assert!(selects("format=csr, sparsity=0.50, tokens>=2, out_features=8, in_features<5, seed=0", &csr));
        assert!(selects("backend=flex & dtype=f32", &dense) && !selects("sparsity<1", &dense));
        assert!(!selects("variant!=csr", &csr) && !selects("method=", &csr));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!("speed=1".parse::<Only>(), Err(SelectError::Column { name: "speed".into() }));
        assert_eq!("csr".parse::<Only>(), Err(SelectError::Condition("csr".into())));
        assert_eq!("seed<x".parse::<Only>(), Err(SelectError::Number("seed<x".into())));
        assert_eq!(
            "sparsity>=50%".parse::<Only>().unwrap_err().to_string(),
            "`sparsity>=50%` compares a share with a percentage: write `sparsity>=0.5`"
        );
        assert!("metod=x".parse::<Only>().unwrap_err().to_string().ends_with("did you mean `method`?"));
        for text in ["slice:0/2", "slice:3/2", "hash:1/2", "slice:1", "slice:a/b"] {
            assert_eq!(text.parse::<Partition>(), Err(SelectError::Partition(text.into())));
        }
    }

    #[test]
    fn values_that_no_cell_has_are_named() {
        let cells = [cell(0.5, Variant::Masked), cell(0.7, Variant::Masked)].map(Task::from);
        let tasks: Vec<&Task> = cells.iter().collect();
        let said = |text: &str| text.parse::<Only>().unwrap().known(&tasks).map_err(|error| error.to_string());
        assert_eq!(said("method=magnitud").unwrap_err(), "no cell has `method=magnitud`: did you mean `magnitude`?");
        assert_eq!(said("sparsity=50").unwrap_err(), "no cell has `sparsity_target=50`, which has `0.5`, `0.7`");
        assert_eq!((said("sparsity=0.70"), said("sparsity<0.1")), (Ok(()), Ok(())));
    }

    #[test]
    fn partitions_cover_the_plan_and_keep_points_together() {
        let mut cells = vec![cell(0.0, Variant::Dense)];
        for sparsity in [0.1, 0.2, 0.3, 0.4, 0.5] {
            cells.extend([Variant::Masked, Variant::Sparse(Format::Csr)].map(|variant| cell(sparsity, variant)));
        }
        let cells: Vec<Task> = cells.into_iter().map(Task::from).collect();
        let cells: Vec<&Task> = cells.iter().collect();
        let parts: Vec<Vec<bool>> =
            (1..=4).map(|m| format!("slice:{m}/4").parse::<Partition>().unwrap().mine(&cells)).collect();
        for (index, cell) in cells.iter().enumerate() {
            assert_eq!(parts.iter().filter(|part| part[index]).count(), 1, "{cell}");
        }
        assert!(parts.iter().all(|part| (1..cells.len()).step_by(2).all(|i| part[i] == part[i + 1])));
    }

    mod properties {
        use super::*;
        use proptest::prelude::*;

        /// Plans as `expand` makes them: models one after the other, of each a dense cell and points of a few variants.
        fn plans() -> impl Strategy<Value = Vec<Task>> {
            let points = proptest::collection::vec(1..4usize, 0..6);
            proptest::collection::vec(points, 1..4).prop_map(|models| {
                let mut tasks = Vec::new();
                for (number, points) in models.into_iter().enumerate() {
                    let of = |sparsity, variant| {
                        let mut cell = cell(sparsity, variant);
                        cell.model = format!("path:model-{number}");
                        Task::from(cell)
                    };
                    tasks.push(of(0.0, Variant::Dense));
                    for (point, variants) in points.into_iter().enumerate() {
                        let all = [Variant::Masked, Variant::Sparse(Format::Csr), Variant::Sparse(Format::Bitmap)];
                        tasks.extend(all[..variants].iter().map(|variant| of((point + 1) as f64 / 10.0, *variant)));
                    }
                }
                tasks
            })
        }

        proptest! {
            /// No cell is in two slices and none in none; a point stays whole; a slice keeps the order, so that the cells
            /// of a model stand together in it; and no slice has two points more than another.
            #[test]
            fn slices_make_the_whole(tasks in plans(), slices in 1..9usize) {
                let tasks: Vec<&Task> = tasks.iter().collect();
                let parts: Vec<Vec<bool>> =
                    (1..=slices).map(|slice| Partition { slice, slices }.mine(&tasks)).collect();
                for index in 0..tasks.len() {
                    prop_assert_eq!(parts.iter().filter(|part| part[index]).count(), 1);
                    let with_next = index + 1 < tasks.len() && tasks[index + 1].kind().belongs_with(tasks[index]);
                    prop_assert!(!with_next || parts.iter().all(|part| part[index] == part[index + 1]));
                }
                let of = |part: &Vec<bool>| -> Vec<&Task> {
                    tasks.iter().zip(part).filter(|(_, mine)| **mine).map(|(task, _)| *task).collect()
                };
                let counts = parts.iter().map(|part| {
                    let mine = of(part);
                    let models: Vec<&str> =
                        mine.chunk_by(|a, b| a.kind().same_batch(b)).map(|batch| match batch[0] {
                            Task::Model(cell) => cell.model.as_str(),
                            Task::Kernel(_) | Task::Analysis(_) => "",
                        }).collect();
                    let mut once = models.clone();
                    once.dedup();
                    (mine.chunk_by(|a, b| b.kind().belongs_with(a)).count(), models == once)
                });
                let counts: Vec<(usize, bool)> = counts.collect();
                prop_assert!(counts.iter().all(|(_, grouped)| *grouped));
                let points = counts.iter().map(|(count, _)| *count);
                prop_assert!(points.clone().max().unwrap() - points.min().unwrap() <= 1);
            }

            /// A condition and its opposite divide a plan.
            #[test]
            fn a_condition_and_its_opposite_select_everything_once(tasks in plans(), tenths in 0..8usize) {
                let sparsity = tenths as f64 / 10.0;
                for (one, other) in [("<", ">="), (">", "<="), ("=", "!=")] {
                    let only = |operator: &str| format!("sparsity{operator}{sparsity}").parse::<Only>().unwrap();
                    let (one, other) = (only(one), only(other));
                    for task in &tasks {
                        let dense = matches!(task, Task::Model(cell) if cell.prune.is_none());
                        // An order is of a number, which a dense cell lacks.
                        let either = usize::from(one.matches(task)) + usize::from(other.matches(task));
                        prop_assert!(either == 1 || (dense && either == 0), "{task}");
                    }
                }
            }
        }
    }
}
