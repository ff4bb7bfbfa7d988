//! The tidy table as a pivot sees it: which rows are wanted, what heads them, and which of them share a place.

use super::{Heading, MOST_PLACES, NOTHING, PivotError, PointNames};
use crate::column::key_column;
use crate::config::experiment::{PivotSpec, percent};
use crate::config::pivot::{MODEL_KEY, Wanted};
use crate::report::stats::Sample;
use crate::report::table::{Table, Value};
use std::collections::HashMap;

/// What beside the model's key tells rows of tidy tables apart, whatever was measured.
const DIMENSIONS: [&str; 14] = [
    "group",
    "module_name",
    "phase",
    "batch",
    "tokens",
    "format",
    "out_features",
    "in_features",
    "task",
    "metric",
    "shots",
    "layer",
    "role",
    "analysis",
];
/// The forms in which a point is run: masked and sparse execution of a point predict the same.
const VARIANT: &str = "variant";
/// Numbers that all variants of a point share.
const OF_THE_POINT: [&str; 12] = [
    "nonzero",
    "total",
    "sparsity",
    "linear_sparsity",
    "compute_ratio",
    "param_frac",
    "top1_match",
    "top5_overlap",
    "kl_nats",
    "perplexity",
    "bits_per_byte",
    "ties",
];
/// The most values that an error lists.
const MOST_LISTED: usize = 12;

/// A wanted row.
struct Item<'a> {
    /// The values that head it: of the rows, of the columns.
    heads: [Vec<Value>; 2],
    seed: Option<u64>,
    number: f64,
    /// Whether it is of the dense model, while others are not.
    reference: bool,
    /// All of its entries.
    row: &'a [Value],
}

/// What falls into a place.
pub(super) struct Place {
    pub sample: Sample,
    pub reference: bool,
}

/// The wanted rows.
pub(super) struct Tidy<'a> {
    spec: &'a PivotSpec,
    table: &'a Table,
    items: Vec<Item<'a>>,
    /// The side, rows or columns, on which the reference has a heading of its own although it has no value there; on
    /// the other it stands under every heading.
    own_side: Option<usize>,
}

/// A row's heading, or a column's, while it is read: knows the columns of the keys.
struct Keys {
    /// The name and the place of every key.
    keys: Vec<(String, usize)>,
    /// Where the pattern is, if `sparsity_target` is to be the pattern for `N:M`.
    pattern: Option<usize>,
    /// Where the cell's name is, if `method` is to be the point's name.
    cell: Option<usize>,
}

impl<'a> Tidy<'a> {
    pub(super) fn new(spec: &'a PivotSpec, table: &'a Table, names: &PointNames) -> Result<Self, PivotError> {
        let column = |name: &str| find(spec, table, name);
        let keys = [Keys::of(spec, table, &spec.rows)?, Keys::of(spec, table, &spec.columns)?];
        let value = column(&spec.value)?;
        let seed = place(table, "seed");
        let conditions = spec.r#where.iter().map(|wanted| Ok((find_key(spec, table, &wanted.column)?.1, wanted)));
        let conditions: Vec<(usize, &Wanted)> = conditions.collect::<Result<_, PivotError>>()?;
        let cell = place(table, "cell");
        let name = |row: &[Value]| cell.and_then(|cell| names.get(&row[cell].to_string())).cloned();
        conditions.iter().try_for_each(|(at, wanted)| known_values(spec, table, *at, wanted, &name))?;
        let reference = Reference::of(table);
        let mut items = Vec::new();
        for row in &table.rows {
            let is_reference = reference.holds(row);
            let holds = |(at, wanted): &(usize, &Wanted)| {
                (is_reference && reference.takes_any(row, *at)) || meets(row, *at, table, wanted, &name)
            };
            if !conditions.iter().all(holds) {
                continue;
            }
            let number = match &row[value] {
                Value::Missing => continue,
                Value::Text(text) => return Err(no_number(spec, text)),
                number @ (Value::Int(_) | Value::Float(_)) => number.number().unwrap_or(f64::NAN),
            };
            let heads = [keys[0].values(row, names), keys[1].values(row, names)];
            let seed = seed.and_then(|at| row[at].number()).map(|seed| seed as u64);
            items.push(Item { heads, seed, number, reference: is_reference, row });
        }
        if items.is_empty() {
            let (id, from, column) = (spec.id.clone(), spec.from.clone(), spec.value.clone());
            return Err(PivotError::Empty { id, from, column });
        }
        // What is compared with nothing is no reference.
        if items.iter().all(|item| item.reference) {
            items.iter_mut().for_each(|item| item.reference = false);
        }
        let own_side = own_side(spec, &items);
        Ok(Self { spec, table, items, own_side })
    }

