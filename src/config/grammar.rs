//! Keys and types of the experiment file, read off the JSON schema, and the check of a parsed file
//! against them.
//!
//! ```text
//! Table ─ seed:  Axis(Integer ≥ 0)
//!       ─ model: Table ─ source: Axis(Text)
//!                      ─ dtype:  Words(f32, f16, bf16)
//!       ─ prune: List(Table ─ sparsity: Axis(Number) …)
//! ```
//! serde stops at the first mistake. This check finds all of them and takes what is wrong out of
//! the file, so that what is left deserialises and can be checked further.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use crate::config::range::{self, RangeError};
use crate::config::schema::json_schema;
use crate::diagnostic::{Diagnostic, Found, Span, nearest};
use crate::keyword::{backticked, one_of};

/// What may stand somewhere in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// A table with these keys.
    Table(Vec<(String, Grammar)>),
    /// A table with any keys, whose values are all of one grammar.
    Map(Box<Grammar>),
    /// An array.
    List(Box<Grammar>),
    /// An array of exactly these, each with the name that messages call it.
    Pair(Vec<(String, Grammar)>),
    /// A value or a non-empty array.
    Axis(Box<Grammar>),
    /// Any of these, which are of different types.
    Either(Vec<Grammar>),
    /// One of these strings.
    Words(Vec<String>),
    /// Any string.
    Text,
    /// An integer of at least this.
    Integer(i128),
    /// An integer of at least 0, or a string with an expression.
    Size,
    /// A finite number, integers included.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// The experiment file's.
pub fn experiment() -> &'static Grammar {
    static SHAPE: LazyLock<Grammar> = LazyLock::new(|| Grammar::from_schema(&json_schema()));
    &SHAPE
}

impl Grammar {
    /// Reads the part of JSON schema that `config::raw` gives rise to.
    fn from_schema(schema: &Value) -> Self {
        let boxed = |schema: &Value| Box::new(Self::from_schema(schema));
        let named = |schema: &Value| (schema["title"].as_str().unwrap_or("").to_owned(), Self::from_schema(schema));
        match schema["type"].as_str() {
            Some("object") if schema["additionalProperties"].is_object() => {
                Self::Map(boxed(&schema["additionalProperties"]))
            }
            Some("object") => {
                let properties = schema["properties"].as_object().into_iter().flatten();
                let keys = properties.map(|(key, value)| (key.clone(), Self::from_schema(value)));
                Self::Table(keys.collect())
            }
            Some("array") => match schema["items"].as_array() {
                Some(items) => Self::Pair(items.iter().map(named).collect()),
                None => Self::List(boxed(&schema["items"])),
            },
            Some("integer") => Self::Integer(schema["minimum"].as_i64().map_or(i128::MIN, i128::from)),
            Some("number") => Self::Number,
            Some("boolean") => Self::Boolean,
            _ => match (schema["anyOf"].as_array(), words(schema), schema["oneOf"].as_array()) {
                (Some(choices), ..) if choices[0]["type"] == "integer" && choices[1]["type"] == "string" => Self::Size,
                (Some(choices), ..) => Self::Axis(boxed(&choices[0])),
                (None, Some(words), _) => Self::Words(words),
                (None, None, Some(choices)) => Self::Either(choices.iter().map(Self::from_schema).collect()),
                (None, None, None) => Self::Text,
            },
        }
    }

    /// The grammar of a key, if this is a table that has it.
    pub fn key(&self, name: &str) -> Option<&Self> {
        let Self::Table(keys) = self else { return None };
        keys.iter().find(|(key, _)| key == name).map(|(_, grammar)| grammar)
    }

