//! Which cells of two sides stand beside each other.
//!
//! ```text
//!   two folders   same key columns and settings            model, backend, dtype do not count where each side has one of
//!                                                          them: a GPU beside a CPU, say
//!   two setups    same key columns, but those that the     columns in which each side has one value say what tells the
//!                 conditions name                          sides apart, and do not count either
//! ```
//! `setup` follows from others, and seeds are what a point's cells are of. What a cell has not (a dense one has no
//! sparsity) is as good as any value: dense stands beside every sparsity.

use crate::plan::Task;
use crate::record::Record;
use crate::report::table::Value;
use std::collections::HashSet;

/// What stands beside what.
pub(super) enum Rule {
    SameCells,
    EqualPoints {
        /// The columns that the conditions name.
        told: Vec<&'static str>,
    },
}

/// The points of both sides.
pub(super) struct Pairs<'a> {
    /// The columns that tell them apart.
    pub columns: Vec<String>,
    pub pairs: Vec<Pair<'a>>,
    /// Cells of each side without a partner.
    pub alone: [usize; 2],
}

/// A point that both sides have.
pub(super) struct Pair<'a> {
    /// Its values in the columns.
    pub key: Vec<Value>,
    pub a: Vec<&'a Record>,
    pub b: Vec<&'a Record>,
    /// Whether a side has several cells of one seed here: nobody can know which is meant.
    pub several: bool,
}

/// The cells of a side at a point, over seeds.
struct Group<'a> {
    kind: &'static str,
    key: Vec<(&'static str, Value)>,
    settings: String,
    records: Vec<&'a Record>,
}

pub(super) fn pairs<'a>(a: &'a [Record], b: &'a [Record], rule: &Rule) -> Pairs<'a> {
    let dull = dull_columns(a, b, rule);
    let [left, right] = [a, b].map(|records| groups(records, &dull, rule));
    let mut columns: Vec<String> = Vec::new();
    for (name, _) in left.iter().chain(&right).flat_map(|group| &group.key) {
        if !columns.iter().any(|column| column == name) {
            columns.push((*name).to_owned());
        }
    }
    let (mut pairs, mut met) = (Vec::new(), [HashSet::new(), HashSet::new()]);
    for (i, a) in left.iter().enumerate() {
        for (j, b) in right.iter().enumerate().filter(|(_, b)| a.is_beside(b)) {
            met[0].insert(i);
            met[1].insert(j);
            let value = |column: &String| {
                let of = |group: &Group<'_>| group.value(column).filter(|value| **value != Value::Missing).cloned();
                of(a).or_else(|| of(b)).unwrap_or(Value::Missing)
            };
            let key = columns.iter().map(value).collect();
            let several = a.is_several() || b.is_several();
            pairs.push(Pair { key, a: a.records.clone(), b: b.records.clone(), several });
        }
    }
    let alone = |groups: &[Group<'_>], met: &HashSet<usize>| {
        groups.iter().enumerate().filter(|(at, _)| !met.contains(at)).map(|(_, group)| group.records.len()).sum()
    };
    Pairs { columns, pairs, alone: [alone(&left, &met[0]), alone(&right, &met[1])] }
}

/// The columns that do not count.
fn dull_columns(a: &[Record], b: &[Record], rule: &Rule) -> Vec<&'static str> {
    let single = |records: &[Record], name: &str| {
        let values: HashSet<String> = records.iter().filter_map(|record| shown(record, name)).collect();
        values.len() <= 1
    };
    let may = |name: &str| match rule {
        Rule::SameCells => ["model", "backend", "dtype"].contains(&name),
        Rule::EqualPoints { .. } => true,
    };
    let told = |name: &&str| match rule {
        Rule::SameCells => false,
        Rule::EqualPoints { told } => told.contains(name),
    };
    let all = Task::key_columns().into_iter().map(|(name, _)| name);
    all.filter(|name| {
        ["setup", "seed"].contains(name) || told(name) || (may(name) && single(a, name) && single(b, name))
    })
    .collect()
}

/// What a cell's key has in a column, as text.
fn shown(record: &Record, name: &str) -> Option<String> {
    record.cell.kind().key().into_iter().find(|(column, _)| *column == name).map(|(_, value)| value.to_string())
}

fn groups<'a>(records: &'a [Record], dull: &[&str], rule: &Rule) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for record in records {
        let kind = record.cell.kind();
        let mut key = kind.key();
        key.retain(|(name, _)| !dull.contains(name));
        let settings = match rule {
            Rule::SameCells => settings(record),
            Rule::EqualPoints { .. } => String::new(),
        };
        let same = |group: &&mut Group<'a>| group.kind == kind.name() && group.key == key && group.settings == settings;
        match groups.iter_mut().find(same) {
            Some(group) => group.records.push(record),
            None => groups.push(Group { kind: kind.name(), key, settings, records: vec![record] }),
        }
    }
    groups
}

/// What decides a cell's results but the seed, where it runs and how often it is timed.
fn settings(record: &Record) -> String {
    let mut canonical = record.cell.kind().canonical();
    if let Some(keys) = canonical.as_object_mut() {
        keys.retain(|key, _| !["seed", "backend", "dtype", "warmup", "repeats"].contains(&key.as_str()));
    }
    canonical.to_string()
}

impl Group<'_> {
    fn value(&self, column: &str) -> Option<&Value> {
        self.key.iter().find(|(name, _)| *name == column).map(|(_, value)| value)
    }

    fn is_beside(&self, other: &Group<'_>) -> bool {
        let agree = |(name, value): &(&'static str, Value)| {
            let theirs = other.value(name).unwrap_or(&Value::Missing);
            *value == Value::Missing || *theirs == Value::Missing || value.same(theirs)
        };
        self.kind == other.kind && self.settings == other.settings && self.key.iter().all(agree)
    }

    /// Whether two of its cells have one seed.
    fn is_several(&self) -> bool {
        let mut seeds = HashSet::new();
        !self.records.iter().all(|record| seeds.insert(shown(record, "seed")))
    }
}
