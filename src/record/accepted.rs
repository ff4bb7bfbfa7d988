//! What somebody has taken as current although another version of the program measured it.
//!
//! ```text
//!   accepted/STAMP-PID.json    Acceptance     who, when, why, and for which program
//!     results [AcceptedResult]                cell and result by name, and the program that made it
//! ```
//! An acceptance is about one version: for the next program the same results are stale again, since nobody has looked at
//! what that one changed. The cells themselves stay as they are and go on to say who made them.

use super::provenance::Program;
use crate::plan::{Accepted, CellId, Existing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// `accepted/*.json`: results that somebody has taken as current.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The format's version.
    pub format: u32,
    /// Who.
    pub who: String,
    /// When.
    pub when: String,
    /// Why.
    pub why: String,
    /// The program that they are to be current for.
    pub program: Program,
    /// The results.
    pub results: Vec<AcceptedResult>,
}

/// A result that is taken as current.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptedResult {
    /// The cell.
    pub cell: CellId,
    /// The name of the result.
    pub result: CellId,
    /// The program that measured it.
    pub program: Program,
}

impl Acceptance {
    /// The version of the format.
    pub const FORMAT: u32 = 1;
}

/// All that has been accepted in a folder, by name and maker of the result.
#[derive(Default)]
pub struct Acceptances(HashMap<(CellId, String), Vec<Accepted>>);

impl Acceptances {
    /// Of the folder's files.
    pub(super) fn of(files: Vec<Acceptance>) -> Self {
        let mut all: HashMap<_, Vec<Accepted>> = HashMap::new();
        for Acceptance { who, when, why, program, results, .. } in files {
            let accepted = Accepted { program: program.to_string(), who, when, why };
            for AcceptedResult { result, program, .. } in results {
                all.entry((result, program.to_string())).or_default().push(accepted.clone());
            }
        }
        Self(all)
    }

    /// Whether a result of one program has been accepted for another.
    fn has(&self, result: &CellId, by: &Program, program: &Program) -> bool {
        let program = program.to_string();
        let accepted = self.0.get(&(result.clone(), by.to_string()));
        accepted.is_some_and(|all| all.iter().any(|accepted| accepted.program == program))
    }

    /// Whether a result counts as this program's: it is, or it has been accepted as that.
    pub fn is_current(&self, result: &CellId, by: &Program, program: &Program) -> bool {
        by.to_string() == program.to_string() || self.has(result, by, program)
    }

    /// Notes with what a cell's file says what has been accepted of it.
    pub fn mark(&self, existing: &mut Existing) {
        let Existing::There { known, .. } = existing else { return };
        for known in known.iter_mut() {
            let accepted = self.0.get(&(known.id.clone(), known.program.clone()));
            known.accepted = accepted.cloned().unwrap_or_default();
        }
    }
}
