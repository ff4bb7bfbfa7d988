//! What to do about a cell, given what its file says.
//!
//! | the file                                   | `none` | `failed` (default) | `stale`  | `all` |
//! |--------------------------------------------|--------|--------------------|----------|-------|
//! | is missing                                 | new    | new                | new      | new   |
//! | has all that is wanted, by this program    | cached | cached             | cached   | rerun |
//! | the same by another version or commit      | stale, kept | stale, kept   | rerun    | rerun |
//! | the same, and accepted for this program    | cached | cached             | cached   | rerun |
//! | lacks parts that are wanted                | add    | add                | add      | rerun |
//! | says that parts that are wanted failed     | failed, kept | retry        | retry    | rerun |
//! | can't be read, or is not this cell's       | retry  | retry              | retry    | rerun |
//!
//! `add` measures what is missing and keeps the rest; what a cell beside this experiment has is copied instead.

use super::identify::CellId;
use super::task::{Inputs, Part};
use std::fmt;

/// Which finished cells run again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Rerun {
    /// Failed ones.
    #[default]
    Failed,
    /// Failed ones, and those of another version or commit of the program.
    Stale,
    /// All.
    All,
    /// None.
    None,
}

/// What a cell's file says.
#[derive(Clone, Debug, PartialEq)]
pub enum Existing {
    /// There is none.
    Missing,
    /// It is this cell's.
    There {
        /// The groups of results that it has.
        known: Vec<Known>,
        /// Why the last measurement failed, if it did.
        failed: Option<Failed>,
    },
    /// It can't be read, or is not what was written for this cell.
    Unreadable {
        /// Why.
        message: String,
    },
}

/// A group of results in a cell's file.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its name.
    pub id: CellId,
    /// The group.
    pub group: String,
    /// What it depended on.
    pub inputs: Inputs,
    /// The program that measured it, version and commit.
    pub program: String,
    /// Who has taken it as current, and for which programs.
    pub accepted: Vec<Accepted>,
}

/// Somebody has taken a result of another program as current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The program that it is current for.
    pub program: String,
    /// Who said so.
    pub who: String,
    /// When.
    pub when: String,
    /// Why.
    pub why: String,
}

impl Known {
    /// Who has said that it is current for a program.
    fn accepted_for(&self, program: &str) -> Option<&Accepted> {
        self.accepted.iter().rfind(|accepted| accepted.program == program && self.program != program)
    }

    fn is_current(&self, program: &str) -> bool {
        self.program == program || self.accepted_for(program).is_some()
    }
}

/// A measurement that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The parts that it was to measure.
    pub parts: Vec<CellId>,
    /// Why.
    pub message: String,
}

/// What to do about a cell, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run: never measured.
    New {
        /// What tells it from a cell of earlier settings, where there is one.
        why: Vec<String>,
    },
    /// Run: some groups of results are there, others are not.
    Add {
        /// Those others, each with what has changed.
        why: Vec<String>,
    },
    /// Take over what another experiment has measured.
    Copy {
        /// That experiment.
        from: String,
    },
    /// Keep.
    Cached,
    /// Keep: another version or commit of the program wrote it, and somebody has said that it is current.
    Accepted {
        /// That program.
        program: String,
        /// Who has said so, when and why.
        by: Accepted,
    },
    /// Keep, although another version or commit of the program wrote it.
    Stale {
        /// That program.
        program: String,
        /// The one that runs.
        now: String,
    },
    /// Keep, although it failed.
    KeepFailed {
        /// Why it failed.
        message: String,
    },
    /// Run again: it failed, or its file can't be read.
    Retry {
        /// Why.
        message: String,
    },
    /// Run again, because the user asked for it.
    Rerun,
    /// Run again, because cells that are compared with it run.
    Beside,
}

