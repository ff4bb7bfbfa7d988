//! `report.html`: all of a results folder on one page that needs nothing beside it: no network, no other file.
//!
//! ```text
//!   Content ──> minijinja values ──page.html──> report.html
//!     tables  ──> JSON in the page ── page.js: sorted, filtered, a hundred rows at a time
//!     figures ──> SVG in the page
//!     file    ──toml.rs──> coloured TOML
//! ```
//! Owns what stands on the page and in which order. Knows no cells, only what is told of them. Names and messages may be
//! anybody's: they become text, whatever they are, and the page's policy runs no script and no style but its own. Equal
//! contents give equal bytes.

mod toml;

use super::draw::image::base64;
use super::escape;
use super::pivot::{Mark, Marked};
use super::plot_files::DrawnFigure;
use super::table::{Table, Value};
use crate::record::{InputRecord, Manifest};
use crate::shell;
use minijinja::value::Value as Jinja;
use minijinja::{Environment, context};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const TEMPLATES: [(&str, &str); 2] =
    [("page.html", include_str!("page/page.html")), ("table.html", include_str!("page/table.html"))];

/// The file's name.
pub(super) const FILE: &str = "report.html";

/// What stands on the page.
#[derive(Default)]
pub(super) struct Content<'a> {
    /// The experiment's title, or its name.
    pub title: String,
    /// How far it is: `50 cells`, `2 failed`, each good, a warning or bad.
    pub state: Vec<(Tone, String)>,
    /// What a reader should not miss.
    pub messages: Vec<(Tone, String)>,
    /// Cells that failed.
    pub failures: Vec<FailedCell>,
    /// Numbers that should have come out.
    pub verdicts: Vec<&'a Table>,
    /// Tables as they are set in a text, those of the file and others: short ones.
    pub pivots: Vec<Marked>,
    /// All figures.
    pub figures: &'a [DrawnFigure],
    /// The tables of every kind of work, under a heading each.
    pub groups: Vec<(&'static str, Vec<&'a Table>)>,
    /// The experiment file.
    pub file: Option<String>,
    /// What was run where.
    pub manifest: Option<Manifest>,
}

/// How a message is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
}

/// A cell without numbers.
pub(super) struct FailedCell {
    pub id: String,
    pub what: String,
    pub kind: String,
    pub reason: String,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "good",
            Self::Warning => "warn",
            Self::Bad => "bad",
        }
    }
}

/// The page.
pub(super) fn render(content: &Content<'_>) -> String {
    let mut pages = Environment::new();
    for (name, text) in TEMPLATES {
        pages.add_template(name, text).expect("the embedded templates parse");
    }
    let page = pages.get_template("page.html").expect("it was added above");
    let times = times(content);
    let values = context! {
        title => text(&content.title),
        style => Jinja::from_safe_string(STYLE.into()),
        script => Jinja::from_safe_string(SCRIPT.into()),
        style_hash => Jinja::from_safe_string(hash(STYLE)),
        script_hash => Jinja::from_safe_string(hash(SCRIPT)),
        state => toned(&content.state),
        links => links(content, times.is_some()),
        messages => toned(&content.messages),
        failures => content.failures.iter().map(failure).collect::<Jinja>(),
        verdicts => content.verdicts.iter().map(|table| small(table)).collect::<Jinja>(),
        pivots => content.pivots.iter().map(pivot).collect::<Jinja>(),
        figures => content.figures.iter().map(figure).collect::<Jinja>(),
        groups => groups(content),
        times => times.iter().map(small).collect::<Jinja>(),
        file => content.file.as_ref().map(|file| Jinja::from_safe_string(toml::highlighted(file))),
        manifest => content.manifest.as_ref().map(manifest),
        data => Jinja::from_safe_string(data(content)),
    };
    page.render(values).expect("the template uses what is given above")
}

/// Text of others: what acts is made visible, and the template escapes what is markup.
fn text(text: &str) -> String {
    escape::line(text).into_owned()
}

/// The name of a style or script in the page's policy.
fn hash(content: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(content.as_bytes())))
}

fn toned(messages: &[(Tone, String)]) -> Jinja {
    messages.iter().map(|(tone, message)| context! { class => tone.class(), text => text(message) }).collect()
}

fn failure(cell: &FailedCell) -> Jinja {
    context! { id => text(&cell.id), what => text(&cell.what), kind => text(&cell.kind), reason => text(&cell.reason) }
}

fn figure(figure: &DrawnFigure) -> Jinja {
    context! { name => text(&figure.name), svg => Jinja::from_safe_string(figure.svg.clone()) }
}

/// The sections that there are.
fn links(content: &Content<'_>, timed: bool) -> Jinja {
    let all = [
        ("messages", "notes", !content.messages.is_empty()),
        ("failures", "failed cells", !content.failures.is_empty()),
        ("expectations", "expectations", !content.verdicts.is_empty()),
        ("pivots", "tables for a paper", !content.pivots.is_empty()),
        ("plots", "plots", !content.figures.is_empty()),
        ("tables", "all tables", true),
        ("times", "time", timed),
        ("file", "what was asked", content.file.is_some()),
        ("repeat", "how to repeat it", content.manifest.is_some()),
    ];
    let there = all.into_iter().filter(|(_, _, there)| *there);
    there.map(|(id, text, _)| context! { id => id, text => text }).collect()
}

/// A table that is short enough to stand in the document.
fn small(table: &Table) -> Jinja {
    let cell = |value: &Value| context! { text => text(&value.rounded()), number => value.number().is_some() };
    let rows: Jinja = table.rows.iter().map(|row| row.iter().map(cell).collect::<Jinja>()).collect();
    let columns: Jinja = table.columns.iter().map(|column| text(column)).collect();
    context! { name => text(&table.name), columns => columns, rows => rows }
}

