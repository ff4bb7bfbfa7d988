//! What each part of the source may know.

use crate::support::{ROOT, list, walk};
use std::path::Path;

/// A file of `src/`.
pub struct Source {
    /// Its path below the repository, with `/`.
    pub path: String,
    pub text: String,
    /// Its lines without comments.
    pub code: Vec<String>,
}

pub fn sources() -> Vec<Source> {
    let root = Path::new(ROOT);
    let files = walk(&root.join("src")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let source = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().map(|line| without_comment(line).to_owned()).collect();
        Source { path: path.strip_prefix(root).unwrap().display().to_string().replace('\\', "/"), text, code }
    };
    let sources: Vec<Source> = files.map(source).collect();
    assert!(sources.len() > 50, "the source is elsewhere");
    sources
}

/// A line up to its comment; `://` begins none.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").map(|(at, _)| at).find(|&at| !line[..at].ends_with(':'));
    &line[..comment.unwrap_or(line.len())]
}

pub fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a word stands in a line as a whole.
fn has_word(line: &str, word: &str) -> bool {
    let whole = |at: usize| !line[..at].ends_with(in_name) && !line[at + word.len()..].starts_with(in_name);
    line.match_indices(word).any(|(at, _)| whole(at))
}

/// `a` of `a::b`; `a` and `b` of `{a::x, b}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |part: &str| part.trim().chars().take_while(|c| in_name(*c)).collect::<String>();
    match path.strip_prefix('{') {
        Some(list) => list.split(',').map(name).collect(),
        None => vec![name(path)],
    }
}