/// Decides what to do about a cell, and which of its groups are measured then.
pub fn decide(existing: &Existing, parts: &[Part], program: &str, rerun: Rerun) -> (Decision, Vec<&'static str>) {
    let wanted: Vec<&Part> = parts.iter().filter(|part| !part.check).collect();
    let all = || wanted.iter().map(|part| part.group).collect();
    let (known, failed) = match (existing, rerun) {
        (Existing::Missing, _) => return (Decision::New { why: Vec::new() }, all()),
        (_, Rerun::All) => return (Decision::Rerun, all()),
        (Existing::Unreadable { message }, _) => return (Decision::Retry { message: message.clone() }, all()),
        (Existing::There { known, failed }, Rerun::None | Rerun::Failed | Rerun::Stale) => (known, failed),
    };
    let of = |part: &Part| known.iter().find(|known| known.id == part.id);
    let missing = |part: &&&Part| of(part).is_none();
    let by_another = |part: &&&Part| of(part).is_some_and(|known| !known.is_current(program));
    let due = wanted.iter().filter(|part| missing(part) || (rerun == Rerun::Stale && by_another(part)));
    let due: Vec<&'static str> = due.map(|part| part.group).collect();
    let failed = failed.as_ref().filter(|failed| wanted.iter().filter(missing).any(|p| failed.parts.contains(&p.id)));
    let stale = wanted.iter().find(by_another).and_then(|part| of(part));
    match (failed, stale) {
        (Some(Failed { message, .. }), _) if rerun == Rerun::None => {
            (Decision::KeepFailed { message: message.clone() }, Vec::new())
        }
        (Some(Failed { message, .. }), _) => (Decision::Retry { message: message.clone() }, due),
        (None, _) if wanted.iter().any(|part| missing(&part)) => {
            let why = wanted.iter().filter(missing).map(|part| why_missing(part, known)).collect();
            (Decision::Add { why }, due)
        }
        (None, Some(_)) if rerun == Rerun::Stale => (Decision::Rerun, due),
        (None, Some(known)) => {
            (Decision::Stale { program: known.program.clone(), now: program.to_owned() }, Vec::new())
        }
        (None, None) => {
            let accepted = wanted.iter().filter_map(|part| of(part)).find_map(|known| {
                let by = known.accepted_for(program)?.clone();
                Some(Decision::Accepted { program: known.program.clone(), by })
            });
            (accepted.unwrap_or(Decision::Cached), Vec::new())
        }
    }
}

/// `perplexity_windows 4 -> 8`, or that there is no such result at all.
fn why_missing(part: &Part, known: &[Known]) -> String {
    // The last that was measured is the one that a reader remembers.
    match known.iter().rfind(|known| known.group == part.group) {
        Some(earlier) => part.inputs.changes_from(&earlier.inputs).join(", "),
        None => format!("{} is not measured yet", part.group),
    }
}

