//! Values from the command line, `-s key=value`, laid over the parsed file.
//!
//! A value keeps its position in the argument, so that whatever is wrong with it later is shown
//! there and not in the file.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::config::grammar::{Grammar, experiment};
use crate::diagnostic::{Diagnostic, Sources, Span, nearest};
use crate::keyword::one_of;

/// One `key=value`, its path known to exist.
#[derive(Debug)]
pub struct Override<'i> {
    path: Vec<Segment<'i>>,
    value: Spanned<DeValue<'i>>,
}

/// A part of the path between dots.
#[derive(Clone, Debug)]
struct Segment<'i> {
    name: &'i str,
    span: Span,
}

impl<'i> Override<'i> {
    /// Reads the argument at `span`.
    pub fn parse(sources: &'i Sources, span: Span) -> Result<Self, Diagnostic> {
        let text = sources.text(span.clone());
        let malformed = |expected: &str| {
            Diagnostic::error("malformed override")
                .at(span.clone(), expected)
                .help("write a TOML value at a dotted path, for example `-s prune.sparsity=[0.5,0.6]`")
        };
        let (keys, value) = text.split_once('=').ok_or_else(|| malformed("expected `key=value`"))?;
        let path = segments(keys, span.start);
        if path.iter().any(|segment| segment.name.is_empty()) {
            return Err(malformed("expected a key before `=`"));
        }
        if value.trim().is_empty() {
            return Err(malformed("expected a value after `=`"));
        }
        check_path(&path)?;
        let start = span.start + keys.len() + 1;
        Ok(Self { path, value: parse_value(value, start)? })
    }

    /// The names between the dots.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        self.path.iter().map(|segment| segment.name)
    }

    /// Puts the value into the file's table, into every block of a list where the path names none.
    pub fn apply(&self, root: &mut DeTable<'i>) -> Result<(), Diagnostic> {
        self.insert(experiment(), root, &self.path)
    }

    fn insert(&self, shape: &Grammar, table: &mut DeTable<'i>, path: &[Segment<'i>]) -> Result<(), Diagnostic> {
        let [first, rest @ ..] = path else {
            return Ok(());
        };
        let key = Spanned::new(first.span.clone(), Cow::Borrowed(first.name));
        if rest.is_empty() {
            table.remove(first.name);
            table.insert(key, self.value.clone());
            return Ok(());
        }
        match shape.key(first.name) {
            Some(child @ Grammar::Table(_)) => {
                let empty = || Spanned::new(first.span.clone(), DeValue::Table(DeTable::new()));
                match table.entry(key).or_insert_with(empty).get_mut() {
                    DeValue::Table(child_table) => self.insert(child, child_table, rest),
                    // The file is wrong here, which its own check says.
                    _ => Ok(()),
                }
            }
            Some(Grammar::List(item)) => match table.get_mut(first.name).map(Spanned::get_mut) {
                Some(DeValue::Array(blocks)) => self.insert_blocks(item, blocks, first, rest),
                Some(_) => Ok(()),
                None => Err(no_block(first)),
            },
            _ => Ok(()),
        }
    }

    fn insert_blocks(
        &self,
        shape: &Grammar,
        blocks: &mut DeArray<'i>,
        list: &Segment<'i>,
        path: &[Segment<'i>],
    ) -> Result<(), Diagnostic> {
        let [first, rest @ ..] = path else {
            return Ok(());
        };
        if blocks.is_empty() {
            return Err(no_block(list));
        }
        let Ok(index) = first.name.parse::<usize>() else {
            for block in blocks.iter_mut() {
                if let DeValue::Table(block) = block.get_mut() {
                    self.insert(shape, block, path)?;
                }
            }
            return Ok(());
        };
        let count = blocks.len();
        let Some(block) = blocks.get_mut(index) else {
            let name = list.name;
            return Err(Diagnostic::error(format!("there is no `[[{name}]]` block {index}"))
                .at(first.span.clone(), format!("expected 0 to {}", count - 1))
                .help(format!("`{name}.KEY` without a number sets the key in every block")));
        };
        if rest.is_empty() {
            *block = self.value.clone();
            return Ok(());
        }
        match block.get_mut() {
            DeValue::Table(block) => self.insert(shape, block, rest),
            _ => Ok(()),
        }
    }
}