    /// The headings of the rows and of the columns, in order.
    pub(super) fn headings(&self) -> [Vec<Vec<Value>>; 2] {
        [0, 1].map(|side| {
            let mut all: Vec<Vec<Value>> = Vec::new();
            let mut seen: HashMap<String, ()> = HashMap::new();
            // Two passes, so that the reference's headings are there only where nothing else takes them in.
            for reference in [false, true] {
                for item in self.items.iter().filter(|item| item.reference == reference) {
                    let heading = &item.heads[side];
                    let wild = reference && self.own_side != Some(side) && heading.contains(&Value::Missing);
                    if wild && all.iter().any(|known| takes_in(heading, known)) {
                        continue;
                    }
                    // Enough to see that it is too large.
                    if all.len() <= MOST_PLACES && seen.insert(format!("{heading:?}"), ()).is_none() {
                        all.push(heading.clone());
                    }
                }
            }
            self.sorted(side, all)
        })
    }

    /// Outer values together; what is missing first, numbers ascending, words as the table has them.
    fn sorted(&self, side: usize, mut headings: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
        let count = headings.first().map_or(0, Vec::len);
        let ranks: Vec<HashMap<String, usize>> = (0..count).map(|key| self.ranks(side, key)).collect();
        headings.sort_by_cached_key(|heading| {
            let rank = |(key, value): (usize, &Value)| ranks[key].get(&format!("{value:?}")).copied();
            heading.iter().enumerate().map(rank).collect::<Vec<_>>()
        });
        headings
    }

    fn ranks(&self, side: usize, key: usize) -> HashMap<String, usize> {
        let mut values: Vec<&Value> = Vec::new();
        for item in &self.items {
            let value = &item.heads[side][key];
            if !values.contains(&value) {
                values.push(value);
            }
        }
        let class = |value: &Value| match value {
            Value::Missing => 0,
            Value::Int(_) | Value::Float(_) => 1,
            Value::Text(_) => 2,
        };
        // Stable, so that words stay where they are.
        values.sort_by(|a, b| {
            let numbers = || a.number().zip(b.number()).map_or(std::cmp::Ordering::Equal, |(a, b)| a.total_cmp(&b));
            class(a).cmp(&class(b)).then_with(numbers)
        });
        values.into_iter().enumerate().map(|(rank, value)| (format!("{value:?}"), rank)).collect()
    }