impl Decision {
    /// Whether the cell will run.
    pub fn runs(&self) -> bool {
        match self {
            Self::New { .. } | Self::Add { .. } | Self::Retry { .. } | Self::Rerun | Self::Beside => true,
            Self::Copy { .. } | Self::Cached | Self::Accepted { .. } | Self::Stale { .. } | Self::KeepFailed { .. } => {
                false
            }
        }
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::New { .. } => "new",
            Self::Add { .. } => "add",
            Self::Copy { .. } => "copy",
            Self::Cached | Self::Accepted { .. } => "cached",
            Self::Stale { .. } => "stale",
            Self::KeepFailed { .. } => "failed",
            Self::Retry { .. } => "retry",
            Self::Rerun | Self::Beside => "rerun",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::New { why } if why.is_empty() => f.write_str(": never measured"),
            Self::New { why } | Self::Add { why } => write!(f, ": {}", why.join(", ")),
            Self::Copy { from } => write!(f, ": measured in `{from}`"),
            Self::Accepted { program, by: Accepted { who, when, why, .. } } => {
                write!(f, ": made by {program}, accepted by {who} at {when}: {why}")
            }
            Self::Stale { program, now } => {
                write!(f, ": made by {program}, and this is {now}; `--rerun stale` measures it again, ")?;
                f.write_str("`sparsify-exp accept` takes it as current")
            }
            Self::KeepFailed { message } | Self::Retry { message } => write!(f, ": {message}"),
            Self::Beside => write!(f, ": timed beside the sparse kernels that are compared with it"),
            Self::Rerun => f.write_str(": `--rerun` asks for it"),
            Self::Cached => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(windows: u64) -> Inputs {
        Inputs::default().with("perplexity", [("sha256", windows.to_string().into()), ("windows", windows.into())])
    }

    fn part(group: &'static str, inputs: Inputs) -> Part {
        Part::new(&CellId::named("00ff".into()), group, inputs)
    }

    fn known(part: &Part, program: &str) -> Known {
        let Part { id, group, inputs, .. } = part.clone();
        Known { id, group: group.into(), inputs, program: program.into(), accepted: Vec::new() }
    }

    fn parts() -> Vec<Part> {
        let gate = Part { check: true, ..part("gate", Inputs::default()) };
        vec![part("structure", Inputs::default()), part("perplexity", inputs(8)), gate]
    }

    #[test]
    fn the_table_holds() {
        let parts = parts();
        let [structure, perplexity, _] = &parts[..] else { unreachable!() };
        let there = |known: Vec<Known>, failed: Option<&Part>| Existing::There {
            known,
            failed: failed.map(|part| Failed { parts: vec![part.id.clone()], message: "m".into() }),
        };
        let both = |program: &str| vec![known(structure, "1"), known(perplexity, program)];
        let files = [
            Existing::Missing,
            there(both("1"), None),
            there(both("0"), None),
            there(vec![known(structure, "1")], None),
            there(vec![known(structure, "1")], Some(perplexity)),
            // Of a group that is not wanted here, or was measured since.
            there(both("1"), Some(&part("latency", Inputs::default()))),
            there(both("1"), Some(perplexity)),
            Existing::Unreadable { message: "m".into() },
        ];
        let told = |rerun| files.clone().map(|file| decide(&file, &parts, "1", rerun));
        let words = |rerun| told(rerun).map(|(decision, _)| decision.word());
        assert_eq!(words(Rerun::None), ["new", "cached", "stale", "add", "failed", "cached", "cached", "retry"]);
        assert_eq!(words(Rerun::Failed), ["new", "cached", "stale", "add", "retry", "cached", "cached", "retry"]);
        assert_eq!(words(Rerun::Stale), ["new", "cached", "rerun", "add", "retry", "cached", "cached", "retry"]);
        assert_eq!(words(Rerun::All), ["new", "rerun", "rerun", "rerun", "rerun", "rerun", "rerun", "rerun"]);
        let due = |rerun| told(rerun).map(|(_, due)| due.len());
        assert_eq!(due(Rerun::None), [2, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(due(Rerun::Failed), [2, 0, 0, 1, 1, 0, 0, 2]);
        assert_eq!(due(Rerun::Stale), [2, 0, 1, 1, 1, 0, 0, 2]);
        assert_eq!(due(Rerun::All), [2; 8]);
        assert!(told(Rerun::All).iter().all(|(decision, due)| decision.runs() != due.is_empty()));
        assert!(told(Rerun::Failed).iter().all(|(decision, due)| decision.runs() != due.is_empty()));
    }

    #[test]
    fn what_is_added_is_told() {
        let parts = parts();
        let told = |known: Vec<Known>| {
            let (decision, due) = decide(&Existing::There { known, failed: None }, &parts, "1", Rerun::Failed);
            (decision.to_string(), due)
        };
        let structure = known(&parts[0], "1");
        let earlier = |windows| known(&part("perplexity", inputs(windows)), "1");
        assert_eq!(told(vec![structure.clone()]), ("add: perplexity is not measured yet".into(), vec!["perplexity"]));
        assert_eq!(
            told(vec![structure.clone(), earlier(2), earlier(4)]),
            ("add: perplexity_windows 4 -> 8".into(), vec!["perplexity"])
        );
        // Back to what was there before is nothing to do.
        assert_eq!(told(vec![structure, earlier(8), earlier(4)]).0, "cached");
    }
}