    /// The keys, if this is a table.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys = match self {
            Self::Table(keys) => keys.as_slice(),
            _ => &[],
        };
        keys.iter().map(|(key, _)| key.as_str())
    }

    /// Whether an axis of it may be a range.
    pub(super) fn has_ranges(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::Number)
    }

    /// Whether a table in its place is a range.
    pub(super) fn has_range_values(&self) -> bool {
        matches!(self, Self::Axis(item) if item.has_ranges())
    }

    /// What an axis is an axis of; anything else is itself.
    fn item(&self) -> &Self {
        match self {
            Self::Axis(item) => item,
            other => other,
        }
    }

    /// Whether a value is of the type that this wants, if not one that fits.
    fn is_of_type(&self, value: &DeValue<'_>) -> bool {
        match value {
            DeValue::Integer(_) => matches!(self, Self::Integer(_)),
            DeValue::String(_) => matches!(self, Self::Words(_)),
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                false
            }
        }
    }

    /// Where else a key that this table lacks exists: `[data]`, `[[prune]]`.
    fn home_of(key: &str) -> Option<String> {
        if experiment().key(key).is_some() {
            return Some("at the top of the file, before the first `[section]`".to_owned());
        }
        experiment().keys().find_map(|section| match experiment().key(section)? {
            table @ Self::Table(_) if table.key(key).is_some() => Some(format!("in `[{section}]`")),
            Self::List(item) if item.key(key).is_some() => Some(format!("in `[[{section}]]`")),
            _ => None,
        })
    }

    /// What a message says was expected.
    fn expected(&self) -> String {
        match self {
            Self::Table(_) | Self::Map(_) => "a table".to_owned(),
            Self::List(item) => format!("an array of {}", item.plural()),
            Self::Pair(parts) => {
                let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
                format!("a pair `[{}]`", names.join(", "))
            }
            Self::Axis(item) => format!("{}, or an array of {}", item.expected(), item.plural()),
            Self::Either(choices) => choices.iter().map(Self::expected).collect::<Vec<_>>().join(" or "),
            Self::Words(words) if words.len() == 1 => backticked(words),
            Self::Words(words) => format!("one of {}", backticked(words)),
            Self::Text => "a string".to_owned(),
            Self::Integer(minimum) if *minimum == i128::MIN => "an integer".to_owned(),
            Self::Integer(minimum) => format!("an integer of at least {minimum}"),
            Self::Size => "an integer of at least 0 or an expression".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Boolean => "`true` or `false`".to_owned(),
        }
    }

    fn plural(&self) -> &'static str {
        match self {
            Self::Table(_) | Self::Map(_) => "tables",
            Self::List(_) | Self::Axis(_) => "arrays",
            Self::Pair(_) => "pairs",
            Self::Either(_) | Self::Words(_) => "them",
            Self::Text => "strings",
            Self::Integer(_) => "integers",
            Self::Size => "integers and expressions",
            Self::Number => "numbers",
            Self::Boolean => "booleans",
        }
    }
}

/// The strings that a schema allows, if it lists them.
fn words(schema: &Value) -> Option<Vec<String>> {
    let listed = schema["enum"].as_array().or_else(|| schema["oneOf"].as_array())?;
    let word = |value: &Value| value.as_str().or_else(|| value["const"].as_str()).map(str::to_owned);
    listed.iter().map(word).collect()
}

/// What the check found.
#[derive(Debug, Default)]
pub struct Findings {
    /// The mistakes.
    pub diagnostics: Found,
    /// Paths (`prune.0.sparsity`) at which something was taken out, so that nobody says that it
    /// is missing.
    pub removed: BTreeSet<String>,
}

/// Checks a file, and takes out what doesn't fit.
pub fn check(table: &mut DeTable<'_>) -> Findings {
    let mut findings = Findings::default();
    findings.table(experiment(), table, &Place::default());
    findings
}

/// A path in two spellings.
#[derive(Clone, Default)]
struct Place {
    /// With the numbers of blocks: `prune.0.sparsity`.
    exact: String,
    /// For messages: `prune.sparsity`.
    shown: String,
}

impl Place {
    fn key(&self, key: &str) -> Self {
        let join = |path: &str| {
            if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
        };
        Self { exact: join(&self.exact), shown: join(&self.shown) }
    }

    fn item(&self, index: usize) -> Self {
        Self { exact: format!("{}.{index}", self.exact), shown: self.shown.clone() }
    }

