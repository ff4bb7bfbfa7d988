//! How long what is left will take, learned from cells that are done.
//!
//! ```text
//!   a cell's seconds ─┬─ own     measuring it            mean over cells of its method and form; where there is none yet,
//!                     │                                  of its method, its model, its kind, of all
//!                     ├─ point   pruning                 likewise, for each point that has no cell yet
//!                     └─ group   loading, calibrating    mean over the groups (model, method, seed) that have begun, for
//!                                                        each that has not
//! ```
//! The first cell of a method takes what others share, so that its seconds alone would promise a far longer run. Owns
//! the estimate; the clock is the caller's.

use super::task::Task;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

/// The key columns that make cells alike, level by level; the first level is the kind alone.
const LEVELS: [&[&str]; 3] = [
    &["model", "backend", "dtype"],
    &["method", "analysis", "out_features", "in_features"],
    &["variant", "format", "tokens", "layer"],
];
/// The level up to which points are alike.
const METHOD: usize = 3;
/// The columns whose cells are loaded and calibrated together.
const GROUP: [&str; 5] = ["model", "backend", "dtype", "method", "seed"];
/// The columns that tell the cells of a point apart.
const WITHIN_POINT: [&str; 3] = ["setup", "variant", "format"];

/// What a cell is like, as far as it decides how long it takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// From what it has in common with all cells to what it has in common with few.
    levels: [String; LEVELS.len() + 2],
    point: String,
    group: String,
}

impl Class {
    /// Of a task.
    pub fn of(task: &Task) -> Self {
        let kind = task.kind();
        let key = kind.key();
        let with = |mut name: String, wanted: &dyn Fn(&str) -> bool| {
            for (_, value) in key.iter().filter(|(column, _)| wanted(column)) {
                let _ = write!(name, "\0{value}");
            }
            name
        };
        let mut levels = [const { String::new() }; LEVELS.len() + 2];
        levels[1] = kind.name().into();
        for (at, columns) in LEVELS.iter().enumerate() {
            levels[at + 2] = with(levels[at + 1].clone(), &|column| columns.contains(&column));
        }
        let point = with(kind.name().into(), &|column| !WITHIN_POINT.contains(&column));
        let group = with(kind.name().into(), &|column| GROUP.contains(&column));
        Self { levels, point, group }
    }
}

/// The seconds of a cell that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seconds {
    /// Those that it took for itself.
    pub own: f64,
    /// Those that the cells of its point share.
    pub point: f64,
    /// Those that the cells of its model, method and seed share.
    pub group: f64,
}

/// Sums of seconds, and of how many, by what cells have in common.
#[derive(Clone, Debug, Default)]
struct Means(HashMap<String, (f64, usize)>);

impl Means {
    fn add(&mut self, levels: &[String], seconds: f64) {
        for level in levels {
            let (sum, count) = self.0.entry(level.clone()).or_default();
            (*sum, *count) = (*sum + seconds, *count + 1);
        }
    }

    /// The mean of those that have most in common.
    fn nearest(&self, levels: &[String]) -> f64 {
        let known = levels.iter().rev().find_map(|level| self.0.get(level));
        known.map_or(0.0, |(sum, count)| sum / *count as f64)
    }
}

/// What is known of how long cells take.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    own: Means,
    points: Means,
    /// The points that are in it.
    seen: HashSet<String>,
    /// Seconds of each group that has begun.
    groups: HashMap<String, f64>,
}

impl Pace {
    /// Takes note of a cell that is done. Of a point the first cell says what its cells share.
    pub fn learn(&mut self, class: &Class, seconds: Seconds) {
        self.own.add(&class.levels, seconds.own);
        if self.seen.insert(class.point.clone()) {
            self.points.add(&class.levels[..=METHOD], seconds.point);
        }
        *self.groups.entry(class.group.clone()).or_default() += seconds.group;
    }

    /// Whether a cell of the same point is done.
    pub fn knows_point_of(&self, class: &Class) -> bool {
        self.seen.contains(&class.point)
    }

    /// Whether a cell of the same model, method and seed is done.
    pub fn knows_group_of(&self, class: &Class) -> bool {
        self.groups.contains_key(&class.group)
    }

    /// Seconds that one process takes for some cells, so many of each class; none before any cell is done.
    pub fn left<'c>(&self, rest: impl IntoIterator<Item = (&'c Class, usize)>) -> Option<f64> {
        if self.groups.is_empty() {
            return None;
        }
        let (mut points, mut groups) = (HashMap::new(), HashSet::new());
        let mut seconds = 0.0;
        for (class, count) in rest.into_iter().filter(|(_, count)| *count > 0) {
            seconds += count as f64 * self.own.nearest(&class.levels);
            if !self.seen.contains(&class.point) {
                points.insert(class.point.as_str(), class);
            }
            if !self.groups.contains_key(&class.group) {
                groups.insert(class.group.as_str());
            }
        }
        let of_points: f64 = points.values().map(|class| self.points.nearest(&class.levels[..=METHOD])).sum();
        let of_a_group = self.groups.values().sum::<f64>() / self.groups.len() as f64;
        Some(seconds + of_points + of_a_group * groups.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::tests::kernel;
    use super::super::model::tests::cell;
    use super::*;
    use crate::config::experiment::{Format, KernelFormat, Variant};

    fn class(sparsity: f64, variant: Variant) -> Class {
        Class::of(&cell(sparsity, variant).into())
    }

    fn seconds(own: f64, point: f64, group: f64) -> Seconds {
        Seconds { own, point, group }
    }

    #[test]
    fn the_nearest_cells_count() {
        let (masked, csr) = (class(0.5, Variant::Masked), class(0.5, Variant::Sparse(Format::Csr)));
        let mut pace = Pace::default();
        assert_eq!(pace.left([(&masked, 3)]), None);
        // The first loads the model for ten seconds and prunes for two, of which its point has no more.
        pace.learn(&masked, seconds(1.0, 2.0, 10.0));
        assert_eq!(pace.left([(&csr, 1)]), Some(1.0), "of the same method, until more is known");
        assert_eq!(pace.left([(&class(0.6, Variant::Masked), 1), (&class(0.6, Variant::Auto), 1)]), Some(4.0));
        pace.learn(&csr, seconds(5.0, 2.0, 0.0));
        assert_eq!(pace.left([(&csr, 3), (&masked, 2)]), Some(17.0));
        // A model that has not begun loads as long as the one that has, and has the means of its kind.
        let other = Class::of(&super::super::Cell { model: "m".into(), ..cell(0.5, Variant::Masked) }.into());
        assert_eq!(pace.left([(&other, 2)]), Some(2.0 * 3.0 + 2.0 + 10.0));
        assert_eq!(pace.left([(&other, 0)]), Some(0.0));
    }

    #[test]
    fn a_kind_that_has_not_begun_is_taken_for_the_others() {
        let mut pace = Pace::default();
        pace.learn(&class(0.5, Variant::Masked), seconds(4.0, 0.0, 0.0));
        let shape = Class::of(&kernel(KernelFormat::Dense, None).into());
        assert_eq!(pace.left([(&shape, 2)]), Some(8.0));
        pace.learn(&shape, seconds(1.0, 0.0, 0.0));
        assert_eq!(pace.left([(&shape, 2)]), Some(2.0));
        assert!(pace.knows_group_of(&shape) && !Pace::default().knows_group_of(&shape));
    }
}
