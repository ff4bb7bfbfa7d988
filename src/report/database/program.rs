//! The program `duckdb`: where it is, and one call of it that ends in time.
//!
//! Owns the process. Knows no SQL but what shuts the rest of the machine out, and no tables.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use thiserror::Error;

/// The first version whose SQL has all that is used here.
const OLDEST: (u32, u32) = (1, 1);
/// How long the program may take to say its version, and to read tables in.
const QUICK: Duration = Duration::from_secs(20);
const LOADING: Duration = Duration::from_secs(600);
/// The most bytes of an answer, and of a message.
const MOST_ANSWER: u64 = 1 << 30;
const MOST_MESSAGE: u64 = 1 << 16;

/// Why the program can't be used.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It is nowhere on `PATH`.
    #[error("the program `duckdb` is not found")]
    NotFound,
    /// `DUCKDB` names something else.
    #[error("the variable DUCKDB is `{}`, which is no program", .0.display())]
    NotThere(PathBuf),
    /// It does not start.
    #[error("`{}` does not start: {source}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is another program, or too old.
    #[error("`{}` is not DuckDB {}.{} or later: {said}", path.display(), OLDEST.0, OLDEST.1)]
    Foreign {
        /// The program.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// It could not read the tables in.
    #[error("`{}` could not read the tables in: {said}", path.display())]
    Load {
        /// The program.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// The folder for its files.
    #[error("no temporary folder for the database: {0}")]
    Folder(io::Error),
}

impl ProgramError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound => {
                "install it: `pip install duckdb-cli`, or https://duckdb.org/install; it is looked for on PATH, and the \
                 variable DUCKDB may name it; all other tables and plots are written"
                    .into()
            }
            Self::NotThere(_) => "give the path of the program `duckdb`, or unset DUCKDB to have it looked for".into(),
            Self::Start { .. } | Self::Foreign { .. } => {
                "install a newer one: `pip install duckdb-cli`, or https://duckdb.org/install; the variable DUCKDB names \
                 which is used"
                    .into()
            }
            Self::Load { .. } => "this is a fault of this program, or the disk is full".into(),
            Self::Folder(_) => "make room in the folder for temporary files, or set TMPDIR to another one".into(),
        })
    }
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With this output.
    Well(String),
    /// With a message.
    Badly(String),
    /// It was stopped.
    Late,
    /// With more output than is read.
    TooMuch,
}

/// The program.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
}

impl Program {
    /// The one that `DUCKDB` names, or the first on `PATH`.
    pub fn find() -> Result<Self, ProgramError> {
        let program = Self::among(std::env::var_os("DUCKDB"), std::env::var_os("PATH"))?;
        program.check()?;
        Ok(program)
    }

    /// What [`Program::find`] takes it from.
    pub fn among(variable: Option<OsString>, path: Option<OsString>) -> Result<Self, ProgramError> {
        let file = format!("duckdb{}", std::env::consts::EXE_SUFFIX);
        if let Some(named) = variable.filter(|named| !named.is_empty()) {
            let path = PathBuf::from(named);
            return if is_program(&path) {
                Ok(Self { path: absolute(path) })
            } else {
                Err(ProgramError::NotThere(path))
            };
        }
        let mut places =
            std::env::split_paths(path.as_deref().unwrap_or(OsStr::new(""))).map(|place| place.join(&file));
        let found = places.find(|place| is_program(place)).map(absolute);
        found.map(|path| Self { path }).ok_or(ProgramError::NotFound)
    }

    /// That it is DuckDB, and not too old.
    pub fn check(&self) -> Result<(), ProgramError> {
        let folder = tempfile::tempdir().map_err(ProgramError::Folder)?;
        let foreign = |said: &str| ProgramError::Foreign { path: self.path.clone(), said: first_line(said) };
        match self.call(folder.path(), &["--version"], "", QUICK)? {
            Ended::Well(said) if version(&said).is_some_and(|version| version >= OLDEST) => Ok(()),
            Ended::Well(said) | Ended::Badly(said) => Err(foreign(&said)),
            Ended::Late | Ended::TooMuch => Err(foreign("it does not say its version")),
        }
    }

    /// Runs SQL of ours on a database file of `folder`, with the folder's files at hand.
    pub fn load(&self, folder: &Path, database: &str, sql: &str) -> Result<(), ProgramError> {
        let said = match self.call(folder, &["-batch", "-bail", "-init", INIT, database], sql, LOADING)? {
            Ended::Well(_) => return Ok(()),
            Ended::Badly(said) => said,
            Ended::Late => "it took too long".into(),
            Ended::TooMuch => "it said too much".into(),
        };
        Err(ProgramError::Load { path: self.path.clone(), said })
    }

    /// Runs SQL that may read the database and nothing else. The output is a JSON array for each `SELECT`.
    pub fn ask(&self, folder: &Path, database: &str, sql: &str, limit: Duration) -> Result<Ended, ProgramError> {
        // Once the configuration is locked, nothing below can open it again.
        let shut = "SET threads = 1;\nSET memory_limit = '2GB';\nSET max_temp_directory_size = '2GB';\n\
                    SET enable_external_access = false;\nSET lock_configuration = true;\n";
        let arguments = ["-readonly", "-batch", "-bail", "-json", "-init", INIT, database];
        self.call(folder, &arguments, &format!("{shut}{sql}"), limit)
    }

