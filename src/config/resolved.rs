//! The experiment file as the program reads it: after `extends`, ranges, overrides and defaults, every line that the
//! file itself does not have marked with where it comes from.
//!
//! ```text
//!   schema ── every key ──▶ given  (file, base, command line)   key = value            # base.toml
//!                           a default that changes nothing      key = value            # default
//!                           a default that a value can't say    # key: the model's own maximum
//!                           else, it has no meaning here        nothing
//! ```
//! Whether a default changes nothing is not for this file to know: it writes the key, reads the text as any other and
//! compares the experiments. So the page says what the file says, and nothing else.

use std::borrow::Cow;
use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::experiment::{Method, MethodSettings, NmPattern, Scope};
use super::grammar::{Grammar, experiment};
use super::reference::{description, inner_table, properties, toml, words};
use super::{ConfigError, Experiment, Origin, Written, json_schema, parse_from, range};
use crate::diagnostic::{Diagnostics, Sources, Span};
use crate::input;
use crate::prune::{SettingValue, settings};

/// Blocks whose defaults are looked for: each costs as many readings of the file as the block has keys.
const MOST_BLOCKS: usize = 100;

/// The experiment and the page.
///
/// # Errors
/// As [`load`](super::load).
pub fn resolved(path: &Path, origin: Origin, overrides: &[String]) -> Result<(Experiment, String), ConfigError> {
    let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
    let text = input::read_to_string(path, input::SMALL).map_err(read_error)?;
    let experiment = parse_from(path, origin.clone(), &text, overrides)?;
    let written = Written::read(path, &origin, &text, overrides)?;
    let Ok((whole, _)) = written.table(&origin) else { return Ok((experiment, text)) };
    let mut page = Page::of(&whole.table, &written.sources, &path.display().to_string());
    page.fill(path, &origin, &experiment);
    let text =
        format!("# {}, resolved: a line that is not the file's own says whose it is\n{}", path.display(), page.text());
    Ok((experiment, text))
}

/// All sections, in the order of the schema.
struct Page {
    sections: Vec<Section>,
}

/// The keys before the first header, a section or a block.
struct Section {
    /// `[data]`, `[[prune]]`; nothing before the first.
    header: String,
    /// Where the header stands, if not in the file itself.
    from: Option<String>,
    is_block: bool,
    entries: Vec<Entry>,
}

struct Entry {
    key: String,
    line: Line,
}

/// What the page has of a key.
enum Line {
    /// Something in the file, the base or the command line; the latter two by name.
    Given { value: String, from: Option<String> },
    /// What it may be by default: the first that changes nothing is.
    Candidates { values: Vec<String>, says: Option<String> },
    /// Its default.
    Default(String),
    /// Its default, in words.
    Says(String),
    /// Without meaning here.
    Nothing,
}

impl Page {
    fn of(table: &DeTable<'_>, sources: &Sources, file: &str) -> Self {
        let from = |span: Span| sources.name(&span).filter(|name| *name != file).map(str::to_owned);
        let schema = json_schema();
        let mut first = Vec::new();
        let mut sections = Vec::new();
        for (key, keys) in properties(&schema) {
            let value = table.get(key);
            let Some((inner, repeated)) = inner_table(keys) else {
                let entry = || Entry::of(key, keys, experiment().key(key), value, &from);
                first.extend((key != "extends").then(entry));
                continue;
            };
            let section = |header: String, from_name, table: Option<&DeTable<'_>>| Section {
                header,
                from: from_name,
                is_block: repeated,
                entries: Section::entries(key, inner, table, &from),
            };
            match value.map(|value| (value.span(), value.get_ref())) {
                None if repeated => {}
                None => sections.push(section(format!("[{key}]"), Some("default".to_owned()), None)),
                Some((span, DeValue::Table(table))) => {
                    sections.push(section(format!("[{key}]"), from(span), Some(table)));
                }
                Some((span, DeValue::Array(blocks))) if blocks.is_empty() => {
                    let line = Line::Given { value: "[]".to_owned(), from: from(span) };
                    first.push(Entry { key: key.to_owned(), line });
                }
                Some((_, DeValue::Array(blocks))) => sections.extend(blocks.iter().filter_map(|block| {
                    let DeValue::Table(table) = block.get_ref() else { return None };
                    Some(section(format!("[[{key}]]"), from(block.span()), Some(table)))
                })),
                // The check of types has taken out what is no section.
                Some(_) => {}
            }
        }
        let first = Section { header: String::new(), from: None, is_block: false, entries: first };
        Self { sections: [first].into_iter().chain(sections).collect() }
    }

    /// Decides about defaults, one key after the other.
    fn fill(&mut self, path: &Path, origin: &Origin, experiment: &Experiment) {
        let expected = bare(experiment.clone());
        let few = self.sections.iter().filter(|section| section.is_block).count() <= MOST_BLOCKS;
        for section in 0..self.sections.len() {
            for entry in 0..self.sections[section].entries.len() {
                let line = std::mem::replace(&mut self.sections[section].entries[entry].line, Line::Nothing);
                let Line::Candidates { values, says } = line else {
                    self.sections[section].entries[entry].line = line;
                    continue;
                };
                let tried = if few || !self.sections[section].is_block { values } else { Vec::new() };
                let mut decided = says.map_or(Line::Nothing, Line::Says);
                for value in tried {
                    self.sections[section].entries[entry].line = Line::Default(value.clone());
                    let read = parse_from(path, origin.clone(), &self.text(), &[]);
                    if read.is_ok_and(|read| bare(read) == expected) {
                        decided = Line::Default(value);
                        break;
                    }
                }
                self.sections[section].entries[entry].line = decided;
            }
        }
    }

    fn text(&self) -> String {
        let sections = self.sections.iter().filter(|section| section.is_shown());
        sections.map(Section::text).collect::<Vec<_>>().join("\n")
    }
}