    /// With its number also in messages: an item that is an array itself.
    fn numbered(self, index: usize) -> Self {
        Self { shown: format!("{}[{index}]", self.shown), ..self }
    }
}

impl Findings {
    fn table(&mut self, grammar: &Grammar, table: &mut DeTable<'_>, place: &Place) {
        let unknown: Vec<(String, Span)> = table
            .iter()
            .map(|(key, _)| (key.get_ref().to_string(), key.span()))
            .filter(|(key, _)| grammar.key(key).is_none())
            .collect();
        for (key, span) in unknown {
            table.remove(key.as_str());
            self.unknown_key(grammar, &key, span, place);
        }
        for key in grammar.keys() {
            let place = place.key(key);
            let (Some(grammar), Some(value)) = (grammar.key(key), table.get_mut(key)) else {
                continue;
            };
            if !self.value(grammar, value, &place) {
                table.remove(key);
                self.removed.insert(place.exact);
            }
        }
    }

    /// The values of a table with any keys.
    fn entries(&mut self, grammar: &Grammar, table: &mut DeTable<'_>, place: &Place) {
        let keys: Vec<String> = table.iter().map(|(key, _)| key.get_ref().to_string()).collect();
        for key in keys {
            let place = place.key(&key);
            let wrong = table.get_mut(key.as_str()).is_some_and(|value| !self.value(grammar, value, &place));
            if wrong {
                table.remove(key.as_str());
                self.removed.insert(place.exact);
            }
        }
    }

    fn unknown_key(&mut self, grammar: &Grammar, key: &str, span: Span, place: &Place) {
        let names: Vec<&str> = grammar.keys().collect();
        let meant = nearest(key, names.iter().copied());
        if let Some(meant) = meant {
            self.removed.insert(place.key(meant).exact);
        }
        let below = names.iter().find(|name| {
            let below = grammar.key(name);
            !place.shown.is_empty() && below.is_some_and(|below| below.key(key).is_some())
        });
        let home = match below {
            Some(below) => Some(format!("in `{below}`")),
            None => Grammar::home_of(key),
        };
        let help = match (meant, home) {
            (_, Some(home)) => Some(format!("`{key}` belongs {home}")),
            (Some(meant), None) => Some(format!("a similar key exists: `{meant}`")),
            (None, None) => None,
        };
        let diagnostic = Diagnostic::error(format!("unknown key `{}`", place.key(key).shown))
            .at(span, one_of(&names))
            .maybe_help(help);
        self.diagnostics.push(diagnostic);
    }

    /// Whether the value fits, after everything below it that doesn't was taken out.
    fn value(&mut self, grammar: &Grammar, value: &mut Spanned<DeValue<'_>>, place: &Place) -> bool {
        let span = value.span();
        match (grammar, value.get_mut()) {
            (Grammar::Table(_), DeValue::Table(table)) => {
                self.table(grammar, table, place);
                true
            }
            (Grammar::Map(item), DeValue::Table(table)) => {
                self.entries(item, table, place);
                true
            }
            (Grammar::List(item), DeValue::Array(array)) => {
                let given = array.len();
                self.items(item, array, place);
                given == 0 || !array.is_empty()
            }
            (Grammar::Axis(item), DeValue::Array(array)) => {
                if array.is_empty() {
                    let title = format!("`{}` is empty", place.shown);
                    let expected = "expected at least one value";
                    self.diagnostics.push(Diagnostic::error(title).at(span.clone(), expected));
                }
                if matches!(**item, Grammar::Pair(_)) && is_one_pair(array) {
                    let pair = std::mem::replace(array, DeArray::new());
                    array.push(Spanned::new(span, DeValue::Array(pair)));
                }
                self.items(item, array, place);
                !array.is_empty()
            }
            (Grammar::Axis(item), DeValue::Table(table)) if item.has_ranges() => self.range(item, table, span, place),
            (Grammar::Pair(parts), DeValue::Array(array)) if parts.len() == array.len() => {
                let mut all = true;
                for ((_, part), item) in parts.iter().zip(array.iter_mut()) {
                    all &= self.value(part, item, place);
                }
                all
            }
            (grammar, value) => fits(grammar.item(), value) || self.mismatch(grammar, value, span, place),
        }
    }

