//! What others see: tables and plots, from the cells' files alone.
//!
//! ```text
//!   Store ──> Cells (in the plan's order) ─┬─ tables.rs ──> Table ──> .csv  .md  .tex  terminal
//!                                          └─ plots.rs  ──> Figure ─> .svg  .png  .csv
//! ```
//! points.rs says what prune points are called; comparisons.rs is a table, quality.rs and blocks.rs are plots of them.
//! Kernel cells have tables and plots of their own: kernel_tables.rs, kernel_plots.rs.
//!
//! This module reads `record/`. It does not know models, pruning or devices, and it runs nothing, so
//! that a report can be made on any machine. Equal cells give equal bytes.

mod blocks;
mod comparisons;
pub mod draw;
pub mod figure;
mod kernel_plots;
mod kernel_tables;
mod latency;
mod plots;
mod points;
mod quality;
pub mod table;
mod tables;

use crate::plan::CellId;
use crate::record::{CellRecord, ExpectRecord, KernelRecord, PlanRecord, Record, Store, StoreError, sha256};
use draw::DrawError;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use table::Table;
use thiserror::Error;

/// Pixels of a PNG to one of the figure: 300 to the inch.
const PNG_SCALE: f64 = 3.125;
/// Longer tables are written as CSV alone: nobody sets them in a text.
const MOST_ROWS_IN_A_TEXT: usize = 200;

/// Why a report can't be made.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The results folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing to report on.
    #[error("no cells in `{0}`")]
    NoCells(String),
    /// A plot can't be drawn.
    #[error("failed to draw `{name}`: {source}")]
    Draw {
        /// The plot.
        name: String,
        /// Why.
        source: DrawError,
    },
}

impl ReportError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::NoCells(_) => {
                Some("give the folder of an experiment, `results/NAME`, after `sparsify-exp run`".into())
            }
            Self::Draw { source, .. } => source.hint(),
        }
    }
}

/// A report that is written.
pub struct Report {
    /// `summary.csv`, if there are model cells.
    pub summary: Option<Table>,
    /// The main columns of `kernels.csv`, if there are kernel cells.
    pub kernels: Option<Table>,
    /// `expectations.csv`, if there are expectations.
    pub expectations: Option<Table>,
    /// Expectations that were measured and missed.
    pub missed: usize,
    /// Comparisons of two methods, and those of them that are inconclusive.
    pub comparisons: (usize, usize),
    /// Cells of the plan that are not there yet.
    pub unfinished: usize,
    /// Cells of the plan whose files can't be read, one message each.
    pub damaged: Vec<String>,
}

/// The finished and failed cells of an experiment, in the plan's order.
#[derive(Default, PartialEq)]
pub(crate) struct Cells {
    pub title: Option<String>,
    pub records: Vec<CellRecord>,
    pub kernels: Vec<KernelRecord>,
    pub expectations: Vec<ExpectRecord>,
    pub unfinished: usize,
    pub damaged: Vec<String>,
}

/// Writes `tables/` and `plots/` of a results folder again.
///
/// Several processes may do so at once. Each looks again after writing, and writes again if cells have
/// come in the meantime, so that the last files written are of the most cells.
///
/// # Errors
/// When a file can't be read or written, or there are no cells.
pub fn report(store: &Store) -> Result<Report, ReportError> {
    let mut cells = read(store)?;
    loop {
        if cells.records.is_empty() && cells.kernels.is_empty() {
            return Err(ReportError::NoCells(store.root().display().to_string()));
        }
        let report = write(store, &cells)?;
        let now = read(store)?;
        if now == cells {
            return Ok(report);
        }
        cells = now;
    }
}

fn write(store: &Store, cells: &Cells) -> Result<Report, ReportError> {
    let mut tables = tables::all(cells);
    tables.extend(kernel_tables::all(&cells.kernels));
    for table in &tables {
        write_table(store, table)?;
    }
    let figures = plots::all(cells).into_iter().chain(kernel_plots::all(&cells.kernels, cells.title.as_deref()));
    let mut drawn = HashSet::new();
    for (name, figure) in figures {
        let draw_error = |source| ReportError::Draw { name: name.clone(), source };
        let path = |extension| plot_path(&name, extension);
        let svg = draw::svg(&figure).map_err(draw_error)?;
        // Pixels take a hundred times as long as the SVG of the same figure, so they carry its digest.
        let digest = digest_of(svg.as_bytes());
        if !store.mentions(&path("png"), digest.as_bytes()) {
            store.write(&path("png"), &draw::png(&figure, PNG_SCALE, &digest).map_err(draw_error)?)?;
        }
        store.write(&path("svg"), svg.as_bytes())?;
        store.write(&path("csv"), figure.csv().as_bytes())?;
        drawn.insert(name);
    }
    remove_earlier(store, &drawn);
    let find = |name: &str| tables.iter().find(|table| table.name == name).cloned();
    Ok(Report {
        summary: tables::terminal_summary(cells),
        kernels: kernel_tables::terminal(&cells.kernels),
        expectations: find("expectations"),
        missed: tables::missed(cells),
        comparisons: find("comparisons").map_or((0, 0), |table| comparisons::counts(&table)),
        unfinished: cells.unfinished,
        damaged: cells.damaged.clone(),
    })
}

/// Writes a table as CSV, and as Markdown and LaTeX if a text has room for it.
fn write_table(store: &Store, table: &Table) -> Result<(), StoreError> {
    let path = |extension: &str| Path::new("tables").join(format!("{}.{extension}", table.name));
    store.write(&path("csv"), table.csv().as_bytes())?;
    if table.rows.len() > MOST_ROWS_IN_A_TEXT {
        // An earlier report of fewer cells may have written them: they would not show what the CSV has.
        ["md", "tex"].iter().for_each(|extension| store.remove(&path(extension)));
        return Ok(());
    }
    store.write(&path("md"), table.markdown().as_bytes())?;
    store.write(&path("tex"), table.latex().as_bytes())
}

