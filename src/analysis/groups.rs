//! Groups of features: the nearest of sampled features, and partitions of all.
//!
//! ```text
//!   sampled:    seed s ── its g - 1 nearest                    features may be in several groups, or in none
//!   partition:  seed = first dead feature left, else first     every feature in one group; the last group
//!               left; its g - 1 nearest of those left; ...     takes what is left, even one feature
//! ```
//! The permutation that a partition makes is what a kernel would apply: [`member_rows`] lists it.

use super::neighbours::neighbourhood;
use super::patterns::{Patterns, by_chance};
use super::popcount::tile;
use super::stats::{mean, ratio};
use super::sums::BitSum;
use super::{AnalysisError, Mask, order, random};
use rayon::prelude::*;

/// How a partition is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Seeds and their nearest.
    Greedy,
    /// Cut from features in order of density.
    Density,
    /// Cut from features as they are.
    Identity,
    /// Cut from features in an order drawn with a seed.
    Random(u64),
}

/// Partitions all features into groups of `size`; members of a greedy group are in the order they were found in.
///
/// # Errors
/// When a group is to have no feature, or more than there are.
pub fn partition(mask: &Mask, size: usize, method: Partition) -> Result<Vec<Vec<usize>>, AnalysisError> {
    if size == 0 || size > mask.features() {
        return Err(AnalysisError::GroupSize { size, features: mask.features() });
    }
    let cut = |order: Vec<usize>| order.chunks(size).map(<[usize]>::to_vec).collect();
    Ok(match method {
        Partition::Greedy => greedy(mask, size),
        Partition::Density => cut(order::by_density(mask)),
        Partition::Identity => cut(order::identity(mask)),
        Partition::Random(seed) => cut(random::permutation(mask.features(), seed)),
    })
}

fn greedy(mask: &Mask, size: usize) -> Vec<Vec<usize>> {
    // Seeds come in this order: the dead, then all, by index.
    let (dead, living): (Vec<usize>, Vec<usize>) = (0..mask.features()).partition(|&feature| mask.is_dead(feature));
    let seeds = dead.into_iter().chain(living);
    let mut left: Vec<usize> = (0..mask.features()).collect();
    let mut taken = vec![false; mask.features()];
    let mut groups = Vec::with_capacity(mask.features().div_ceil(size));
    for seed in seeds {
        if taken[seed] {
            continue;
        }
        let others: Vec<usize> = left.iter().copied().filter(|&feature| feature != seed).collect();
        let mut group = vec![seed];
        group.extend(nearest(mask, seed, &others, size - 1));
        group.iter().for_each(|&feature| taken[feature] = true);
        left.retain(|&feature| !taken[feature]);
        groups.push(group);
    }
    groups
}

/// The `count` nearest of `others`, by distance and index.
fn nearest(mask: &Mask, seed: usize, others: &[usize], count: usize) -> Vec<usize> {
    let own = [mask.row(seed)];
    let of_some = |others: &[usize]| {
        let rows: Vec<&[u64]> = others.iter().map(|&feature| mask.row(feature)).collect();
        let mut common = vec![0; rows.len()];
        tile(&rows, &own, &mut common);
        let distance = |feature: usize, common: u32| mask.kept(seed) + mask.kept(feature) - 2 * common as usize;
        let mut near: Vec<(usize, usize)> =
            others.iter().zip(common).map(|(&feature, common)| (distance(feature, common), feature)).collect();
        keep_smallest(&mut near, count);
        near
    };
    let mut near: Vec<(usize, usize)> = others.par_chunks(512).flat_map_iter(of_some).collect();
    keep_smallest(&mut near, count);
    near.sort_unstable();
    near.into_iter().map(|(_, feature)| feature).collect()
}

fn keep_smallest(list: &mut Vec<(usize, usize)>, count: usize) {
    if count < list.len() {
        list.select_nth_unstable(count);
        list.truncate(count);
    }
}

/// The groups of seeds: each with its `size - 1` nearest, without constant features where `skip_constant` says so.
pub fn sampled(mask: &Mask, seeds: &[usize], size: usize, skip_constant: bool) -> Vec<Vec<usize>> {
    seeds.par_iter().map(|&seed| neighbourhood(mask, seed, size, skip_constant)).collect()
}

