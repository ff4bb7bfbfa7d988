//! Files of the source that import each other in a circle: there are none but those that are excused.

use crate::architecture::{Source, in_name, sources};
use std::collections::{BTreeMap, BTreeSet};

/// A module, by the names of its path: `["plan", "cell"]`; the crate is `[]`.
type Module = Vec<String>;

/// Which file imports which. What `pub use` hands on is not imported by the file that hands it on, but by who takes it
/// from there. A folder's own file (`mod.rs`) and the files in the folder count as one thing.
struct Imports {
    edges: BTreeMap<Module, BTreeSet<Module>>,
}

/// The code of a file without comments and unit tests.
fn tested_code(source: &Source) -> String {
    let lines = source.code.iter().take_while(|line| !line.trim_start().starts_with("mod tests {"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The paths of a `use`, its braces multiplied out; what is renamed keeps its ` as `.
fn flattened(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((start, list)) = tree.split_once('{') else {
        return vec![tree.split_whitespace().collect::<Vec<_>>().join(" ")];
    };
    let list = &list[..list.rfind('}').unwrap()];
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 { parts.push(String::new()) } else { parts.last_mut().unwrap().push(c) }
    }
    let whole = parts.iter().filter(|part| !part.trim().is_empty());
    whole.flat_map(|part| flattened(part)).map(|part| format!("{start}{part}")).collect()
}

/// What the `use` lines of a code name, and the code without them; `public` are those that hand on.
fn uses(code: &str) -> (Vec<String>, Vec<String>, String) {
    let (mut own, mut public, mut rest) = (Vec::new(), Vec::new(), String::new());
    let mut statement: Option<(bool, String)> = None;
    for line in code.lines() {
        let trimmed = line.trim_start();
        let (visibility, after) = match trimmed.split_once("use ") {
            Some((before, after)) if before.is_empty() || before.starts_with("pub") && !before.contains('{') => {
                (before, after)
            }
            _ => ("", ""),
        };
        match &mut statement {
            Some((_, text)) => text.push_str(trimmed),
            None if !after.is_empty() => statement = Some((!visibility.is_empty(), after.to_owned())),
            None => rest.push_str(&format!("{line}\n")),
        }
        if let Some((handed_on, text)) = statement.take_if(|(_, text)| text.ends_with(';')) {
            let paths = flattened(text.trim_end_matches(';'));
            if handed_on { public.extend(paths) } else { own.extend(paths) }
        }
    }
    (own, public, rest)
}

impl Imports {
    fn of(sources: &[Source]) -> Self {
        let counted = |source: &&Source| !source.path.contains("/tests") && source.path != "src/main.rs";
        let codes: BTreeMap<Module, String> =
            sources.iter().filter(counted).map(|source| (module_of(&source.path), tested_code(source))).collect();
        let parsed: BTreeMap<&Module, _> = codes.iter().map(|(module, code)| (module, uses(code))).collect();
        let mut handed_on: BTreeMap<(Module, String), (Module, Vec<String>)> = BTreeMap::new();
        for (module, (_, public, _)) in &parsed {
            for path in public {
                let (path, name) = path.split_once(" as ").unwrap_or((path, path.rsplit("::").next().unwrap()));
                let name = name.to_owned();
                if let Some(target) = absolute(&codes, module, path) {
                    handed_on.insert(((*module).clone(), name), target);
                }
            }
        }
        let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, (own, _, rest)) in &parsed {
            let inline = inline_paths(rest);
            for path in own.iter().chain(&inline) {
                let path = path.split(" as ").next().unwrap_or_default();
                let Some((start, names)) = absolute(&codes, module, path) else { continue };
                let target = resolved(&codes, &handed_on, start, &names);
                if !target.starts_with(module) && !module.starts_with(&target) {
                    edges.entry((*module).clone()).or_default().insert(target);
                }
            }
        }
        Self { edges }
    }

    /// Whether one file leads to another, by whatever way.
    fn leads(&self, from: &Module, to: &Module, without: &[(Module, Module)]) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            for target in self.edges.get(module).into_iter().flatten() {
                if without.iter().any(|(a, b)| a == module && b == target) {
                    continue;
                }
                if target == to {
                    return true;
                }
                if seen.insert(target) {
                    next.push(target);
                }
            }
        }
        false
    }
}

/// `src/plan/cell.rs` is `plan::cell`, `src/plan/mod.rs` is `plan`.
fn module_of(path: &str) -> Module {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.trim_end_matches("/mod");
    path.split('/').filter(|name| *name != "lib").map(ToOwned::to_owned).collect()
}

/// Where a path of a module starts, and the names after that; none of another crate's.
fn absolute(codes: &BTreeMap<Module, String>, module: &Module, path: &str) -> Option<(Module, Vec<String>)> {
    let mut names: Vec<String> = path.split("::").map(|name| name.trim().to_owned()).collect();
    let mut start = module.clone();
    match names[0].as_str() {
        "crate" => start.clear(),
        "self" => {}
        "super" => {
            while names.first().is_some_and(|name| name == "super") {
                start.pop();
                names.remove(0);
            }
            return Some((start, names));
        }
        name => {
            let child = [&module[..], &[name.to_owned()]].concat();
            return codes.contains_key(&child).then_some((start, names));
        }
    }
    names.remove(0);
    Some((start, names))
}