    /// One call, in `folder`, with an empty environment.
    fn call(&self, folder: &Path, arguments: &[&str], input: &str, limit: Duration) -> Result<Ended, ProgramError> {
        let file = |name: &str| folder.join(name);
        std::fs::write(file(INIT), "").map_err(ProgramError::Folder)?;
        std::fs::write(file(INPUT), input).map_err(ProgramError::Folder)?;
        let open = |name: &str| File::open(file(name)).map_err(ProgramError::Folder);
        let create = |name: &str| File::create(file(name)).map_err(ProgramError::Folder);
        let mut command = limited(&self.path, limit);
        command.args(arguments).current_dir(folder).env_clear();
        // What a program needs to be found and loaded, and none of the user's secrets.
        for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.env("HOME", folder).env("TMPDIR", folder);
        command.stdin(open(INPUT)?).stdout(create(OUTPUT)?).stderr(create(MESSAGES)?);
        let start = |source| ProgramError::Start { path: self.path.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        let Some(status) = wait(&mut child, limit).map_err(start)? else { return Ok(Ended::Late) };
        if !status.success() {
            // The limit of the processor's time, which also holds for what the program has started.
            let stopped = stopped(status);
            let message = head(&file(MESSAGES), MOST_MESSAGE).map_err(ProgramError::Folder)?.0;
            return Ok(if stopped { Ended::Late } else { Ended::Badly(message.trim().into()) });
        }
        let (output, whole) = head(&file(OUTPUT), MOST_ANSWER).map_err(ProgramError::Folder)?;
        Ok(if whole { Ended::Well(output) } else { Ended::TooMuch })
    }
}

/// Files of a call, in its folder.
const INIT: &str = "init.sql";
const INPUT: &str = "input.sql";
const OUTPUT: &str = "output.json";
const MESSAGES: &str = "messages.txt";

/// The program under a limit of processor time. It may be a script that starts the real one, which would outlive it.
#[cfg(unix)]
fn limited(program: &Path, limit: Duration) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sh");
    let seconds = limit.as_secs().saturating_add(1).to_string();
    command.args(["-c", "ulimit -t \"$1\" && shift && exec \"$@\"", "sh", &seconds]).arg(program);
    // A group of its own, which can be stopped as a whole.
    command.process_group(0);
    command
}

/// Stops the program and what it has started.
#[cfg(unix)]
fn stop(child: &mut Child) -> io::Result<()> {
    let group = child.id().to_string();
    let _ = Command::new("/bin/sh")
        .args(["-c", "kill -9 -- \"-$1\"", "sh", &group])
        .stderr(std::process::Stdio::null())
        .status();
    child.kill()?;
    child.wait().map(|_| ())
}

#[cfg(not(unix))]
fn stop(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(|_| ())
}

#[cfg(not(unix))]
fn limited(program: &Path, _: Duration) -> Command {
    Command::new(program)
}

/// Whether the limit of processor time ended it, as a signal or as a script reports one.
#[cfg(unix)]
fn stopped(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    /// SIGXCPU on every system that has it, and SIGKILL.
    const SIGNALS: [i32; 2] = [24, 9];
    let code = status.code();
    SIGNALS
        .iter()
        .any(|&signal| status.signal() == Some(signal) || code == Some(128 + signal) || code == Some(256 - signal))
}

#[cfg(not(unix))]
fn stopped(_: ExitStatus) -> bool {
    false
}

/// How it ended; nothing where it had to be stopped.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            stop(child)?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The beginning of a file as text, and whether it is all.
fn head(path: &Path, most: u64) -> io::Result<(String, bool)> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    let whole = bytes.len() as u64 <= most;
    bytes.truncate(most as usize);
    Ok((String::from_utf8_lossy(&bytes).into_owned(), whole))
}

/// `v1.5.6 (Variegata) 069cc9f9b5`
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix('v')?.split(['.', '-', ' ']).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn first_line(said: &str) -> String {
    let line: String =
        said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").chars().take(200).collect();
    line.trim().to_owned()
}

/// Calls are made in another folder.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_program_says_them() {
        for (said, expected) in [
            ("v1.5.6 (Variegata) 069cc9f9b5\n", Some((1, 5))),
            ("v1.10.0-dev12 abc", Some((1, 10))),
            ("v0.10.3 70fd6a8a24", Some((0, 10))),
            ("duck 1.5", None),
            ("", None),
        ] {
            assert_eq!(version(said), expected, "{said}");
        }
        assert!((0, 10) < OLDEST && (1, 10) > OLDEST);
    }

    #[test]
    fn the_variable_goes_before_the_path_and_must_name_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = Some(OsString::from(folder.path()));
        assert!(matches!(Program::among(None, nowhere.clone()), Err(ProgramError::NotFound)));
        assert!(matches!(Program::among(None, None), Err(ProgramError::NotFound)));
        let missing = folder.path().join("other");
        let error = Program::among(Some(missing.clone().into()), nowhere.clone()).unwrap_err();
        assert_eq!(error.to_string(), format!("the variable DUCKDB is `{}`, which is no program", missing.display()));
        assert!(matches!(Program::among(Some("".into()), nowhere), Err(ProgramError::NotFound)), "empty is unset");
    }
}
