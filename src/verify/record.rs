//! What came of it: in the making, and as `verify/STAMP-PID.json` has it.

use super::compare::{Arithmetic, Compared, Counts, Difference};
use super::sample::{Draw, caught};
use crate::execute::kernels::cpu::Simd;
use crate::plan::CellId;
use crate::record::{InputRecord, Machine, Manifest, PlanEntry, Program, now};
use serde::Serialize;

/// Something that is not as the manifest says, or a file that can't be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub what: String,
    /// What is wrong with it.
    pub problem: String,
    /// Its digest in the manifest.
    pub recorded: Option<String>,
    /// Its digest here.
    pub found: Option<String>,
}

impl Finding {
    pub(super) fn file(what: &str, problem: &str) -> Self {
        Self { what: what.into(), problem: problem.into(), recorded: None, found: None }
    }
}

/// A cell of the folder that the experiment does not give here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stranger {
    /// Its name.
    pub cell: CellId,
    /// What it is.
    pub label: String,
    /// Why it was not run.
    pub why: String,
    /// Whether it is one of another device, which says nothing against it.
    pub elsewhere: bool,
}

impl Stranger {
    pub(super) fn new(entry: &PlanEntry, why: String, elsewhere: bool) -> Self {
        Self { cell: entry.id.clone(), label: entry.cell.to_string(), why, elsewhere }
    }
}

/// A cell or a table, and how its numbers are alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ItemVerdict {
    /// The cell's name, or the table's file.
    pub name: String,
    /// What it is.
    pub label: String,
    /// How many numbers are how alike.
    pub counts: Counts,
    /// Now over recorded, the median of its timings.
    pub timing_ratio: Option<f64>,
    /// Those that are not equal, the first of them.
    pub differences: Vec<Difference>,
}

impl ItemVerdict {
    pub(super) fn of(name: &str, label: &str, mut compared: Compared) -> Self {
        compared.ratios.sort_by(f64::total_cmp);
        let timing_ratio = compared.ratios.get(compared.ratios.len() / 2).copied();
        let Compared { counts, differences, .. } = compared;
        Self { name: name.into(), label: label.into(), counts, timing_ratio, differences }
    }

    /// Whether all that was compared is equal to the last bit.
    pub fn is_equal(&self) -> bool {
        self.counts.within + self.counts.different == 0
    }
}

/// What came of a verification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// The format's version.
    pub format: u32,
    /// `equal`, `within tolerance` or `different`; `nothing compared`.
    pub verdict: &'static str,
    /// When it began.
    pub started: String,
    /// When it ended.
    pub ended: String,
    /// The program that ran it.
    pub program: Program,
    /// The machine that ran it.
    pub machine: Machine,
    /// The program that had made the folder.
    pub recorded_program: Program,
    /// The machine that had.
    pub recorded_machine: Machine,
    /// Which cells were wanted.
    pub draw: Draw,
    /// How many cells were run again.
    pub drawn: usize,
    /// Of how many.
    pub of: usize,
    /// The probability that a number changed in one of them would have been found.
    pub caught: f64,
    /// Cells of the experiment that the folder lacks.
    pub unfinished: usize,
    /// The inputs, as they were read now.
    pub inputs: Vec<InputRecord>,
    /// What is not as the manifest says.
    pub findings: Vec<Finding>,
    /// Cells that the experiment does not give here.
    pub strangers: Vec<Stranger>,
    /// Why the last bits may differ.
    pub last_bits: Vec<String>,
    /// How many numbers of cells, or of the tables of a folder without cells, are how alike.
    pub counts: Counts,
    /// The cells that were run again.
    pub cells: Vec<ItemVerdict>,
    /// The tables that were compared.
    pub tables: Vec<ItemVerdict>,
}

impl Verification {
    /// Whether anything is not as the folder says.
    pub fn differs(&self) -> bool {
        let strange = self.strangers.iter().any(|stranger| !stranger.elsewhere);
        let tables = self.tables.iter().any(|table| table.counts.different > 0);
        self.counts.different > 0 || tables || strange || !self.findings.is_empty()
    }

    /// The probability that a number would have been found that was changed in each of so many cells.
    pub fn caught_of(&self, tampered: usize) -> f64 {
        caught(self.drawn, self.of, tampered)
    }
}

/// A verification in the making.
pub(super) struct Draft {
    pub findings: Vec<Finding>,
    pub strangers: Vec<Stranger>,
    pub cells: Vec<ItemVerdict>,
    pub tables: Vec<ItemVerdict>,
    pub drawn: usize,
    pub of: usize,
    pub unfinished: usize,
    started: String,
    draw: Draw,
    inputs: Vec<InputRecord>,
}

impl Draft {
    pub fn begin(started: &str, draw: &Draw, inputs: &[InputRecord]) -> Self {
        Self {
            findings: Vec::new(),
            strangers: Vec::new(),
            cells: Vec::new(),
            tables: Vec::new(),
            drawn: 0,
            of: 0,
            unfinished: 0,
            started: started.into(),
            draw: *draw,
            inputs: inputs.to_vec(),
        }
    }

    pub fn end(self, manifest: &Manifest, arithmetic: Arithmetic) -> Verification {
        let Self { findings, strangers, cells, tables, drawn, of, unfinished, started, draw, inputs } = self;
        let counted = if cells.is_empty() { &tables } else { &cells };
        let counts = counted.iter().fold(Counts::default(), |sum, item| sum.plus(item.counts));
        let mut verification = Verification {
            format: 1,
            verdict: "",
            started,
            ended: now(),
            program: Program::current(),
            machine: Machine::current(Simd::detect().name()),
            recorded_program: manifest.program.clone(),
            recorded_machine: manifest.machine.clone(),
            draw,
            drawn,
            of,
            caught: caught(drawn, of, 1),
            unfinished,
            inputs,
            findings,
            strangers,
            last_bits: arithmetic.reasons().to_vec(),
            counts,
            cells,
            tables,
        };
        verification.verdict = match () {
            () if verification.differs() => "different",
            () if counts.compared() == 0 => "nothing compared",
            () if counts.within > 0 => "within tolerance",
            () => "equal",
        };
        verification
    }
}