/// The file that defines what a path names.
fn resolved(
    codes: &BTreeMap<Module, String>,
    handed_on: &BTreeMap<(Module, String), (Module, Vec<String>)>,
    at: Module,
    names: &[String],
) -> Module {
    let Some((name, rest)) = names.split_first() else { return at };
    let child = [&at[..], std::slice::from_ref(name)].concat();
    if codes.contains_key(&child) {
        return resolved(codes, handed_on, child, rest);
    }
    match handed_on.get(&(at.clone(), name.clone())) {
        // A name that is handed on under its own name would lead here again.
        Some((start, names)) if (start, names.first()) != (&at, Some(name)) || codes.contains_key(&child) => {
            let names = [names, rest].concat();
            resolved(codes, handed_on, start.clone(), &names)
        }
        _ => at,
    }
}

/// The paths in code that start at the crate, above, or in a part of the file's own folder.
fn inline_paths(code: &str) -> Vec<String> {
    let in_path = |c: char| in_name(c) || c == ':';
    let words = code.split(|c: char| !in_path(c)).map(|word| word.trim_matches(':'));
    words.filter(|word| word.contains("::")).map(ToOwned::to_owned).collect()
}

/// Circles of files that are there for a reason. The list may only shrink.
const EXCUSED: &[(&str, &str)] = &[
    // A task is one of the kinds, and each kind knows what a task is.
    ("plan::task", "plan::analysis"),
    ("plan::task", "plan::identify"),
    ("plan::task", "plan::kernel"),
    ("plan::task", "plan::model"),
    ("plan::task", "plan::resume"),
    ("plan::model", "plan::point"),
    ("record::cell", "record::numbers"),
    ("record::numbers", "record::analysis"),
    ("record::numbers", "record::kernel"),
    ("prune::method", "prune::gram"),
    // A reader of documents chooses among readers of files, which report to it.
    ("load::dataset::documents", "load::dataset::lines"),
    ("load::dataset::documents", "load::dataset::table"),
    ("load::hub::error", "load::hub::names"),
    // What a backend does unless it has something better is written in terms of the trait.
    ("execute::decode", "execute::burn_ops"),
    // Devices are resolved in one file, whose errors the GPU's files share.
    ("execute::device", "execute::cuda::cache"),
    ("execute::device", "execute::cuda::probe"),
    ("execute::device", "execute::cuda::raw::blas"),
];

#[test]
fn files_import_each_other_in_no_circle() {
    let imports = Imports::of(&sources());
    assert!(imports.edges.len() > 100, "the source is elsewhere");
    let module = |path: &str| -> Module { path.split("::").map(ToOwned::to_owned).collect() };
    let excused: Vec<(Module, Module)> = EXCUSED.iter().map(|(from, to)| (module(from), module(to))).collect();
    let mut circles = Vec::new();
    for (from, targets) in &imports.edges {
        for to in targets {
            let pair = (from.clone(), to.clone());
            if !excused.contains(&pair) && imports.leads(to, from, &excused) {
                circles.push(format!("(\"{}\", \"{}\")", from.join("::"), to.join("::")));
            }
        }
    }
    assert!(circles.is_empty(), "each of these imports leads back to where it comes from:\n{}", circles.join("\n"));
    for (index, (from, to)) in excused.iter().enumerate() {
        let others: Vec<_> =
            excused.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, pair)| pair.clone()).collect();
        let there = imports.edges.get(from).is_some_and(|targets| targets.contains(to));
        assert!(there && imports.leads(to, from, &others), "no circle any more, take it out: {:?}", EXCUSED[index]);
    }
}

#[test]
fn imports_are_seen_in_every_spelling() {
    let source = |path: &str, code: &str| Source {
        path: path.into(),
        text: String::new(),
        code: code.lines().map(Into::into).collect(),
    };
    let imports = |code: &str| {
        let sources = [
            source(
                "src/plan/mod.rs",
                "mod cell;\nmod task;\npub use cell::Cell;\npub(crate) use task::{\n    A, B, C as Renamed};",
            ),
            source("src/plan/cell.rs", code),
            source("src/plan/task.rs", "mod tests {\n use super::super::cell;\n}"),
            source("src/run.rs", "use crate::plan::Cell;\n"),
        ];
        let imports = Imports::of(&sources);
        let edges = imports
            .edges
            .iter()
            .flat_map(|(from, to)| to.iter().map(move |to| format!("{}>{}", from.join("."), to.join("."))));
        (
            edges.collect::<Vec<_>>().join(" "),
            imports.leads(&vec!["run".into()], &vec!["plan".into(), "task".into()], &[]),
        )
    };
    assert_eq!(imports("use std::fs;"), ("run>plan.cell".into(), false));
    assert_eq!(imports("use super::Renamed as X;").0, "plan.cell>plan.task run>plan.cell");
    for code in
        ["use super::task::X;", "use super::{A, y};", "let x = crate::plan::B::new();", "fn f(x: super::task::X) {}"]
    {
        assert_eq!(imports(code), ("plan.cell>plan.task run>plan.cell".into(), true), "{code}");
    }
    assert_eq!(flattened("a::{b, c::{d, e as f}}"), ["a::b", "a::c::d", "a::c::e as f"]);
}