    /// Whether a range of numbers is one, and all its values fit.
    fn range(&mut self, item: &Grammar, table: &DeTable<'_>, span: Span, place: &Place) -> bool {
        let path = &place.shown;
        let form = "write `{ from = 0.1, to = 0.9, step = 0.1 }`, or an array of values";
        let other = table.keys().find(|key| !range::KEYS.contains(&key.get_ref().as_ref()));
        if let Some(other) = other {
            let title = format!("unknown key `{path}.{}`", other.get_ref());
            self.diagnostics.push(Diagnostic::error(title).at(other.span(), one_of(&range::KEYS)).help(form));
            return false;
        }
        let mut ends = ["", "", ""];
        for (end, key) in ends.iter_mut().zip(range::KEYS) {
            let Some(value) = table.get(key) else {
                let title = format!("`{path}` lacks `{key}`");
                self.diagnostics.push(Diagnostic::error(title).at(span, "a range has two ends and a step").help(form));
                return false;
            };
            *end = match (item, value.get_ref()) {
                (_, DeValue::Integer(number)) if number.radix() == 10 => number.as_str(),
                (Grammar::Number, DeValue::Float(number)) => number.as_str(),
                (_, other) => {
                    let (title, expected) = (format!("wrong type of `{path}.{key}`"), item.expected());
                    let label = format!("expected {expected}, found {}", found(other));
                    self.diagnostics.push(Diagnostic::error(title).at(value.span(), label));
                    return false;
                }
            };
        }
        let values = match range::values(ends) {
            Ok(values) => values,
            Err(error) => {
                let at = table.get(error.key()).map_or(span, Spanned::span);
                let help = match &error {
                    RangeError::Misses { before, .. } => Some(format!("`to = {before}` ends the range there")),
                    RangeError::Digits { .. } | RangeError::Step | RangeError::TooMany { .. } => None,
                };
                let title = format!("`{path}` is no range");
                let label = format!("`{}` {error}", error.key());
                self.diagnostics.push(Diagnostic::error(title).at(at, label).maybe_help(help));
                return false;
            }
        };
        let too_small = |value: &&String| match item {
            Grammar::Integer(minimum) => value.parse::<i128>().is_ok_and(|value| value < *minimum),
            _ => false,
        };
        if let Some(value) = values.iter().find(too_small) {
            let label = format!("expected {}, and `{value}` is among them", item.expected());
            self.diagnostics.push(Diagnostic::error(format!("`{path}` is out of range")).at(span, label));
            return false;
        }
        true
    }

    fn items(&mut self, grammar: &Grammar, array: &mut DeArray<'_>, place: &Place) {
        let given = array.len();
        let mut kept = DeArray::new();
        for (index, mut item) in std::mem::replace(array, DeArray::new()).into_iter().enumerate() {
            let place = place.item(kept.len());
            let place = if matches!(grammar, Grammar::Pair(_)) && given > 1 { place.numbered(index) } else { place };
            if self.value(grammar, &mut item, &place) {
                kept.push(item);
            }
        }
        if kept.len() < given {
            self.removed.insert(place.exact.clone());
        }
        *array = kept;
    }

