//! Trees of features: the nearest two clusters are merged until one is left.
//!
//! ```text
//!   distance of clusters a, b = sum of the distances of all pairs between them / (size a * size b)
//!
//!   table of sums, pairs i < j:  (0,1) (0,2) ... (1,2) ...      a merged cluster keeps the place of its first member:
//!                                                               sum(ab, c) = sum(a, c) + sum(b, c)
//! ```
//! Sums are whole numbers, so a tie is a tie: of equal distances the pair with the lowest first members is merged,
//! whatever was merged before. (A nearest-neighbour chain, which SciPy uses, breaks ties by the way it went.) The table
//! has 32 bits a pair; the few sums of large clusters that need more are kept beside it.

use super::clustering::figures;
use super::pairs::condensed;
use super::{Mask, canonical, distances};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::HashMap;

/// How far two clusters are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// The mean Hamming distance of all pairs between them.
    Average,
    /// The root of the growth of squared distances to centres that merging would bring, times two, as SciPy gives it.
    /// It needs Euclidean distances, which are roots of Hamming's.
    Ward,
}

/// Two clusters become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merge {
    /// The lowest member of the one.
    pub a: usize,
    /// The lowest member of the other, above `a`.
    pub b: usize,
    /// Features of the new cluster.
    pub size: usize,
    /// Their distance: a share of positions, or its root for Ward.
    pub height: f64,
}

/// All merges of the features of a mask, in order: one less than features.
#[derive(Clone, Debug, PartialEq)]
pub struct Hierarchy {
    features: usize,
    /// Nearest first.
    pub merges: Vec<Merge>,
}

impl Hierarchy {
    /// Takes 2 F^2 bytes while it works.
    pub fn of(mask: &Mask, linkage: Linkage) -> Self {
        let mut forest = Forest::new(mask, linkage);
        let mut merges = Vec::with_capacity(mask.features().saturating_sub(1));
        while let Some((a, b)) = forest.nearest() {
            let height = forest.distance(a, b).value;
            forest.merge(a, b);
            let height = match linkage {
                Linkage::Average => height / mask.length() as f64,
                Linkage::Ward => (2.0 * height / mask.length() as f64).sqrt(),
            };
            merges.push(Merge { a, b, size: forest.sizes[a] as usize, height });
        }
        Self { features: mask.features(), merges }
    }

    /// The cluster of every feature when the last merges are undone until there are this many clusters, numbered by first
    /// appearance; nothing when there are not that many features, or none is asked for.
    pub fn cut(&self, clusters: usize) -> Option<Vec<usize>> {
        if clusters == 0 || clusters > self.features {
            return None;
        }
        // A cluster goes by its lowest member, so a feature's label follows from merges read backwards.
        let mut labels: Vec<usize> = (0..self.features).collect();
        for merge in self.merges[..self.features - clusters].iter().rev() {
            labels[merge.b] = labels[merge.a];
        }
        Some(canonical(&labels))
    }
}

/// A row of table `hierarchy`.
#[derive(Clone, Copy, Debug)]
pub struct HierarchyRow {
    /// Clusters.
    pub n_clusters: usize,
    /// The mean distance of features of one cluster.
    pub within: f64,
    /// The mean distance of features of different clusters.
    pub between: f64,
    /// between / within.
    pub separation: f64,
    /// Clusters of one feature.
    pub n_singletons: usize,
    /// Features of the largest cluster.
    pub largest: usize,
}

/// The tree cut to each number of clusters; numbers above that of features have no row.
pub fn hierarchy_rows(mask: &Mask, tree: &Hierarchy, cuts: &[usize]) -> Vec<HierarchyRow> {
    let row = |&clusters: &usize| {
        let found = figures(mask, &tree.cut(clusters)?, clusters);
        Some(HierarchyRow {
            n_clusters: clusters,
            within: found.within,
            between: found.between,
            separation: found.separation,
            n_singletons: found.n_singletons,
            largest: found.sizes.iter().copied().max().unwrap_or(0),
        })
    };
    cuts.iter().filter_map(row).collect()
}

/// A distance that compares exactly: equal fractions divide to equal floats, and where floats are equal the fractions
/// decide. Ward's has no fraction.
#[derive(Clone, Copy, Debug)]
struct Distance {
    value: f64,
    sum: u64,
    pairs: u64,
}

impl Distance {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.total_cmp(&other.value).then_with(|| {
            (u128::from(self.sum) * u128::from(other.pairs)).cmp(&(u128::from(other.sum) * u128::from(self.pairs)))
        })
    }
}

