//! Which entry of a pivot is best, and which are not told apart from it.
//!
//! Methods compete where all else is the same: model, sparsity, pattern. Where nothing that competes heads the table, the
//! entries of a column do. The dense model competes with nothing.

use super::tidy::Place;
use crate::config::experiment::{Best, PivotSpec};
use crate::report::stats::Contrast;
use crate::report::table::Value;
use std::collections::BTreeMap;

/// The keys whose values compete.
const CONTESTANTS: [&str; 4] = ["method", "scope", "variant", "format"];

/// Best or second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// No entry is better.
    Best,
    /// Only the best are better.
    Second,
}

/// How an entry stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Among the first two, of at least two.
    pub place: Option<Rank>,
    /// It is not the best one, and the seeds do not tell it from the best one.
    pub near: bool,
}

/// The standing of every place.
pub(super) fn standings(
    spec: &PivotSpec,
    rows: &[Vec<Value>],
    columns: &[Vec<Value>],
    places: &[Vec<Option<Place>>],
) -> Vec<Vec<Standing>> {
    let mut standings: Vec<Vec<Standing>> = places.iter().map(|row| vec![Standing::default(); row.len()]).collect();
    let Some(best) = spec.best else { return standings };
    let mut contests: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    for (r, row) in rows.iter().enumerate() {
        for (c, column) in columns.iter().enumerate() {
            if places[r][c].as_ref().is_some_and(|place| !place.reference) {
                contests.entry(contest(spec, row, (c, column))).or_default().push((r, c));
            }
        }
    }
    for at in contests.values().filter(|at| at.len() > 1) {
        judge(best, at, places, &mut standings);
    }
    standings
}

/// What those that compete have in common.
fn contest(spec: &PivotSpec, row: &[Value], (index, column): (usize, &Vec<Value>)) -> String {
    let keys = || spec.rows.iter().zip(row).chain(spec.columns.iter().zip(column));
    let competes = |key: &String| CONTESTANTS.contains(&&**key);
    match keys().any(|(key, _)| competes(key)) {
        true => format!("{:?}", keys().filter(|(key, _)| !competes(key)).collect::<Vec<_>>()),
        false => index.to_string(),
    }
}

fn judge(best: Best, at: &[(usize, usize)], places: &[Vec<Option<Place>>], standings: &mut [Vec<Standing>]) {
    let sample = |&(r, c): &(usize, usize)| places[r][c].as_ref().map(|place| &place.sample);
    let mean = |at: &(usize, usize)| sample(at).and_then(|sample| sample.mean());
    let sign = match best {
        Best::Min => 1.0,
        Best::Max => -1.0,
    };
    let mut order: Vec<f64> = at.iter().filter_map(mean).map(|mean| sign * mean).collect();
    order.sort_by(f64::total_cmp);
    order.dedup();
    let is = |at: &(usize, usize), rank: usize| mean(at).map(|mean| sign * mean) == order.get(rank).copied();
    let Some(winner) = at.iter().find(|at| is(at, 0)).and_then(&sample) else { return };
    for place in at {
        let rank = match (is(place, 0), is(place, 1)) {
            (true, _) => Some(Rank::Best),
            (false, true) => Some(Rank::Second),
            (false, false) => None,
        };
        let contrast = sample(place).and_then(|sample| Contrast::of(sample, winner));
        let near = rank != Some(Rank::Best) && contrast.is_some_and(|c| !c.too_few && !c.decided());
        standings[place.0][place.1] = Standing { place: rank, near };
    }
}