/// A row of table `groups`.
#[derive(Clone, Copy, Debug)]
pub struct GroupRow {
    /// Which group.
    pub group_index: usize,
    /// Its first feature.
    pub seed_feature: usize,
    /// Its features.
    pub size: usize,
    /// Whether it has as many as asked for.
    pub complete: bool,
    /// Over its pairs of features; undefined for one feature.
    pub mean_pairwise_hamming: f64,
    /// Positions at which none of its features keeps anything.
    pub all_zero_rows: usize,
    /// Positions that all of its features keep.
    pub all_one_rows: usize,
    /// Different patterns of its rows.
    pub distinct_patterns: usize,
    /// Patterns that occur more than once.
    pub repeated_patterns: usize,
    /// Of the patterns, plug-in, in bits.
    pub pattern_entropy: f64,
    /// The share of positions kept.
    pub density: f64,
    /// Expected all_zero_rows when features are shuffled on their own.
    pub null_zero_rows: f64,
    /// Expected all_one_rows.
    pub null_one_rows: f64,
    /// Expected distinct_patterns, rows being drawn independently; undefined for groups that are too varied.
    pub null_distinct_patterns: f64,
    /// Expected pattern_entropy, likewise.
    pub null_pattern_entropy: f64,
    /// The mean over all entries of the distance matrix, the zeros of its diagonal among them: what the original
    /// program calls the mean distance.
    pub upstream_mean_with_diagonal: f64,
}

/// The figures of every group; `size` features make one complete.
pub fn group_rows(mask: &Mask, groups: &[Vec<usize>], size: usize) -> Vec<GroupRow> {
    groups.par_iter().enumerate().map(|(index, members)| group_row(mask, index, members, size)).collect()
}

fn group_row(mask: &Mask, group_index: usize, members: &[usize], size: usize) -> GroupRow {
    let (length, count) = (mask.length() as f64, members.len());
    let distances: u64 = pair_distances(mask, members).iter().map(|&count| u64::from(count)).sum();
    let pairs = count * count.saturating_sub(1) / 2;
    let patterns = Patterns::of(mask, members);
    let densities = || members.iter().map(|&member| mask.density(member));
    let kept: usize = members.iter().map(|&member| mask.kept(member)).sum();
    let (null_distinct_patterns, null_pattern_entropy) = by_chance(mask, members);
    GroupRow {
        group_index,
        seed_feature: members.first().copied().unwrap_or(0),
        size: count,
        complete: count == size,
        mean_pairwise_hamming: ratio(distances as f64, pairs as f64) / length,
        all_zero_rows: patterns.all_zero,
        all_one_rows: patterns.all_one,
        distinct_patterns: patterns.distinct,
        repeated_patterns: patterns.repeated,
        pattern_entropy: patterns.entropy,
        density: ratio(kept as f64, length * count as f64),
        null_zero_rows: length * densities().map(|density| 1.0 - density).product::<f64>(),
        null_one_rows: length * densities().product::<f64>(),
        null_distinct_patterns,
        null_pattern_entropy,
        upstream_mean_with_diagonal: ratio(2.0 * distances as f64, (count * count) as f64) / length,
    }
}

/// The distances of all pairs of members, in counts.
fn pair_distances(mask: &Mask, members: &[usize]) -> Vec<u32> {
    let rows: Vec<&[u64]> = members.iter().map(|&member| mask.row(member)).collect();
    let mut common = vec![0; rows.len() * rows.len()];
    tile(&rows, &rows, &mut common);
    let pairs = (0..rows.len()).flat_map(|i| (i + 1..rows.len()).map(move |j| (i, j)));
    let distance = |(i, j): (usize, usize)| {
        (mask.kept(members[i]) + mask.kept(members[j])) as u32 - 2 * common[i * rows.len() + j]
    };
    pairs.map(distance).collect()
}

/// A row of table `group_members`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// Which group.
    pub group_index: usize,
    /// Where in the group.
    pub position: usize,
    /// Which feature.
    pub feature: usize,
}

/// The members of all groups, in order: of a partition, its permutation of features.
pub fn member_rows(groups: &[Vec<usize>]) -> Vec<MemberRow> {
    let of_group = |(group_index, members): (usize, &Vec<usize>)| {
        let row = move |(position, &feature): (usize, &usize)| MemberRow { group_index, position, feature };
        members.iter().enumerate().map(row).collect::<Vec<_>>()
    };
    groups.iter().enumerate().flat_map(of_group).collect()
}