/// Without what differs between two texts of one experiment.
pub(super) fn bare(mut experiment: Experiment) -> Experiment {
    experiment.text.clear();
    experiment.origin = Origin::default();
    experiment.warnings = Diagnostics::default();
    for block in &mut experiment.prune {
        // A scope that is every method's default says what no scope says.
        let of = |&method: &Method| block.scopes_for(method, NmPattern::Unstructured);
        let all: Vec<Vec<Option<Scope>>> = block.methods.iter().map(of).collect();
        let free = block.patterns.contains(&NmPattern::Unstructured);
        if let Some(first) = all.first().filter(|first| free && all.iter().all(|scopes| scopes == *first)) {
            block.scopes = first.iter().copied().flatten().collect();
        }
        // Likewise a key whose value is the same for all of the block's methods that have it.
        let mut same = MethodSettings::default();
        for (setting, users) in settings() {
            let of = |(method, _): &(Method, SettingValue)| method.settings(&block.settings).get(setting.name);
            let mut values = users.iter().filter(|(method, _)| block.methods.contains(method)).map(of);
            if let Some(first) = values.next().flatten()
                && values.all(|value| value == Some(first))
            {
                same = same.with(setting, first);
            }
        }
        block.settings = same;
    }
    experiment
}

impl Section {
    fn entries(
        name: &str,
        schema: &Value,
        table: Option<&DeTable<'_>>,
        from: &impl Fn(Span) -> Option<String>,
    ) -> Vec<Entry> {
        let grammar = match experiment().key(name) {
            Some(Grammar::List(item)) => Some(&**item),
            other => other,
        };
        let entry = |(key, keys): (&str, &Value)| {
            let value = table.and_then(|table| table.get(key));
            Entry::of(key, keys, grammar.and_then(|grammar| grammar.key(key)), value, from)
        };
        properties(schema).into_iter().map(entry).collect()
    }

    /// Whether it has more than words about keys that are not there.
    fn is_shown(&self) -> bool {
        self.is_block || self.entries.iter().any(|entry| matches!(entry.line, Line::Given { .. } | Line::Default(_)))
    }

    fn text(&self) -> String {
        let header = if self.header.is_empty() { String::new() } else { marked(&self.header, self.from.as_deref()) };
        header + &self.entries.iter().map(Entry::text).collect::<String>()
    }
}

impl Entry {
    fn of(
        key: &str,
        schema: &Value,
        grammar: Option<&Grammar>,
        value: Option<&Spanned<DeValue<'_>>>,
        from: &impl Fn(Span) -> Option<String>,
    ) -> Self {
        let line = match value {
            Some(value) => Line::Given { value: inline(value.get_ref(), grammar), from: from(value.span()) },
            None => Line::Candidates { values: candidates(key, schema), says: in_words(key, schema) },
        };
        Self { key: key.to_owned(), line }
    }

    fn text(&self) -> String {
        let key = &self.key;
        match &self.line {
            Line::Given { value, from } => marked(&format!("{key} = {value}"), from.as_deref()),
            Line::Default(value) => marked(&format!("{key} = {value}"), Some("default")),
            Line::Says(words) => format!("# {key}: {words}\n"),
            Line::Candidates { .. } | Line::Nothing => String::new(),
        }
    }
}

/// A line, and whose it is.
fn marked(line: &str, from: Option<&str>) -> String {
    match from {
        // A line break in a file's name would end the comment.
        Some(from) => format!("{line}  # {}\n", from.escape_debug()),
        None => format!("{line}\n"),
    }
}

/// What a key may be by default: what the schema says; of methods' keys what each has; of words each of them.
fn candidates(key: &str, schema: &Value) -> Vec<String> {
    if !schema["default"].is_null() {
        return vec![toml(&schema["default"])];
    }
    let of_methods = settings().into_iter().filter(|(setting, _)| setting.name == key);
    let of_methods = of_methods.flat_map(|(_, users)| users).map(|(_, default)| match default {
        SettingValue::Real(number) => format!("{number:?}"),
        SettingValue::Count(number) => number.to_string(),
    });
    let of_words = words(schema).into_iter().chain(words(&schema["anyOf"][0])).map(|(word, _)| format!("\"{word}\""));
    of_methods.chain(of_words).collect()
}

/// The default of a key that no value of the schema can say.
fn in_words(key: &str, schema: &Value) -> Option<String> {
    // A key of methods has a value wherever it has a meaning.
    if !schema["default"].is_null() || settings().iter().any(|(setting, _)| setting.name == key) {
        return None;
    }
    let text = description(schema);
    let (_, default) = text.split_once("Default: ")?;
    let end = default.find(". ").unwrap_or(default.len());
    Some(default[..end].trim_end_matches('.').split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A value in one line, a range as its values.
fn inline(value: &DeValue<'_>, grammar: Option<&Grammar>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.to_string(), |it| it.to_string()),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| inline(item.get_ref(), None)).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) if grammar.is_some_and(Grammar::has_range_values) => of_range(table),
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                format!("{} = {}", key_text(key.get_ref()), inline(value.get_ref(), None))
            };
            format!("{{ {} }}", table.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// The values of a range, which the check of types has seen.
fn of_range(table: &DeTable<'_>) -> String {
    let end = |key| table.get(key).map(|value| inline(value.get_ref(), None)).unwrap_or_default();
    let ends = range::KEYS.map(end);
    format!("[{}]", range::values([&ends[0], &ends[1], &ends[2]]).unwrap_or_default().join(", "))
}

/// A text as TOML has it in one line; JSON's escapes are among TOML's.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string().replace('\u{7f}', "\\u007f")
}

fn key_text(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { quoted(key) }
}
