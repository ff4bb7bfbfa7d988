//! k-means on rows of bits, in whole numbers.
//!
//! ```text
//!   centre = s / n, s the sum of its n points      |x - s / n|^2 = |x| + (|s|^2 - 2 n x·s) / n^2
//!   products x·s of all points and centres are kept: [points][k]
//!   points move:  x·s' = x·s + x·(joined - left)    a few planes of bits where few points move
//! ```
//! A pass costs one population count for a point, a centre and a plane of its change ([`BitSum`]), instead of `length`
//! multiplications. |s|^2 is the sum of x·s over the points of the centre. Distances are fractions of whole numbers
//! and compare exactly.

use super::super::Mask;
use super::super::pairs::distances_from;
use super::super::sums::{BitSum, add_products, cluster_sums};
use super::centres::{Centres, Start};
use rayon::prelude::*;
use std::cmp::Ordering;

/// A centre.
#[derive(Clone, Copy, Debug)]
enum Centre {
    /// Given as numbers: its distances are kept.
    Given,
    /// The mean of this many points, and the square of their sum.
    Mean { points: i64, square: i64 },
}

/// Centres among rows of bits.
pub(super) struct BitCentres<'a> {
    mask: &'a Mask,
    k: usize,
    centres: Vec<Centre>,
    /// `[points][k]`: squared distances to given centres, less the point's own bits; of no use for others.
    given: Vec<f64>,
    /// `[points][k]`: products with sums of points; of no use for given centres.
    products: Vec<i64>,
    /// The sums of the points of each centre, once they were moved; zero for a centre without points.
    sums: Vec<BitSum>,
    /// Whether products are those with `sums`.
    current: Vec<bool>,
    /// The centre of every point, once they were moved.
    members: Vec<usize>,
}

impl<'a> BitCentres<'a> {
    pub(super) fn new(mask: &'a Mask, k: usize) -> Self {
        let zero = BitSum::zero(mask.length().div_ceil(64));
        Self {
            mask,
            k,
            centres: vec![Centre::Given; k],
            given: Vec::new(),
            products: vec![0; mask.features() * k],
            sums: vec![zero; k],
            current: vec![false; k],
            members: Vec::new(),
        }
    }

    /// The squared distance less the point's own bits: a fraction, and its nearest float.
    fn relative(&self, point: usize, centre: usize) -> Relative {
        let at = point * self.k + centre;
        match self.centres[centre] {
            Centre::Given => Relative { value: self.given[at], fraction: None },
            Centre::Mean { points, square } => {
                let above = square - 2 * points * self.products[at];
                let below = points * points;
                Relative { value: above as f64 / below as f64, fraction: Some((above, below)) }
            }
        }
    }

    fn distance(&self, point: usize, centre: usize) -> f64 {
        let own = self.mask.kept(point) as i64;
        let relative = self.relative(point, centre);
        match relative.fraction {
            Some((above, below)) => {
                let above = i128::from(own) * i128::from(below) + i128::from(above);
                above as f64 / below as f64
            }
            None => (own as f64 + relative.value).max(0.0),
        }
    }

    fn set_column(&mut self, centre: usize, column: impl Iterator<Item = i64>) {
        self.products.iter_mut().skip(centre).step_by(self.k).zip(column).for_each(|(to, product)| *to = product);
    }

    fn start_at(&mut self, points: &[usize]) {
        for (centre, &point) in points.iter().enumerate() {
            let own = self.mask.kept(point) as i64;
            let mask = self.mask;
            let distances = distances_from(mask, point);
            // x·y = (|x| + |y| - h) / 2
            let product = |(feature, &h): (usize, &u32)| (mask.kept(feature) as i64 + own - i64::from(h)) / 2;
            self.set_column(centre, distances.iter().enumerate().map(product));
            self.centres[centre] = Centre::Mean { points: 1, square: own };
        }
    }

    fn start_given(&mut self, centres: &[f32]) {
        let length = self.mask.length();
        let squares: Vec<f64> =
            centres.chunks(length).map(|centre| centre.iter().map(|&c| f64::from(c) * f64::from(c)).sum()).collect();
        let k = self.k;
        self.given = vec![0.0; self.mask.features() * k];
        self.given.par_chunks_mut(k).enumerate().for_each(|(point, given)| {
            for ((given, centre), square) in given.iter_mut().zip(centres.chunks(length)).zip(&squares) {
                // |x - c|^2 = |c|^2 + the sum of 1 - 2 c over the bits of x
                let product: f64 =
                    (0..length).filter(|&at| self.mask.get(point, at)).map(|at| f64::from(centre[at])).sum();
                *given = square - 2.0 * product;
            }
        });
        self.centres = vec![Centre::Given; k];
    }
}