/// A row of table `group_summary`.
#[derive(Clone, Copy, Debug)]
pub struct GroupSummary {
    /// Groups, incomplete ones among them.
    pub groups: usize,
    /// Groups times positions.
    pub rows_total: usize,
    /// All-zero rows, of rows_total.
    pub zero_fraction: f64,
    /// All-one rows, of rows_total.
    pub one_fraction: f64,
    /// What zero_fraction is under shuffles.
    pub null_zero_fraction: f64,
    /// What one_fraction is under shuffles.
    pub null_one_fraction: f64,
    /// Over groups with a pair, unweighted.
    pub mean_distance: f64,
}

/// All groups together; `length` is that of their features.
pub fn group_summary(rows: &[GroupRow], length: usize) -> GroupSummary {
    let total = (rows.len() * length) as f64;
    let share = |of: &dyn Fn(&GroupRow) -> f64| ratio(rows.iter().map(of).sum(), total);
    let distances: Vec<f64> =
        rows.iter().map(|row| row.mean_pairwise_hamming).filter(|distance| !distance.is_nan()).collect();
    GroupSummary {
        groups: rows.len(),
        rows_total: rows.len() * length,
        zero_fraction: share(&|row| row.all_zero_rows as f64),
        one_fraction: share(&|row| row.all_one_rows as f64),
        null_zero_fraction: share(&|row| row.null_zero_rows),
        null_one_fraction: share(&|row| row.null_one_rows),
        mean_distance: mean(&distances),
    }
}

/// A row of table `distance_cdf`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CdfRow {
    /// Which group; nothing for the pairs of all groups together (-1 in tables).
    pub group_index: Option<usize>,
    /// A distance that occurs.
    pub hamming: f64,
    /// The share of pairs that are at most as far.
    pub cdf: f64,
}

/// The distribution of distances within each group, then within all: pairs of different groups are in neither.
pub fn distance_cdf(mask: &Mask, groups: &[Vec<usize>]) -> Vec<CdfRow> {
    let distances: Vec<Vec<u32>> = groups.par_iter().map(|members| pair_distances(mask, members)).collect();
    let mut rows: Vec<CdfRow> =
        distances.iter().enumerate().flat_map(|(group, list)| cdf(Some(group), list.clone(), mask.length())).collect();
    rows.extend(cdf(None, distances.concat(), mask.length()));
    rows
}

fn cdf(group_index: Option<usize>, mut counts: Vec<u32>, length: usize) -> Vec<CdfRow> {
    counts.sort_unstable();
    let mut below = 0;
    let runs = counts.chunk_by(|a, b| a == b).map(|run| {
        below += run.len();
        CdfRow { group_index, hamming: f64::from(run[0]) / length as f64, cdf: below as f64 / counts.len() as f64 }
    });
    runs.collect()
}

/// What a random partition gives on average, over its complete groups.
#[derive(Clone, Copy, Debug)]
pub struct RandomPartition {
    /// The mean distance of a pair: that of all pairs of features.
    pub mean_distance: f64,
    /// All-zero rows of a group.
    pub zero_rows: f64,
    /// All-one rows of a group.
    pub one_rows: f64,
}