/// The nearest cluster after one in the order of first members.
#[derive(Clone, Copy)]
struct Nearest {
    distance: Distance,
    cluster: usize,
    /// The cluster is gone or has grown: the distance is only a lower bound, for merging the nearest two brings
    /// nobody nearer than the nearer of the two was.
    stale: bool,
}

/// Clusters on the way to one; each goes by its lowest member.
struct Forest {
    linkage: Linkage,
    features: usize,
    /// Sums of distances of pairs between clusters, [`MORE`] where they are in `large`.
    sums: Vec<u32>,
    large: HashMap<usize, u64>,
    sizes: Vec<u64>,
    /// Sums of distances of pairs within clusters.
    within: Vec<u64>,
    /// Clusters, ascending.
    alive: Vec<usize>,
    nearest: Vec<Option<Nearest>>,
}

/// A sum that needs more than 32 bits.
const MORE: u32 = u32::MAX;

impl Forest {
    fn new(mask: &Mask, linkage: Linkage) -> Self {
        let features = mask.features();
        let mut forest = Self {
            linkage,
            features,
            sums: distances(mask),
            large: HashMap::new(),
            sizes: vec![1; features],
            within: vec![0; features],
            alive: (0..features).collect(),
            nearest: Vec::new(),
        };
        forest.nearest = (0..features).into_par_iter().map(|a| forest.nearest_after(a, a)).collect();
        forest
    }

    fn sum(&self, i: usize, j: usize) -> u64 {
        let at = condensed(self.features, i.min(j), i.max(j));
        match self.sums[at] {
            MORE => self.large.get(&at).copied().unwrap_or(u64::from(MORE)),
            sum => u64::from(sum),
        }
    }

    fn set_sum(&mut self, i: usize, j: usize, sum: u64) {
        let at = condensed(self.features, i.min(j), i.max(j));
        self.sums[at] = u32::try_from(sum).unwrap_or(MORE);
        if self.sums[at] == MORE {
            self.large.insert(at, sum);
        }
    }

    fn distance(&self, a: usize, b: usize) -> Distance {
        let (sum, pairs) = (self.sum(a, b), self.sizes[a] * self.sizes[b]);
        match self.linkage {
            Linkage::Average => Distance { value: sum as f64 / pairs as f64, sum, pairs },
            Linkage::Ward => {
                // |c_a - c_b|^2 = mean distance between - sum within a / n_a^2 - sum within b / n_b^2
                let spread = |c: usize| self.within[c] as f64 / (self.sizes[c] * self.sizes[c]) as f64;
                let apart = sum as f64 / pairs as f64 - spread(a) - spread(b);
                Distance { value: pairs as f64 / (self.sizes[a] + self.sizes[b]) as f64 * apart, sum: 0, pairs: 0 }
            }
        }
    }

    /// The nearest to `a` of the clusters after it, which begin at `place` among all or later.
    fn nearest_after(&self, a: usize, place: usize) -> Option<Nearest> {
        let mut best: Option<Nearest> = None;
        for &cluster in &self.alive[place.min(self.alive.len())..] {
            if cluster <= a {
                continue;
            }
            let distance = self.distance(a, cluster);
            if best.is_none_or(|best| distance.cmp(&best.distance) == Ordering::Less) {
                best = Some(Nearest { distance, cluster, stale: false });
            }
        }
        best
    }

    /// The two clusters to be merged.
    fn nearest(&mut self) -> Option<(usize, usize)> {
        loop {
            let mut best: Option<(usize, usize, Nearest)> = None;
            for (place, &a) in self.alive.iter().enumerate() {
                let Some(nearest) = self.nearest[a] else { continue };
                if best.is_none_or(|(_, _, best)| nearest.distance.cmp(&best.distance) == Ordering::Less) {
                    best = Some((place, a, nearest));
                }
            }
            let (place, a, nearest) = best?;
            if !nearest.stale {
                return Some((a, nearest.cluster));
            }
            self.nearest[a] = self.nearest_after(a, place + 1);
        }
    }