impl Source {
    /// Whether it is a module's file or lies in its folder: `plan`, `report/draw`.
    fn of(&self, module: &str) -> bool {
        let rest = self.path.strip_prefix("src/").and_then(|path| path.strip_prefix(module));
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// How deep below the crate it is as a module: 1 for `plan`, 2 for `plan::cell`.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count() - 1;
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    /// The names right below the crate that it uses, each with its line.
    fn uses(&self) -> Vec<(String, &str)> {
        let mut found = Vec::new();
        let mut in_tests = false;
        for line in &self.code {
            in_tests |= line.ends_with("mod tests {");
            // This many `super::` reach the crate.
            let climb = "super::".repeat(self.depth() + usize::from(in_tests));
            for prefix in ["crate::", &climb] {
                for (at, _) in line.match_indices(prefix) {
                    let (before, rest) = (&line[..at], &line[at + prefix.len()..]);
                    if !before.ends_with(in_name) && !before.ends_with("::") && !rest.starts_with("super::") {
                        found.extend(first_names(rest).into_iter().map(|name| (name, line.as_str())));
                    }
                }
            }
        }
        found
    }
}

/// Fails the test if a file outside `allowed` has one of the words in its code.
#[track_caller]
fn only_in(allowed: impl Fn(&Source) -> bool, words: &[&str]) {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !allowed(source)) {
        for (number, line) in source.code.iter().enumerate() {
            if words.iter().any(|word| has_word(line, word)) {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{words:?}:\n{}", found.join("\n"));
}

/// Each module, and the modules that it must not name.
const MUST_NOT_NAME: &[(&str, &str)] = &[
    ("config", "plan load model sparse execute measure record run report verify cli error"),
    ("diagnostic", "config plan load model sparse prune execute measure record run report verify cli error"),
    ("choice", "config plan load model sparse prune execute measure record run report verify cli error"),
    ("plan", "load model sparse execute measure record run report verify cli error"),
    ("load", "plan sparse prune execute measure record run report verify cli error"),
    ("model", "plan load prune measure record run report verify cli error"),
    ("sparse", "config plan load model prune execute measure record run report verify cli error"),
    ("prune", "config plan load model execute measure record run report verify cli error"),
    ("analysis", "config plan load model prune execute measure record run report verify cli error"),
    ("execute", "load model prune measure record run report verify cli error"),
    ("measure", "plan load prune record run report verify cli error"),
    ("record", "load model sparse prune execute run report verify cli error"),
    ("run", "report verify cli error"),
    ("report", "load model sparse prune execute measure run verify cli error"),
    ("verify", "cli error"),
];

#[test]
fn modules_name_only_what_they_may_know() {
    let sources = sources();
    let mut found = Vec::new();
    for (module, forbidden) in MUST_NOT_NAME {
        assert!(sources.iter().any(|source| source.of(module)), "there is no module {module}");
        for source in sources.iter().filter(|source| source.of(module)) {
            for (name, line) in source.uses() {
                if forbidden.split(' ').any(|forbidden| forbidden == name) {
                    found.push(format!("{} names `{name}`: {}", source.path, line.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn names_are_seen_in_every_spelling() {
    let names = |path: &str, code: &str| {
        let source = Source { path: path.into(), text: String::new(), code: code.lines().map(Into::into).collect() };
        source.uses().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let cell = "src/plan/cell.rs";
    assert_eq!(names(cell, "use crate::prune;\nlet x = crate::model::f(crate::load::y);"), ["prune", "model", "load"]);
    assert_eq!(names(cell, "pub(crate) use crate::{load::A, run};"), ["load", "run"]);
    assert_eq!(names(cell, "use super::super::run::A;\nuse super::select;"), ["run"]);
    assert_eq!(names("src/plan/mod.rs", "use super::run;"), ["run"]);
    assert_eq!(names(cell, "mod tests {\nuse super::super::select;\nuse super::super::super::run;"), ["run"]);
    assert_eq!(without_comment("let a = \"x://y\"; // use crate::run"), "let a = \"x://y\"; ");
    assert!(has_word("unsafe { x }", "unsafe") && !has_word("unsafe_op_in_unsafe_fn", "unsafe"));
}

#[test]
fn experiments_and_plans_know_no_tensors() {
    let words = ["burn", "burn_flex", "burn_ndarray", "burn_cuda", "cubecl", "half", "safetensors", "tokenizers"];
    only_in(|source| !source.of("config") && !source.of("plan"), &words);
}

#[test]
fn a_plan_does_no_io() {
    let words = ["std::fs", "std::net", "std::env", "std::process", "std::io", "Command", "File", "env!", "tempfile"];
    only_in(|source| !source.of("plan"), &words);
}

#[test]
fn only_the_drawing_knows_plotters() {
    only_in(|source| source.of("report/draw"), &["plotters", "plotters_backend"]);
}

#[test]
fn only_the_linear_algebra_of_pruning_knows_faer() {
    only_in(|source| source.of("prune/linalg"), &["faer"]);
}

#[test]
fn only_the_hub_opens_sockets() {
    let words = ["ureq", "hf_hub", "std::net", "TcpStream", "TcpListener", "UdpSocket", "rustls"];
    only_in(|source| source.of("load/hub"), &words);
}

#[test]
fn only_the_command_line_prints_and_exits() {
    let words = ["println!", "eprintln!", "print!", "eprint!", "dbg!", "stdout()", "stderr()", "process::exit"];
    only_in(|source| source.of("cli") || source.path == "src/main.rs", &words);
}

#[test]
fn unsafe_code_is_where_it_must_be() {
    let allowed = ["execute", "load/weights", "analysis/popcount"];
    only_in(|source| allowed.iter().any(|module| source.of(module)), &["unsafe"]);
}

#[test]
fn files_say_what_they_are() {
    let mut found = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") {
            found.push(format!("{} does not begin with `//!`", source.path));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_map_names_every_file_of_the_gpu() {
    let map = std::fs::read_to_string(Path::new(ROOT).join("docs/architecture.md")).unwrap();
    let section = map.split_once("### The GPU\n").and_then(|(_, rest)| rest.split_once("\n## ")).unwrap().0;
    // A row has a column of each folder.
    let column =
        |number: usize| section.lines().filter_map(|line| line.split('|').nth(number)).collect::<Vec<_>>().join(" ");
    for (folder, number) in [("src/execute/cuda", 2), ("src/execute/cuda/raw", 3), ("src/execute/kernels/cuda", 4)] {
        let named = column(number);
        let files =
            list(&Path::new(ROOT).join(folder)).into_iter().filter(|path| path.extension() == Some("rs".as_ref()));
        let names = files.map(|path| format!("`{}`", path.file_name().unwrap().display()));
        let names: Vec<_> = names.filter(|name| name != "`mod.rs`").collect();
        assert!(names.len() > 5, "{folder} is elsewhere");
        let missing: Vec<_> = names.iter().filter(|name| !named.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "docs/architecture.md does not name {missing:?} of {folder}");
        let gone: Vec<_> = named.split('`').filter(|word| word.ends_with(".rs") && *word != "mod.rs").collect();
        let gone: Vec<_> = gone.into_iter().filter(|word| !names.contains(&format!("`{word}`"))).collect();
        assert!(gone.is_empty(), "docs/architecture.md names {gone:?}, which {folder} has not");
    }
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let folders = ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"];
    let files: Vec<_> = folders.iter().flat_map(|folder| walk(&Path::new(ROOT).join(folder))).collect();
    let files = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
    let counted: Vec<(usize, &Path)> = files.map(|path| (lines(path), path.as_path())).collect();
    assert!(counted.len() > 200, "the source is elsewhere");
    let long: Vec<_> = counted.iter().filter(|(lines, _)| *lines > 600).collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn nothing_names_a_place_outside_the_repository() {
    // Put together here, so that this file does not name them either.
    let places = [concat!("..", "/shared"), concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let ours = |path: &Path| !["target", ".git", "results", ".bin"].iter().any(|name| path.ends_with(name));
    let entries = list(Path::new(ROOT)).into_iter().filter(|path| ours(path));
    let files = entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] });
    let files: Vec<_> = files.chain(walk(&Path::new(ROOT).join("results/reference"))).collect();
    assert!(files.len() > 100);
    let mut found = Vec::new();
    for path in files {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        found.extend(
            places.iter().filter(|place| text.contains(**place)).map(|place| format!("{}: {place}", path.display())),
        );
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