/// Expectations over all partitions into groups of `size`. A position that z of F features prune is all zero in a
/// group with the chance C(z, size) / C(F, size).
pub fn random_partition(mask: &Mask, size: usize) -> RandomPartition {
    let features = mask.features();
    let kept = BitSum::of(mask.length().div_ceil(64), &mask.rows()).values(mask.length());
    let chosen = |of: usize| -> f64 {
        (0..size).map(|i| ratio(of.saturating_sub(i) as f64, features.saturating_sub(i) as f64)).product()
    };
    let differing: i64 = kept.iter().map(|&kept| kept * (features as i64 - kept)).sum();
    let pairs = features * features.saturating_sub(1) / 2;
    RandomPartition {
        mean_distance: ratio(differing as f64, pairs as f64) / mask.length() as f64,
        zero_rows: kept.iter().map(|&kept| chosen(features - kept as usize)).sum(),
        one_rows: kept.iter().map(|&kept| chosen(kept as usize)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Axis;
    use super::*;
    use crate::sparse::Pattern;

    #[test]
    fn a_greedy_partition_takes_the_dead_first_and_every_feature_once() {
        // 0 1 0 2: equal pairs; features 3 and 6 are dead.
        let mask = Mask::from_fn(7, 6, |feature, at| match feature {
            3 | 6 => false,
            f if f % 2 == 0 => at < 3,
            _ => at >= 3,
        });
        assert_eq!(partition(&mask, 2, Partition::Greedy).unwrap(), [vec![3, 6], vec![0, 2], vec![1, 5], vec![4]]);
        assert_eq!(partition(&mask, 3, Partition::Density).unwrap(), [vec![3, 6, 0], vec![1, 2, 4], vec![5]]);
        assert_eq!(partition(&mask, 7, Partition::Identity).unwrap(), [vec![0, 1, 2, 3, 4, 5, 6]]);
        for method in [Partition::Greedy, Partition::Random(1)] {
            let mut all = partition(&mask, 3, method).unwrap().concat();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
        }
        assert!(matches!(
            partition(&mask, 8, Partition::Greedy),
            Err(AnalysisError::GroupSize { size: 8, features: 7 })
        ));
        assert!(partition(&mask, 0, Partition::Density).is_err());
        assert_eq!(sampled(&mask, &[2], 3, true), [vec![2, 0, 4]]);
        assert_eq!(member_rows(&[vec![4], vec![2, 9]])[2], MemberRow { group_index: 1, position: 1, feature: 9 });
    }

    #[test]
    fn figures_of_a_group() {
        let mask = Mask::from_fn(3, 4, |feature, at| [0b101, 0b101, 0, 0b111][at] >> feature & 1 == 1);
        let row = group_rows(&mask, &[vec![0, 1, 2]], 3)[0];
        // 0 and 2 are equal, 1 differs from both at two of four positions.
        assert!((row.mean_pairwise_hamming - 1.0 / 3.0).abs() < 1e-15);
        assert!((row.upstream_mean_with_diagonal - 2.0 / 9.0).abs() < 1e-15);
        assert_eq!((row.all_zero_rows, row.all_one_rows, row.distinct_patterns, row.complete), (1, 1, 3, true));
        assert!((row.null_zero_rows - 4.0 * 0.25 * 0.75 * 0.25).abs() < 1e-15 && row.density == 7.0 / 12.0);
        let alone = group_rows(&mask, &[vec![1]], 3)[0];
        assert!(alone.mean_pairwise_hamming.is_nan() && !alone.complete);
        let summary = group_summary(&[row, alone], 4);
        assert_eq!((summary.groups, summary.rows_total, summary.zero_fraction), (2, 8, 4.0 / 8.0));
        assert_eq!(summary.mean_distance, row.mean_pairwise_hamming);
    }

    #[test]
    fn eight_features_have_at_most_256_patterns_and_groups_of_chance_have_its_entropy() {
        let mask = Mask::of(&Pattern::random(2000, 64, 0.5, 2), Axis::In);
        for row in group_rows(&mask, &partition(&mask, 8, Partition::Identity).unwrap(), 8) {
            assert!(row.distinct_patterns <= 256 && row.pattern_entropy <= 8.0);
            assert!((row.pattern_entropy - row.null_pattern_entropy).abs() < 0.05);
        }
    }

    #[test]
    fn random_partitions_are_as_expected() {
        let mask = Mask::of(&Pattern::random(300, 40, 0.6, 5), Axis::In);
        let expected = random_partition(&mask, 4);
        let repeats: Vec<(f64, f64)> = (0..60)
            .map(|seed| {
                let groups = partition(&mask, 4, Partition::Random(seed)).unwrap();
                let rows = group_rows(&mask, &groups, 4);
                let summary = group_summary(&rows, 300);
                (summary.mean_distance, summary.zero_fraction * 300.0)
            })
            .collect();
        let average = |of: &dyn Fn(&(f64, f64)) -> f64| repeats.iter().map(of).sum::<f64>() / 60.0;
        assert!((average(&|r| r.0) - expected.mean_distance).abs() < 0.001);
        assert!((average(&|r| r.1) / expected.zero_rows - 1.0).abs() < 0.03);
    }

    #[test]
    fn a_distribution_ends_at_one() {
        let mask = Mask::from_fn(4, 10, |feature, at| at < feature * feature);
        let rows = distance_cdf(&mask, &[vec![0, 1, 2], vec![3]]);
        let of = |group, hamming, cdf| CdfRow { group_index: group, hamming, cdf };
        let expected = [(0.1, 1.0 / 3.0), (0.3, 2.0 / 3.0), (0.4, 1.0)];
        let expected: Vec<_> =
            [Some(0), None].into_iter().flat_map(|group| expected.map(|(h, c)| of(group, h, c))).collect();
        assert_eq!(rows, expected);
    }
}