    /// `a < b`.
    fn merge(&mut self, a: usize, b: usize) {
        self.within[a] += self.within[b] + self.sum(a, b);
        self.alive.retain(|&cluster| cluster != b);
        self.nearest[b] = None;
        let others: Vec<usize> = self.alive.iter().copied().filter(|&other| other != a).collect();
        for &other in &others {
            let sum = self.sum(a, other) + self.sum(b, other);
            self.set_sum(a, other, sum);
        }
        self.sizes[a] += self.sizes[b];
        for &other in others.iter().take_while(|&&other| other < b) {
            let Some(mut nearest) = self.nearest[other] else { continue };
            if nearest.cluster == b || nearest.cluster == a {
                nearest.stale = true;
                self.nearest[other] = Some(nearest);
            }
        }
        let place = self.alive.partition_point(|&cluster| cluster <= a);
        self.nearest[a] = self.nearest_after(a, place);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Axis;
    use super::super::pairs::Pair;
    use super::*;
    use crate::sparse::Pattern;

    /// Cubic, and over again from the pairs of features for every merge.
    fn slow(mask: &Mask) -> Vec<(usize, usize)> {
        let mut clusters: Vec<Vec<usize>> = (0..mask.features()).map(|feature| vec![feature]).collect();
        let mut merges = Vec::new();
        while clusters.len() > 1 {
            let mut best: Option<(u64, u64, usize, usize)> = None;
            for i in 0..clusters.len() {
                for j in i + 1..clusters.len() {
                    let pairs = clusters[i].iter().flat_map(|&a| clusters[j].iter().map(move |&b| (a, b)));
                    let sum: u64 = pairs.map(|(a, b)| Pair::of(mask, a, mask, b).hamming_count() as u64).sum();
                    let count = (clusters[i].len() * clusters[j].len()) as u64;
                    if best.is_none_or(|(s, c, _, _)| sum * c < s * count) {
                        best = Some((sum, count, i, j));
                    }
                }
            }
            let Some((_, _, i, j)) = best else { break };
            let gone = clusters.remove(j);
            merges.push((clusters[i][0], gone[0]));
            clusters[i].extend(gone);
            clusters[i].sort_unstable();
        }
        merges
    }

    #[test]
    fn of_equal_distances_the_lowest_pair_is_merged() {
        for (length, seed) in [(5, 0), (8, 1), (12, 2), (64, 3), (200, 4)] {
            let mask = Mask::of(&Pattern::random(24, length, 0.5, seed), Axis::Out);
            let tree = Hierarchy::of(&mask, Linkage::Average);
            let found: Vec<_> = tree.merges.iter().map(|merge| (merge.a, merge.b)).collect();
            assert_eq!(found, slow(&mask), "{length} {seed}");
            assert!(tree.merges.windows(2).all(|pair| pair[0].height <= pair[1].height + 1e-12));
        }
    }

    #[test]
    fn heights_are_those_of_scipy() {
        // scipy.cluster.hierarchy.linkage(bits, "average", "hamming") and linkage(bits, "ward"), the latter over
        // sqrt(8), of rows of eight bits: 00000000 00000001 11110000 11111100 01111111
        let rows = [0b0000_0000u8, 0b0000_0001, 0b1111_0000, 0b1111_1100, 0b0111_1111];
        let mask = Mask::from_fn(5, 8, |feature, at| rows[feature] >> at & 1 == 1);
        let heights =
            |linkage| Hierarchy::of(&mask, linkage).merges.iter().map(|merge| merge.height).collect::<Vec<_>>();
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12) && a.len() == b.len();
        let (average, ward) = (heights(Linkage::Average), heights(Linkage::Ward));
        assert!(close(&average, &[0.125, 0.25, 0.5, 0.7291666666666666]), "{average:?}");
        assert!(close(&ward, &[0.35355339059327373, 0.5, 0.7637626158259732, 1.1583033569262702]), "{ward:?}");
    }

    #[test]
    fn cuts_undo_the_last_merges() {
        let mask = Mask::from_fn(6, 40, |feature, at| at < [1, 21, 2, 20, 40, 3][feature]);
        let tree = Hierarchy::of(&mask, Linkage::Average);
        assert_eq!(tree.cut(3).unwrap(), [0, 1, 0, 1, 2, 0]);
        assert_eq!((tree.cut(1).unwrap(), tree.cut(6).unwrap()), (vec![0; 6], vec![0, 1, 2, 3, 4, 5]));
        assert!(tree.cut(7).is_none() && tree.cut(0).is_none());
        let rows = hierarchy_rows(&mask, &tree, &[1, 3, 6, 9]);
        let found: Vec<_> = rows.iter().map(|row| (row.n_clusters, row.n_singletons, row.largest)).collect();
        assert_eq!(found, [(1, 0, 6), (3, 1, 3), (6, 6, 1)]);
        assert!(rows[0].between.is_nan() && rows[2].within.is_nan() && rows[1].separation > 10.0);
    }

    #[test]
    fn sums_above_32_bits_are_kept() {
        let mask = Mask::from_fn(3, 4, |feature, _| feature == 2);
        let mut forest = Forest::new(&mask, Linkage::Average);
        for sum in [u64::from(MORE) - 1, u64::from(MORE), u64::from(MORE) + 7, 5] {
            forest.set_sum(2, 0, sum);
            assert_eq!(forest.sum(0, 2), sum);
        }
    }
}
