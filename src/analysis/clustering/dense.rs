//! k-means on rows of numbers: weights and signs, in f64.

use super::centres::{Centres, Start};
use rayon::prelude::*;
use std::borrow::Cow;

/// Sums that run beside each other, so that a compiler may use vectors.
const LANES: usize = 8;

/// Centres among rows of numbers.
pub(super) struct DenseCentres<'a> {
    /// `[points, length]`
    points: Cow<'a, [f32]>,
    length: usize,
    /// `[k, length]`
    centres: Vec<f64>,
    k: usize,
}

impl<'a> DenseCentres<'a> {
    pub(super) fn new(points: Cow<'a, [f32]>, count: usize, k: usize) -> Self {
        let length = points.len() / count.max(1);
        assert!(length > 0 && points.len() == count * length, "points have another shape than their mask");
        Self { points, length, centres: vec![0.0; k * length], k }
    }

    fn point(&self, point: usize) -> &[f32] {
        &self.points[point * self.length..][..self.length]
    }

    fn centre(&self, centre: usize) -> &[f64] {
        &self.centres[centre * self.length..][..self.length]
    }
}

/// The squared distance; lanes are added in a fixed order.
fn distance(point: &[f32], centre: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (points, centres) = (point.chunks_exact(LANES), centre.chunks_exact(LANES));
    let rest: f64 = points.remainder().iter().zip(centres.remainder()).map(|(&x, c)| (f64::from(x) - c).powi(2)).sum();
    for (point, centre) in points.zip(centres) {
        for (lane, (&x, c)) in lanes.iter_mut().zip(point.iter().zip(centre)) {
            let apart = f64::from(x) - c;
            *lane += apart * apart;
        }
    }
    lanes.iter().sum::<f64>() + rest
}

impl Centres for DenseCentres<'_> {
    fn points(&self) -> usize {
        self.points.len() / self.length
    }

    fn distances_to_point(&self, point: usize) -> Vec<f64> {
        let centre: Vec<f64> = self.point(point).iter().map(|&x| f64::from(x)).collect();
        self.points.par_chunks(self.length).map(|point| distance(point, &centre)).collect()
    }

    fn start(&mut self, start: Start) {
        self.centres = match start {
            Start::Points(points) => {
                points.iter().flat_map(|&point| self.point(point).iter().map(|&x| f64::from(x))).collect()
            }
            Start::Given(centres) => centres.iter().map(|&c| f64::from(c)).collect(),
        };
    }

    fn nearest(&self) -> Vec<(usize, f64)> {
        let of_point = |point: &[f32]| {
            let mut best = (0, distance(point, self.centre(0)));
            for centre in 1..self.k {
                let distance = distance(point, self.centre(centre));
                if distance < best.1 {
                    best = (centre, distance);
                }
            }
            best
        };
        self.points.par_chunks(self.length).map(of_point).collect()
    }

    fn distances(&self, labels: &[usize]) -> Vec<f64> {
        labels.iter().enumerate().map(|(point, &label)| distance(self.point(point), self.centre(label))).collect()
    }

    fn move_to_means(&mut self, labels: &[usize]) {
        let mut members = vec![Vec::new(); self.k];
        labels.iter().enumerate().for_each(|(point, &label)| members[label].push(point));
        let (points, length) = (&self.points, self.length);
        self.centres.par_chunks_mut(length).zip(&members).filter(|(_, members)| !members.is_empty()).for_each(
            |(centre, members)| {
                centre.fill(0.0);
                for &point in members {
                    let point = &points[point * length..][..length];
                    centre.iter_mut().zip(point).for_each(|(sum, &x)| *sum += f64::from(x));
                }
                centre.iter_mut().for_each(|sum| *sum /= members.len() as f64);
            },
        );
    }
}