/// A number to be compared exactly where it is a fraction.
#[derive(Clone, Copy)]
struct Relative {
    value: f64,
    fraction: Option<(i64, i64)>,
}

impl Relative {
    fn cmp(&self, other: &Self) -> Ordering {
        // A float of a fraction is off by less than this.
        let near = (self.value.abs() + other.value.abs()) * 1e-14;
        match (self.fraction, other.fraction) {
            (Some((a, below_a)), Some((b, below_b))) if (self.value - other.value).abs() <= near => {
                (i128::from(a) * i128::from(below_b)).cmp(&(i128::from(b) * i128::from(below_a)))
            }
            _ => self.value.total_cmp(&other.value),
        }
    }
}

impl Centres for BitCentres<'_> {
    fn points(&self) -> usize {
        self.mask.features()
    }

    fn distances_to_point(&self, point: usize) -> Vec<f64> {
        distances_from(self.mask, point).into_iter().map(f64::from).collect()
    }

    fn start(&mut self, start: Start) {
        self.members.clear();
        self.current.fill(false);
        match start {
            Start::Points(points) => self.start_at(points),
            Start::Given(centres) => self.start_given(centres),
        }
    }

    fn nearest(&self) -> Vec<(usize, f64)> {
        let of_point = |point: usize| {
            let mut best = (0, self.relative(point, 0));
            for centre in 1..self.k {
                let other = self.relative(point, centre);
                if other.cmp(&best.1) == Ordering::Less {
                    best = (centre, other);
                }
            }
            (best.0, self.distance(point, best.0))
        };
        (0..self.mask.features()).into_par_iter().with_min_len(64).map(of_point).collect()
    }

    fn distances(&self, labels: &[usize]) -> Vec<f64> {
        labels.iter().enumerate().map(|(point, &label)| self.distance(point, label)).collect()
    }

    fn move_to_means(&mut self, labels: &[usize]) {
        let changes = self.change(labels);
        for (centre, change) in changes.iter().enumerate() {
            if change.anew {
                self.set_column(centre, std::iter::repeat_n(0, self.mask.features()));
            }
        }
        let apply: Vec<BitSum> = changes.into_iter().map(|change| change.apply).collect();
        add_products(self.mask, &apply, &mut self.products);
        self.members = labels.to_vec();
        let (mut points, mut squares) = (vec![0; self.k], vec![0; self.k]);
        for (point, &label) in labels.iter().enumerate() {
            points[label] += 1;
            squares[label] += self.products[point * self.k + label];
        }
        for centre in (0..self.k).filter(|&centre| points[centre] > 0) {
            self.centres[centre] = Centre::Mean { points: points[centre], square: squares[centre] };
        }
    }
}

/// What has to be added to the products with a centre.
struct Change {
    apply: BitSum,
    /// Whether products start from 0.
    anew: bool,
}

impl BitCentres<'_> {
    /// Brings the sums up to the new members, and says how products follow: by the change, or anew where the sum has
    /// no more planes.
    fn change(&mut self, labels: &[usize]) -> Vec<Change> {
        let words = self.mask.length().div_ceil(64);
        let new: Vec<BitSum> =
            if self.members.is_empty() { cluster_sums(self.mask, labels, self.k) } else { self.moved_sums(labels) };
        let mut filled = vec![false; self.k];
        labels.iter().for_each(|&label| filled[label] = true);
        let change = |centre: usize| {
            // A centre without points stays where it is.
            if !filled[centre] {
                return Change { apply: BitSum::zero(words), anew: false };
            }
            if self.current[centre] {
                let change = new[centre].minus(&self.sums[centre]);
                if change.weighted().len() < new[centre].weighted().len() {
                    return Change { apply: change, anew: false };
                }
            }
            Change { apply: new[centre].clone(), anew: true }
        };
        let changes = (0..self.k).into_par_iter().map(change).collect();
        self.sums = new;
        self.current = filled;
        changes
    }

    fn moved_sums(&self, labels: &[usize]) -> Vec<BitSum> {
        let mut joined: Vec<Vec<&[u64]>> = vec![Vec::new(); self.k];
        let mut left = joined.clone();
        for (point, (&old, &new)) in self.members.iter().zip(labels).enumerate().filter(|(_, (old, new))| old != new) {
            joined[new].push(self.mask.row(point));
            left[old].push(self.mask.row(point));
        }
        let words = self.mask.length().div_ceil(64);
        let sum = |centre: usize| {
            if joined[centre].is_empty() && left[centre].is_empty() {
                return self.sums[centre].clone();
            }
            self.sums[centre].plus(&BitSum::of(words, &joined[centre])).minus(&BitSum::of(words, &left[centre]))
        };
        (0..self.k).into_par_iter().map(sum).collect()
    }
}