fn plot_path(name: &str, extension: &str) -> PathBuf {
    Path::new("plots").join(format!("{name}.{extension}"))
}

fn digest_of(svg: &[u8]) -> String {
    format!("SVG with SHA-256 {}", sha256(svg))
}

/// Removes plots that an earlier report drew and this one does not, since they show other cells. What is not ours, or was
/// changed by hand, stays: its pixels do not carry its digest.
fn remove_earlier(store: &Store, drawn: &HashSet<String>) {
    for name in store.stems(Path::new("plots"), "svg").iter().filter(|name| !drawn.contains(*name)) {
        let svg = store.bytes(&plot_path(name, "svg")).unwrap_or_default();
        if store.mentions(&plot_path(name, "png"), digest_of(&svg).as_bytes()) {
            ["svg", "png", "csv"].iter().for_each(|extension| store.remove(&plot_path(name, extension)));
        }
    }
}

/// The cells of the plan; all cells of the folder, by name, where there is no plan.
fn read(store: &Store) -> Result<Cells, StoreError> {
    let mut cells = Cells::default();
    let Some(PlanRecord { title, cells: models, kernels, expectations, .. }) = store.plan()? else {
        for record in store.cells()? {
            match record {
                Record::Model(record) => cells.records.push(*record),
                Record::Kernel(record) => cells.kernels.push(*record),
            }
        }
        return Ok(cells);
    };
    (cells.title, cells.expectations) = (title, expectations);
    for entry in models {
        // The plan's spelling of the model is the one that this experiment's file has.
        if let Some(Record::Model(record)) = cells.find(store, &entry.id)? {
            cells.records.push(CellRecord { cell: entry.cell, ..*record });
        }
    }
    for entry in kernels {
        if let Some(Record::Kernel(record)) = cells.find(store, &entry.id)? {
            cells.kernels.push(*record);
        }
    }
    Ok(cells)
}

impl Cells {
    /// A cell of the plan, or one more that is unfinished.
    fn find(&mut self, store: &Store, id: &CellId) -> Result<Option<Record>, StoreError> {
        let found = match store.cell(id) {
            // `run` measures it again; until then it is missing like any other.
            Err(error @ StoreError::Format { .. }) => {
                self.damaged.push(error.to_string());
                None
            }
            found => found?,
        };
        self.unfinished += usize::from(found.is_none());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Dtype, Method, NmPattern, Scope, Variant};
    use crate::plan::{Backend, Cell, InputDigests, PrunePoint};
    use crate::record::{LayerRow, Measured, Program, Structure, Timings};

    #[test]
    fn long_tables_are_csv_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let mut table = Table::new("t", ["n"]);
        let there =
            || ["csv", "md", "tex"].map(|extension| folder.path().join("tables/t").with_extension(extension).is_file());
        table.rows = (0..200u64).map(|n| vec![n.into()]).collect();
        write_table(&store, &table).unwrap();
        assert_eq!(there(), [true; 3]);
        table.rows.push(vec![200u64.into()]);
        write_table(&store, &table).unwrap();
        assert_eq!(there(), [true, false, false], "what a shorter table left goes");
        let lines = std::fs::read_to_string(folder.path().join("tables/t.csv")).unwrap().lines().count();
        assert_eq!(lines, 202);
        table.rows.truncate(1);
        write_table(&store, &table).unwrap();
        assert_eq!(there(), [true; 3]);
    }

    /// A cell for the tests of this folder.
    pub(super) fn cell(model: &str, method: Method, sparsity: f64, variant: Variant, seed: Option<u64>) -> Cell {
        let exclude = vec!["lm_head".into()];
        let point = PrunePoint::new(method, Some(Scope::Global), NmPattern::Unstructured, sparsity, exclude);
        Cell {
            model: model.into(),
            backend: Backend::Flex,
            dtype: Dtype::F32,
            prune: (variant != Variant::Dense).then_some(point),
            seed,
            variant,
            metrics: Vec::new(),
            latency: None,
        }
    }

    /// A finished cell for the tests of this folder: its perplexity, and the non-zero weights of each linear of 100.
    pub(super) fn record(cell: Cell, perplexity: f64, linears: &[(&str, u64)]) -> CellRecord {
        let layer = |(name, nonzero): &(&str, u64)| LayerRow {
            module_name: (*name).into(),
            group: "mlp_linear".into(),
            nonzero: *nonzero,
            total: 100,
            shape: Some([10, 10]),
            flops_per_token: 0,
            bytes: 0,
            format: "dense".into(),
            tied: false,
        };
        let layers: Vec<LayerRow> = linears.iter().map(layer).collect();
        let nonzero = layers.iter().map(|layer| layer.nonzero).sum();
        let total = layers.iter().map(|layer| layer.total).sum();
        let structure = Structure { nonzero, total, bytes: 0, layers };
        let measured = Measured {
            structure,
            dense_nonzero: total,
            agreement: None,
            perplexity: Some(perplexity),
            gate: None,
            kernels: Vec::new(),
            latency: None,
        };
        let (model, agreement) = (String::new(), String::new());
        let inputs = InputDigests { model, agreement, perplexity: None, calibration: None };
        CellRecord {
            format: CellRecord::FORMAT,
            id: CellId::new(&cell, &inputs),
            cell,
            inputs,
            program: Program::current(),
            measured: Some(measured),
            failure: None,
            timings: Timings::default(),
            finished: String::new(),
        }
    }
}