    /// What stands in every place.
    pub(super) fn places(
        &self,
        rows: &[Vec<Value>],
        columns: &[Vec<Value>],
    ) -> Result<Vec<Vec<Option<Place>>>, PivotError> {
        let mut places = Vec::with_capacity(rows.len());
        for row in rows {
            let in_row: Vec<&Item<'_>> = self.items.iter().filter(|item| self.stands(item, 0, row)).collect();
            let place = |column: &Vec<Value>| {
                let here: Vec<&Item<'_>> = in_row.iter().copied().filter(|item| self.stands(item, 1, column)).collect();
                self.place(here, row, column)
            };
            places.push(columns.iter().map(place).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(places)
    }

    fn stands(&self, item: &Item<'_>, side: usize, heading: &[Value]) -> bool {
        match item.reference && self.own_side != Some(side) {
            true => takes_in(&item.heads[side], heading),
            false => item.heads[side] == heading,
        }
    }

    fn place(&self, here: Vec<&Item<'_>>, row: &[Value], column: &[Value]) -> Result<Option<Place>, PivotError> {
        let here = self.of_one_variant(here);
        let Some(first) = here.first() else { return Ok(None) };
        let reference = first.reference;
        let fixed = |name: &str| {
            !["setup", "seed"].contains(&name) && (MODEL_KEY.contains(&name) || DIMENSIONS.contains(&name))
        };
        let mut differ = self.differing(&here, fixed);
        let mut seeds: Vec<Option<u64>> = here.iter().map(|item| item.seed).collect();
        seeds.sort_unstable();
        let twice = seeds.windows(2).any(|pair| pair[0] == pair[1]);
        if differ.is_empty() && !twice {
            let values = here.iter().map(|item| (item.seed, item.number)).collect();
            return Ok(Some(Place { sample: Sample { values }, reference }));
        }
        if differ.is_empty() {
            differ = self.differing(&here, |name| !["cell", "setup", "seed", &self.spec.value].contains(&name));
        }
        let keys = [&self.spec.rows, &self.spec.columns];
        let place = [self.label(0, keys[0], row), self.label(1, keys[1], column)].concat().join(", ");
        Err(PivotError::Ambiguous { id: self.spec.id.clone(), place, differ })
    }

    /// The items of the first variant alone, where all variants of a point share the number.
    fn of_one_variant<'b>(&self, here: Vec<&'b Item<'a>>) -> Vec<&'b Item<'a>> {
        let Some(at) = place(self.table, VARIANT) else { return here };
        let Some(first) = here.first().map(|item| item.row[at].clone()) else { return here };
        match OF_THE_POINT.contains(&&*self.spec.value) {
            true => here.into_iter().filter(|item| item.row[at] == first).collect(),
            false => here,
        }
    }

    /// The columns of some names in which items differ, each with its values.
    fn differing(&self, here: &[&Item<'_>], asked: impl Fn(&str) -> bool) -> Vec<(String, Vec<String>)> {
        let columns = self.table.columns.iter().enumerate().filter(|(_, name)| asked(name));
        let values = |(at, name): (usize, &String)| {
            let values = distinct(here.iter().map(|item| &item.row[at]));
            (values.len() > 1).then(|| (name.clone(), values))
        };
        columns.filter_map(values).collect()
    }
}

/// How the reference is told from others: a row of the dense model, or of the dense kernel.
struct Reference {
    form: Option<usize>,
    /// The columns that say which form is meant.
    forms: Vec<usize>,
}

impl Reference {
    fn of(table: &Table) -> Self {
        let form = place(table, VARIANT).or_else(|| place(table, "format"));
        let forms = [VARIANT, "format", "setup"].iter().filter_map(|name| place(table, name)).collect();
        Self { form, forms }
    }

    fn holds(&self, row: &[Value]) -> bool {
        self.form.is_some_and(|form| row[form] == "dense".into())
    }

    /// Whether a condition on a column says nothing of the reference.
    fn takes_any(&self, row: &[Value], at: usize) -> bool {
        row[at] == Value::Missing || self.forms.contains(&at)
    }
}

/// Where the reference needs a heading of its own: beside the methods; else, where nothing that heads the table says
/// which form is meant, where it first lacks a value.
fn own_side(spec: &PivotSpec, items: &[Item<'_>]) -> Option<usize> {
    let sides = [&spec.rows, &spec.columns];
    let has = |names: &[&str]| sides.iter().position(|keys| keys.iter().any(|key| names.contains(&&**key)));
    has(&["method"]).or_else(|| {
        let lacks = |side: &usize| items.iter().any(|i| i.reference && i.heads[*side].contains(&Value::Missing));
        if has(&[VARIANT, "setup", "format"]).is_some() { None } else { [0, 1].into_iter().find(lacks) }
    })
}

/// Whether a heading with missing values takes in another.
fn takes_in(heading: &[Value], other: &[Value]) -> bool {
    heading.iter().zip(other).all(|(value, other)| *value == Value::Missing || value == other)
}

impl Keys {
    fn of(spec: &PivotSpec, table: &Table, names: &[String]) -> Result<Self, PivotError> {
        let named = |name: &String| find_key(spec, table, name);
        let keys: Vec<(String, usize)> = names.iter().map(named).collect::<Result<_, _>>()?;
        let unasked = |name: &str| {
            let asked = spec.rows.iter().chain(&spec.columns).any(|key| key == name);
            if asked { None } else { Some(()) }
        };
        let pattern = unasked("pattern").and_then(|()| place(table, "pattern"));
        let cell = unasked("scope").and_then(|()| place(table, "cell"));
        Ok(Self { keys, pattern, cell })
    }

    fn values(&self, row: &[Value], names: &PointNames) -> Vec<Value> {
        let value = |(name, at): &(String, usize)| match &**name {
            "sparsity_target" => match self.pattern.map(|pattern| &row[pattern]) {
                Some(Value::Text(pattern)) if pattern.contains(':') => pattern.as_str().into(),
                Some(_) | None => row[*at].clone(),
            },
            "method" => {
                let name = self.cell.and_then(|cell| names.get(&row[cell].to_string()));
                name.map_or_else(|| row[*at].clone(), |name| name.as_str().into())
            }
            _ => row[*at].clone(),
        };
        self.keys.iter().map(value).collect()
    }
}

impl Tidy<'_> {
    /// The words of the headings of a side: `50 %` for a sparsity, `dense` for the reference, `as given` for the sparsity
    /// of a checkpoint's own zeros.
    pub(super) fn labels(&self, side: usize, headings: &[Vec<Value>]) -> Vec<Heading> {
        let keys = [&self.spec.rows, &self.spec.columns][side];
        headings.iter().map(|heading| self.label(side, keys, heading)).collect()
    }

    fn label(&self, side: usize, keys: &[String], heading: &[Value]) -> Heading {
        let word = |(key, value): (&String, &Value)| match (key_column(key), value) {
            ("sparsity_target", Value::Float(share)) => format!("{} %", percent(*share)),
            (_, value) => value.rounded(),
        };
        let mut words: Heading = keys.iter().zip(heading).map(word).collect();
        let missing =
            |key: &str| keys.iter().position(|k| key_column(k) == key).filter(|&at| heading[at] == Value::Missing);
        let first = heading.iter().position(|value| *value == Value::Missing);
        let own = first.filter(|_| self.own_side == Some(side) && !keys.iter().any(|key| key == "method"));
        match (missing("method").or(own), missing("sparsity_target")) {
            (Some(at), _) => words[at] = "dense".into(),
            (None, Some(at)) if self.items.iter().any(|item| item.heads[side] == heading && !item.reference) => {
                let pruned = place(self.table, "method").is_some_and(|method| {
                    self.items.iter().any(|item| item.heads[side] == heading && item.row[method] != Value::Missing)
                });
                words[at] = if pruned { "as given" } else { "–" }.into();
            }
            (None, Some(_) | None) => {}
        }
        words
    }
}

fn place(table: &Table, name: &str) -> Option<usize> {
    table.columns.iter().position(|column| column == name)
}

/// A column by the name that the file gives it: `sparsity` heads by the target, where there is one.
fn find_key(spec: &PivotSpec, table: &Table, name: &str) -> Result<(String, usize), PivotError> {
    let key = key_column(name);
    match place(table, key) {
        Some(at) => Ok((key.to_owned(), at)),
        None => Ok((name.to_owned(), find(spec, table, name)?)),
    }
}

fn find(spec: &PivotSpec, table: &Table, name: &str) -> Result<usize, PivotError> {
    place(table, name).ok_or_else(|| PivotError::NoColumn {
        id: spec.id.clone(),
        from: spec.from.clone(),
        column: name.to_owned(),
        known: table.columns.clone(),
    })
}

fn no_number(spec: &PivotSpec, text: &str) -> PivotError {
    let (id, from, column) = (spec.id.clone(), spec.from.clone(), spec.value.clone());
    PivotError::NoNumber { id, from, column, found: text.to_owned() }
}

/// Different values in words, in order of appearance.
fn distinct<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for value in values {
        let word = if *value == Value::Missing { NOTHING.into() } else { value.to_string() };
        if all.len() < MOST_LISTED && !all.contains(&word) {
            all.push(word);
        }
    }
    all
}

/// Whether a row has one of the wanted values; a method also by its point's name.
fn meets(row: &[Value], at: usize, table: &Table, wanted: &Wanted, name: &impl Fn(&[Value]) -> Option<String>) -> bool {
    wanted.values.iter().any(|value| {
        let value = Value::from(value);
        row[at].same(&value) || (table.columns[at] == "method" && name(row).is_some_and(|name| value == name.into()))
    })
}

/// Every wanted value must be there, or it is a slip.
fn known_values(
    spec: &PivotSpec,
    table: &Table,
    at: usize,
    wanted: &Wanted,
    name: &impl Fn(&[Value]) -> Option<String>,
) -> Result<(), PivotError> {
    for value in &wanted.values {
        let only = Wanted { column: wanted.column.clone(), values: vec![value.clone()] };
        if !table.rows.iter().any(|row| meets(row, at, table, &only, name)) {
            let known = distinct(table.rows.iter().map(|row| &row[at]));
            let (id, from) = (spec.id.clone(), spec.from.clone());
            let (column, value) = (wanted.column.clone(), Value::from(value).to_string());
            return Err(PivotError::NoRow { id, from, column, value, known });
        }
    }
    Ok(())
}
