//! Which cells of the plan a process runs: `--only`, `--partition`.

use super::task::Task;
use crate::column::{Value, key_column};
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
    #[error("unknown column `{0}`, expected one of {known}", known = key_names().join(", "))]
    Column(String),
    /// An order on something that is no number.
    #[error("`{0}` compares with `<` or `>`, which needs a number")]
    Number(String),
    /// No `slice:M/N`.
    #[error("`{0}` is no partition, expected `slice:M/N` with 1 <= M <= N")]
    Partition(String),
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
    let (column, _) = known.ok_or_else(|| SelectError::Column(name.into()))?;
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
        assert_eq!("speed=1".parse::<Only>(), Err(SelectError::Column("speed".into())));
        assert_eq!("csr".parse::<Only>(), Err(SelectError::Condition("csr".into())));
        assert_eq!("seed<x".parse::<Only>(), Err(SelectError::Number("seed<x".into())));
        for text in ["slice:0/2", "slice:3/2", "hash:1/2", "slice:1", "slice:a/b"] {
            assert_eq!(text.parse::<Partition>(), Err(SelectError::Partition(text.into())));
        }
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
}
