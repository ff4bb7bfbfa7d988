//! What to do about a cell, given what its file says.
//!
//! | the file                              | `none` | `failed` (default) | `stale`  | `all` |
//! |---------------------------------------|--------|--------------------|----------|-------|
//! | is missing                            | new    | new                | new      | new   |
//! | is there, by this program             | cached | cached             | cached   | rerun |
//! | is there, by another version or commit| stale, kept | stale, kept   | rerun    | rerun |
//! | says that the cell failed             | failed, kept | retry        | retry    | rerun |
//! | can't be read                         | retry  | retry              | retry    | rerun |

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existing {
    /// There is none.
    Missing,
    /// It is finished.
    Finished {
        /// The program that wrote it, version and commit.
        program: String,
    },
    /// It failed.
    Failed {
        /// Why.
        message: String,
    },
    /// It can't be read.
    Unreadable {
        /// Why.
        message: String,
    },
}

/// What to do about a cell, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run: never measured.
    New,
    /// Keep.
    Cached,
    /// Keep, although another version or commit of the program wrote it.
    Stale {
        /// That program.
        program: String,
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

/// Decides; `program` is the running one.
pub fn decide(existing: Existing, program: &str, rerun: Rerun) -> Decision {
    match (existing, rerun) {
        (Existing::Missing, _) => Decision::New,
        (_, Rerun::All) => Decision::Rerun,
        (Existing::Unreadable { message }, _) => Decision::Retry { message },
        (Existing::Failed { message }, Rerun::None) => Decision::KeepFailed { message },
        (Existing::Failed { message }, _) => Decision::Retry { message },
        (Existing::Finished { program: by }, _) if by == program => Decision::Cached,
        (Existing::Finished { .. }, Rerun::Stale) => Decision::Rerun,
        (Existing::Finished { program }, _) => Decision::Stale { program },
    }
}

impl Decision {
    /// Whether the cell will run.
    pub fn runs(&self) -> bool {
        matches!(self, Self::New | Self::Retry { .. } | Self::Rerun | Self::Beside)
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Cached => "cached",
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
            Self::Stale { program } => write!(f, ": made by {program}; `--rerun stale` measures it again"),
            Self::KeepFailed { message } | Self::Retry { message } => write!(f, ": {message}"),
            Self::Beside => write!(f, ": timed beside the sparse kernels that are compared with it"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds() {
        let files = [
            Existing::Missing,
            Existing::Finished { program: "1".into() },
            Existing::Finished { program: "0".into() },
            Existing::Failed { message: "m".into() },
            Existing::Unreadable { message: "m".into() },
        ];
        let words = |rerun| files.clone().map(|file| decide(file, "1", rerun).word());
        assert_eq!(words(Rerun::None), ["new", "cached", "stale", "failed", "retry"]);
        assert_eq!(words(Rerun::Failed), ["new", "cached", "stale", "retry", "retry"]);
        assert_eq!(words(Rerun::Stale), ["new", "cached", "rerun", "retry", "retry"]);
        assert_eq!(words(Rerun::All), ["new", "rerun", "rerun", "rerun", "rerun"]);
    }
}