    fn mismatch(&mut self, grammar: &Grammar, value: &DeValue<'_>, span: Span, place: &Place) -> bool {
        let path = &place.shown;
        // Of a choice, what is wrong is told of the one that is of the value's type, and what is right of all.
        let whole = grammar;
        let grammar = match grammar {
            Grammar::Either(choices) => choices.iter().find(|choice| choice.is_of_type(value)).unwrap_or(grammar),
            grammar => grammar,
        };
        let diagnostic = match (grammar.item(), value) {
            (Grammar::Words(words), DeValue::String(text)) => {
                let meant = nearest(text, words.iter().map(String::as_str));
                Diagnostic::error(format!("unknown value `{text}` of `{path}`"))
                    .at(span, format!("expected {}", whole.item().expected()))
                    .maybe_help(meant.map(|meant| format!("did you mean `{meant}`?")))
            }
            (Grammar::Size, DeValue::Integer(_)) => Diagnostic::error(format!("`{path}` is out of range"))
                .at(span, format!("expected {}", grammar.item().expected())),
            (Grammar::Integer(minimum), DeValue::Integer(number)) => {
                let expected = match integer(number) {
                    Some(number) if number < *minimum => grammar.item().expected(),
                    _ => format!("an integer of at most {}", i64::MAX),
                };
                Diagnostic::error(format!("`{path}` is out of range")).at(span, format!("expected {expected}"))
            }
            (Grammar::Number, DeValue::Float(_) | DeValue::Integer(_)) => {
                Diagnostic::error(format!("`{path}` is out of range")).at(span, "expected a finite number")
            }
            (Grammar::Pair(_), DeValue::Array(array)) => Diagnostic::error(format!("`{path}` is no pair"))
                .at(span, format!("expected {}, found {} values", grammar.item().expected(), array.len())),
            _ => Diagnostic::error(format!("wrong type of `{path}`"))
                .at(span, format!("expected {}, found {}", grammar.expected(), found(value)))
                .maybe_help(other_spelling(grammar, value, path)),
        };
        self.diagnostics.push(diagnostic);
        false
    }
}

/// Whether a value that holds no others fits the grammar.
fn fits(grammar: &Grammar, value: &DeValue<'_>) -> bool {
    match (grammar, value) {
        (Grammar::Either(choices), value) => choices.iter().any(|choice| fits(choice, value)),
        (Grammar::Words(words), DeValue::String(text)) => words.iter().any(|word| word == text),
        (Grammar::Text | Grammar::Size, DeValue::String(_)) | (Grammar::Boolean, DeValue::Boolean(_)) => true,
        (Grammar::Integer(minimum), DeValue::Integer(number)) => {
            integer(number).is_some_and(|number| number >= *minimum && number <= i128::from(i64::MAX))
        }
        (Grammar::Size, DeValue::Integer(_)) => fits(&Grammar::Integer(0), value),
        (Grammar::Number, DeValue::Float(number)) => number.as_str().parse::<f64>().is_ok_and(f64::is_finite),
        (Grammar::Number, DeValue::Integer(number)) => i64::from_str_radix(number.as_str(), number.radix()).is_ok(),
        _ => false,
    }
}

/// Whether an axis of pairs is a single pair, written without a second pair of brackets.
fn is_one_pair(array: &DeArray<'_>) -> bool {
    !array.is_empty() && !array.iter().any(|item| matches!(item.get_ref(), DeValue::Array(_)))
}

/// The value, unless it is beyond even 128 bits.
fn integer(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A number, as it is written or as an integer.
pub(super) fn real(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) => integer(number).map(|number| number as f64),
        DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// An integer that counts.
pub(super) fn count(value: &DeValue<'_>) -> Option<usize> {
    let DeValue::Integer(number) = value else { return None };
    integer(number).and_then(|number| number.try_into().ok())
}

/// What stands there instead.
fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// How to write it, where a value of the right type is easily mistaken for this one.
fn other_spelling(grammar: &Grammar, value: &DeValue<'_>, path: &str) -> Option<String> {
    match (grammar.item(), value) {
        (Grammar::List(item), DeValue::Table(_)) if matches!(**item, Grammar::Table(_)) => {
            Some(format!("a block is written `[[{path}]]`, with two brackets"))
        }
        (Grammar::List(_), DeValue::String(text)) => Some(format!("write `[\"{text}\"]`")),
        (Grammar::Table(_), DeValue::Array(_)) => Some(format!("a section is written `[{path}]`, with one bracket")),
        (Grammar::Integer(_) | Grammar::Number, DeValue::String(text)) if text.parse::<f64>().is_ok() => {
            Some(format!("write it without quotes: {text}"))
        }
        (
            Grammar::Text | Grammar::Words(_),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_),
        ) => Some("write it in quotes".to_owned()),
        _ => None,
    }
}
