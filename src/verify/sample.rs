//! Which cells are run again, and what that is worth.
//!
//! Cells are drawn by seed: in the order of the digests of seed and name, so that who makes a folder can't know which will be
//! looked at, and who has the seed can draw the same ones. Knows names of cells and a clock.

use crate::plan::CellId;
use crate::record::sha256;
use serde::Serialize;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How many cells are run again, and which.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Draw {
    /// At most this many; nothing means all.
    pub sample: Option<usize>,
    /// No new ones after this many minutes.
    pub minutes: Option<f64>,
    /// What decides which.
    pub seed: u64,
}

/// Cells in the order in which they are run.
pub(super) struct Drawing {
    left: Vec<CellId>,
    begun: Instant,
    limit: Option<Duration>,
    done: usize,
}

impl Drawing {
    /// Of these cells.
    pub fn of(draw: &Draw, cells: &[CellId]) -> Self {
        let mut left = cells.to_vec();
        // From the back: the next ones are taken off the end.
        left.sort_by_cached_key(|id| std::cmp::Reverse(sha256(format!("{} {id}", draw.seed).as_bytes())));
        let keep = draw.sample.unwrap_or(left.len()).min(left.len());
        left.drain(..left.len() - keep);
        let limit = draw.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
        Self { left, begun: Instant::now(), limit, done: 0 }
    }

    /// The cells that may still be run.
    pub fn left(&self) -> HashSet<&CellId> {
        self.left.iter().collect()
    }

    /// The next cells; none once all are done or time is up. With a limit of time they come in ever larger groups, as
    /// many as half of the time that is left allows, since cells that are run together share what is loaded.
    pub fn next_chunk(&mut self) -> Option<Vec<CellId>> {
        let spent = self.begun.elapsed();
        let count = match self.limit {
            None => self.left.len(),
            Some(limit) if spent >= limit && self.done > 0 => 0,
            Some(_) if self.done == 0 => 1,
            Some(limit) => {
                let each = spent.as_secs_f64() / self.done as f64;
                ((limit - spent).as_secs_f64() / 2.0 / each).clamp(1.0, self.done as f64) as usize
            }
        };
        let chunk = self.left.split_off(self.left.len() - count.min(self.left.len()));
        self.done += chunk.len();
        (!chunk.is_empty()).then_some(chunk)
    }
}

/// The probability that at least one of `tampered` cells among `of` is among `drawn` of them: 1 less the share of draws
/// that have none.
pub fn caught(drawn: usize, of: usize, tampered: usize) -> f64 {
    if tampered == 0 || of == 0 {
        return 0.0;
    }
    let none: f64 =
        (0..tampered.min(of)).map(|k| of.saturating_sub(drawn).saturating_sub(k) as f64 / (of - k) as f64).product();
    1.0 - none
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<CellId> {
        (0..count).map(|i| CellId::named(format!("{i:04x}"))).collect()
    }

    fn all(mut drawing: Drawing) -> Vec<CellId> {
        std::iter::from_fn(|| drawing.next_chunk()).flatten().collect()
    }

    #[test]
    fn a_seed_draws_the_same_cells_whatever_their_order_and_another_seed_others() {
        let draw =
            |seed, sample, ids: &[CellId]| all(Drawing::of(&Draw { sample: Some(sample), minutes: None, seed }, ids));
        let (forwards, mut backwards) = (ids(50), ids(50));
        backwards.reverse();
        let mut first = draw(1, 5, &forwards);
        assert_eq!(first.len(), 5);
        let mut again = draw(1, 5, &backwards);
        first.sort();
        again.sort();
        assert_eq!(first, again);
        let mut other = draw(2, 5, &forwards);
        other.sort();
        assert_ne!(first, other);
        assert_eq!(draw(1, 500, &forwards).len(), 50);
        // A larger sample has the smaller one in it.
        let larger = draw(1, 10, &forwards);
        assert!(first.iter().all(|id| larger.contains(id)));
    }

    #[test]
    fn every_cell_is_drawn_about_as_often() {
        let mut counts = [0usize; 10];
        for seed in 0..2000 {
            let draw = Draw { sample: Some(3), minutes: None, seed };
            for id in all(Drawing::of(&draw, &ids(10))) {
                counts[usize::from_str_radix(id.as_str(), 16).unwrap()] += 1;
            }
        }
        // 600 expected, standard deviation 20.5.
        assert!(counts.iter().all(|count| (500..700).contains(count)), "{counts:?}");
    }

    #[test]
    fn no_time_still_runs_one() {
        let draw = |minutes| Draw { sample: None, minutes: Some(minutes), seed: 0 };
        assert_eq!(all(Drawing::of(&draw(0.0), &ids(9))).len(), 1);
        assert_eq!(all(Drawing::of(&draw(1e3), &ids(9))).len(), 9);
    }

    #[test]
    fn the_probability_is_that_of_drawing_without_putting_back() {
        assert_eq!([caught(3, 10, 1), caught(10, 10, 1), caught(0, 10, 5)], [0.30000000000000004, 1.0, 0.0]);
        // 1 - C(8,3)/C(10,3) = 1 - 56/120
        assert!((caught(3, 10, 2) - (1.0 - 56.0 / 120.0)).abs() < 1e-12);
        assert_eq!(caught(8, 10, 3), 1.0);
    }
}