/// A pivot: the best in bold, the second underlined, entries below each other like numbers.
fn pivot(Marked { table, headings, marks }: &Marked) -> Jinja {
    let class = |at: usize, mark: Option<&Mark>| match mark {
        _ if at < *headings => "",
        Some(Mark { bold: true, .. }) => "number best",
        Some(Mark { underlined: true, .. }) => "number second",
        Some(_) | None => "number",
    };
    let row = |(row, marks): (&Vec<Value>, &Vec<Mark>)| -> Jinja {
        let cell = |(at, value): (usize, &Value)| {
            let mark = at.checked_sub(*headings).and_then(|at| marks.get(at));
            context! { text => text(&value.to_string()), class => class(at, mark) }
        };
        row.iter().enumerate().map(cell).collect()
    };
    let rows: Jinja = table.rows.iter().zip(marks).map(row).collect();
    let columns: Jinja = table.columns.iter().map(|column| text(column)).collect();
    context! { name => text(&table.name), columns => columns, rows => rows, headings => headings }
}

/// Names and lengths of the tables whose rows are data; the first one is open.
fn groups(content: &Content<'_>) -> Jinja {
    let mut index = 0usize;
    let mut group = |(name, tables): &(&'static str, Vec<&Table>)| {
        let mut table = |table: &&Table| {
            index += 1;
            let open = index == 1;
            context! { name => text(&table.name), rows => table.rows.len(), index => index - 1, open => open }
        };
        let tables: Jinja = tables.iter().map(&mut table).collect::<Vec<_>>().into_iter().collect();
        context! { name => *name, tables => tables }
    };
    let made: Vec<Jinja> = content.groups.iter().filter(|(_, tables)| !tables.is_empty()).map(&mut group).collect();
    made.into_iter().collect()
}

/// The rows of all tables: `[{"name": …, "columns": […], "rows": [[…], …]}, …]`.
fn data(content: &Content<'_>) -> String {
    let value = |value: &Value| match value {
        Value::Missing => serde_json::Value::Null,
        Value::Text(words) => text(words).into(),
        Value::Int(count) => (*count).into(),
        Value::Float(number) => (*number).into(),
    };
    let table = |table: &&Table| {
        let rows = table.rows.iter().map(|row| row.iter().map(value).collect::<serde_json::Value>());
        let columns: Vec<String> = table.columns.iter().map(|column| text(column)).collect();
        serde_json::json!({
            "name": text(&table.name),
            "columns": columns,
            "rows": rows.collect::<serde_json::Value>(),
        })
    };
    let tables: serde_json::Value = content.groups.iter().flat_map(|(_, tables)| tables).map(table).collect();
    escape::json_in_html(&tables.to_string())
}

/// Sums of the table of timings, if there is one.
fn times(content: &Content<'_>) -> Option<Table> {
    let timings = content.groups.iter().flat_map(|(_, tables)| tables).find(|table| table.name == "timings")?;
    let mut sums = Table::new("times", ["what", "seconds"]);
    for (at, column) in timings.columns.iter().enumerate() {
        let Some(what) = column.strip_suffix("_seconds") else { continue };
        let sum: f64 = timings.rows.iter().filter_map(|row| row[at].number()).sum();
        sums.rows.push(vec![what.into(), sum.into()]);
    }
    (!sums.rows.is_empty()).then_some(sums)
}

fn manifest(manifest: &Manifest) -> Jinja {
    let (program, machine) = (&manifest.program, &manifest.machine);
    let gib = machine.memory_bytes as f64 / f64::from(1 << 30);
    let seeds: Vec<String> = manifest.seeds.iter().map(ToString::to_string).collect();
    let facts = [
        ("program", program.to_string()),
        ("features", program.features.join(", ")),
        (
            "machine",
            format!("{}, {} cores ({}), {gib:.1} GiB, {}", machine.cpu, machine.cores, machine.simd, machine.os),
        ),
        ("GPUs", machine.gpus.join("; ")),
        ("seeds", seeds.join(", ")),
        ("experiment file", format!("SHA-256 {}", manifest.experiment_sha256)),
        ("written", manifest.written.clone()),
    ];
    let facts = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
    let mut inputs = Table::new("inputs", ["source", "file", "bytes", "commit", "sha256"]);
    inputs.rows = manifest.inputs.iter().map(input).collect();
    context! {
        commands => commands(manifest),
        facts => facts.map(|(name, fact)| context! { name => name, text => text(&fact) }).collect::<Jinja>(),
        inputs => small(&inputs),
    }
}

fn input(input: &InputRecord) -> Vec<Value> {
    vec![
        input.source.as_str().into(),
        input.file.clone().into(),
        input.bytes.into(),
        input.commit.clone().into(),
        input.sha256.as_str().into(),
    ]
}

/// What to type to have the same numbers.
fn commands(manifest: &Manifest) -> String {
    let program = &manifest.program;
    let mut lines = Vec::new();
    if let Some(commit) = &program.commit {
        lines.push(format!("git checkout {}", quoted(commit)));
    }
    let features = program.features.join(",");
    lines.push(match features.as_str() {
        "" => "cargo build --release --locked --no-default-features".into(),
        features => format!("cargo build --release --locked --no-default-features --features {}", quoted(features)),
    });
    let arguments = manifest.argv.iter().skip(1).map(|argument| quoted(argument));
    let typed: Vec<String> = ["target/release/sparsify-exp".to_owned()].into_iter().chain(arguments).collect();
    lines.push(typed.join(" "));
    lines.join("\n")
}

/// An argument as a shell reads it.
fn quoted(argument: &str) -> String {
    shell::word(&text(argument))
}

#[cfg(test)]
mod tests;