fn segments(keys: &str, start: usize) -> Vec<Segment<'_>> {
    let mut at = start;
    let mut segments = Vec::new();
    for raw in keys.split('.') {
        let name = raw.trim();
        let from = at + (raw.len() - raw.trim_start().len());
        segments.push(Segment { name, span: from..from + name.len() });
        at += raw.len() + 1;
    }
    segments
}

/// Whether the file could have something at the path.
fn check_path(path: &[Segment<'_>]) -> Result<(), Diagnostic> {
    let mut shape = experiment();
    let mut numbered = false;
    for (depth, segment) in path.iter().enumerate() {
        if let Grammar::List(item) = shape
            && matches!(**item, Grammar::Table(_))
        {
            shape = item;
            numbered = segment.name.parse::<usize>().is_ok();
            if numbered {
                continue;
            }
        }
        let Some(child) = shape.key(segment.name) else {
            return Err(unknown_path(shape, path, depth, numbered));
        };
        (shape, numbered) = (child, false);
    }
    Ok(())
}

fn unknown_path(shape: &Grammar, path: &[Segment<'_>], depth: usize, numbered: bool) -> Diagnostic {
    let full = join(path);
    let segment = &path[depth];
    let error = Diagnostic::error(format!("unknown path `{full}`"));
    let names: Vec<&str> = shape.keys().collect();
    if names.is_empty() {
        let parent = join(&path[..depth]);
        return error.at(segment.span.clone(), format!("`{parent}` is a value, it has no keys"));
    }
    let meant = nearest(segment.name, names.iter().copied()).map(|meant| {
        let mut parts: Vec<&str> = path.iter().map(|segment| segment.name).collect();
        parts[depth] = meant;
        format!("did you mean `{}`?", parts.join("."))
    });
    let elsewhere = || {
        let key = path.last()?.name;
        let section = experiment().keys().find(|section| match experiment().key(section) {
            Some(Grammar::List(item)) => item.key(key).is_some(),
            Some(table) => table.key(key).is_some(),
            None => false,
        })?;
        (depth == 0 && !numbered).then(|| format!("did you mean `{section}.{key}`?"))
    };
    error.at(segment.span.clone(), one_of(&names)).maybe_help(meant.or_else(elsewhere))
}

fn no_block(list: &Segment<'_>) -> Diagnostic {
    let name = list.name;
    Diagnostic::error(format!("there is no `[[{name}]]` block to override"))
        .at(list.span.clone(), format!("the file has no `[[{name}]]`"))
        .help(format!("add a `[[{name}]]` block to the file, or give one whole: `-s '{name}=[{{ … }}]'`"))
}

fn join(path: &[Segment<'_>]) -> String {
    let names: Vec<&str> = path.iter().map(|segment| segment.name).collect();
    names.join(".")
}

/// A TOML value, or a bare word such as `flex` or `2:4`, which a shell user would not quote.
fn parse_value(text: &str, start: usize) -> Result<Spanned<DeValue<'_>>, Diagnostic> {
    let word = text.trim();
    let start = start + (text.len() - text.trim_start().len());
    match DeValue::parse(word) {
        Ok(value) => Ok(shifted(value, start)),
        Err(error) if word.starts_with(['[', '{', '"', '\'']) => {
            let span = error.span().unwrap_or(0..word.len());
            Err(Diagnostic::error("the value of an override is not TOML")
                .at(start + span.start..start + span.end, error.message()))
        }
        Err(_) => Ok(Spanned::new(start..start + word.len(), DeValue::String(word.into()))),
    }
}

/// The value with every position moved by `by` bytes.
fn shifted<'i>(value: Spanned<DeValue<'i>>, by: usize) -> Spanned<DeValue<'i>> {
    let span = moved(value.span(), by);
    let value = match value.into_inner() {
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(|item| shifted(item, by)).collect()),
        DeValue::Table(table) => DeValue::Table(shifted_table(table, by)),
        scalar => scalar,
    };
    Spanned::new(span, value)
}

/// The table with every position moved by `by` bytes.
pub(super) fn shifted_table<'i>(table: DeTable<'i>, by: usize) -> DeTable<'i> {
    let entry = |(key, value): (Spanned<Cow<'i, str>>, _)| {
        (Spanned::new(moved(key.span(), by), key.into_inner()), shifted(value, by))
    };
    table.into_iter().map(entry).collect()
}

fn moved(span: Span, by: usize) -> Span {
    span.start + by..span.end + by
}
