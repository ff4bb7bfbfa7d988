//! Clusters that are there are found, clusters that are not are not.

use super::super::random::Random;
use super::super::{Axis, Pair, references};
use super::*;
use crate::sparse::Pattern;

fn random_mask(features: usize, length: usize, seed: u64) -> Mask {
    Mask::of(&Pattern::random(features, length, 0.5, seed), Axis::Out)
}

/// Features of `count` clusters in turn; each position differs from the centre's with the chance `flip`.
fn planted(features: usize, length: usize, count: usize, flip: f64, seed: u64) -> Mask {
    let centres = random_mask(count, length, seed);
    Mask::from_rows(features, length, |feature, words| {
        let mut random = Random::new(seed, feature as u64 + 1);
        for at in 0..length {
            let bit = centres.get(feature % count, at) != (random.unit() < flip);
            words[at / 64] |= u64::from(bit) << (at % 64);
        }
    })
}

fn settings(k: usize, seed: u64) -> ClusterSettings<'static> {
    let algorithm = Algorithm::KMeans { points: Points::Mask, starts: 10 };
    ClusterSettings { algorithm, k, null_repeats: 20, seed }
}

/// All figures from the table of all pairs, as they are defined.
fn slow(mask: &Mask, labels: &[usize], k: usize) -> Figures {
    let (n, length) = (mask.features(), mask.length() as f64);
    let h = |i: usize, j: usize| Pair::of(mask, i, mask, j).hamming();
    let pairs = || (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    let of = |same: bool, of: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        pairs().filter(|&(i, j)| (labels[i] == labels[j]) == same).map(|(i, j)| of(i, j)).collect()
    };
    let chance = |i: usize, j: usize| Pair::of(mask, i, mask, j).hamming_chance();
    let mut found = figures(mask, labels, k);
    (found.within, found.between) = (mean(&of(true, &h)), mean(&of(false, &h)));
    (found.expected_within, found.expected_between) = (mean(&of(true, &chance)), mean(&of(false, &chance)));
    found.separation = ratio(found.between, found.within);
    let members = |c: usize| (0..n).filter(|&i| labels[i] == c).collect::<Vec<_>>();
    let silhouette = |i: usize| {
        let to = |c: usize| mean(&members(c).iter().filter(|&&j| j != i).map(|&j| h(i, j)).collect::<Vec<_>>());
        let a = to(labels[i]);
        let b = (0..k).filter(|&c| c != labels[i]).map(to).filter(|b| !b.is_nan()).fold(f64::INFINITY, f64::min);
        if a.is_nan() { 0.0 } else { (b - a) / a.max(b) }
    };
    found.silhouette = mean(&(0..n).map(silhouette).collect::<Vec<_>>());
    let between = |a: usize, b: usize| {
        let pairs = members(a).into_iter().flat_map(|i| members(b).into_iter().map(move |j| (i, j)));
        mean(&pairs.filter(|(i, j)| i != j).map(|(i, j)| h(i, j)).collect::<Vec<_>>())
    };
    let own: Vec<f64> = (0..k).map(|c| between(c, c)).map(|own| if own.is_nan() { 0.0 } else { own }).collect();
    found.legacy_within = mean(&own);
    let others = (0..k).flat_map(|a| (a + 1..k).map(move |b| (a, b))).map(|(a, b)| between(a, b));
    found.legacy_between = mean(&others.filter(|h| !h.is_nan()).collect::<Vec<_>>());
    assert!(length > 0.0);
    found
}

#[test]
fn figures_from_sums_are_those_of_all_pairs() {
    for (features, length, k, seed) in [(20, 33, 3, 0), (40, 200, 9, 1), (7, 5, 4, 2)] {
        let mask = random_mask(features, length, seed);
        let mut random = Random::new(seed, 9);
        // The last cluster is empty.
        let labels: Vec<usize> = (0..features).map(|_| random.below(k)).collect();
        let (found, expected) = (figures(&mask, &labels, k + 1), slow(&mask, &labels, k + 1));
        let numbers = |f: &Figures| {
            [
                f.within,
                f.between,
                f.separation,
                f.expected_within,
                f.expected_between,
                f.silhouette,
                f.legacy_within,
                f.legacy_between,
            ]
        };
        for (i, (found, expected)) in numbers(&found).into_iter().zip(numbers(&expected)).enumerate() {
            assert!((found - expected).abs() < 1e-12, "{i}: {found} {expected}");
        }
        for row in cluster_pairs(&mask, &labels, k + 1) {
            assert_eq!(row.mean_hamming.is_nan(), row.pairs == 0);
        }
        let all: u64 = cluster_pairs(&mask, &labels, k + 1).iter().map(|row| row.pairs).sum();
        assert_eq!(all, (features * (features - 1) / 2) as u64);
        assert_eq!(found.within_pairs + found.between_pairs, all);
        assert_eq!((found.n_nonempty, found.sizes[k]), (k.min(canonical(&labels).iter().max().unwrap() + 1), 0));
    }
}

#[test]
fn what_is_undefined_is_not_a_number() {
    let mask = random_mask(6, 20, 1);
    let one = figures(&mask, &[0; 6], 1);
    assert!(one.between.is_nan() && one.separation.is_nan() && one.silhouette.is_nan() && one.legacy_ratio.is_nan());
    let singles = figures(&mask, &[0, 1, 2, 3, 4, 5], 6);
    assert!(singles.within.is_nan() && singles.separation.is_nan() && singles.silhouette.is_nan());
    assert_eq!((singles.legacy_ratio, singles.n_singletons), (0.0, 6));
    let equal = figures(&Mask::from_fn(4, 3, |feature, _| feature < 2), &[0, 0, 1, 1], 2);
    assert!(equal.within == 0.0 && equal.separation.is_nan() && equal.silhouette == 1.0);
    let none = clustering(&mask, &settings(7, 0));
    assert!(none.row.figures.separation.is_nan() && none.features.is_empty() && none.row.null.z.is_nan());
    assert!(Null::of(1.0, &[1.0, 1.0]).z.is_nan());
}

#[test]
fn planted_clusters_are_found_by_every_algorithm() {
    let mask = planted(60, 300, 5, 0.1, 4);
    let truth: Vec<usize> = (0..60).map(|feature| feature % 5).collect();
    let weights: Vec<f32> = (0..60 * 300).map(|i| if mask.get(i / 300, i % 300) { -2.0 } else { 0.0 }).collect();
    let algorithms = [
        Algorithm::KMeans { points: Points::Mask, starts: 10 },
        Algorithm::KMeans { points: Points::Weights(&weights), starts: 10 },
        Algorithm::KMeans { points: Points::Sign(&weights), starts: 10 },
        Algorithm::KMedoids,
        Algorithm::Agglomerative(Linkage::Average),
        Algorithm::Agglomerative(Linkage::Ward),
    ];
    for algorithm in algorithms {
        let found = clustering(&mask, &ClusterSettings { algorithm, k: 5, null_repeats: 3, seed: 1 });
        assert_eq!(found.labels(), truth, "{}", algorithm.name());
        let row = &found.row;
        assert!(row.figures.separation > 2.0 && row.figures.silhouette > 0.5 && row.null.z > 20.0, "{row:?}");
        assert!((0.9..1.2).contains(&row.null.mean) && row.null.mean < row.figures.separation);
    }
}

#[test]
fn a_random_mask_is_called_random_for_ten_seeds() {
    for seed in 0..10 {
        let found = clustering(&random_mask(96, 256, seed), &settings(8, seed)).row;
        assert!(found.null.z.abs() < 3.0, "seed {seed}: {found:?}");
        // Above 1 all the same: clusters are made to be apart.
        assert!((1.0..1.1).contains(&found.figures.separation));
    }
}

#[test]
fn the_original_ratio_is_inflated_on_random_data() {
    // Weights with norms far apart and a random mask: k-means on weights makes singletons of the largest columns.
    let (features, length) = (128, 256);
    let mask = random_mask(features, length, 3);
    let mut random = Random::new(5, 0);
    let scales: Vec<f64> = (0..features).map(|_| (1.6 * random.normal()).exp()).collect();
    let weights: Vec<f32> = (0..features * length)
        .map(|i| if mask.get(i / length, i % length) { (scales[i / length] * random.normal()) as f32 } else { 0.0 })
        .collect();
    for k in [4, 8, 16] {
        let algorithm = Algorithm::KMeans { points: Points::Weights(&weights), starts: 10 };
        let found = clustering(&mask, &ClusterSettings { algorithm, k, null_repeats: 0, seed: 0 }).row.figures;
        let singletons = found.n_singletons as f64;
        assert!(singletons >= k as f64 / 2.0, "k {k}: {found:?}");
        assert!((found.separation - 1.0).abs() < 0.02, "k {k}: {found:?}");
        let explained = k as f64 / (k as f64 - singletons) * found.separation;
        assert!(found.legacy_ratio > 1.5 && (found.legacy_ratio / explained - 1.0).abs() < 0.03, "k {k}: {found:?}");
    }
}

/// Lloyd's algorithm on numbers, as it is defined.
fn lloyd(points: &[Vec<f64>], mut centres: Vec<Vec<f64>>) -> (Vec<usize>, f64) {
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let mut labels: Vec<usize> = Vec::new();
    loop {
        let nearest = |point: &Vec<f64>| {
            let d: Vec<f64> = centres.iter().map(|centre| distance(point, centre)).collect();
            (0..d.len()).fold(0, |best, c| if d[c] < d[best] - 1e-9 { c } else { best })
        };
        let new: Vec<usize> = points.iter().map(nearest).collect();
        if new == labels {
            let inertia = points.iter().zip(&labels).map(|(point, &label)| distance(point, &centres[label])).sum();
            return (labels, inertia);
        }
        labels = new;
        for (c, centre) in centres.iter_mut().enumerate() {
            let members: Vec<&Vec<f64>> =
                points.iter().zip(&labels).filter(|(_, l)| **l == c).map(|(p, _)| p).collect();
            assert!(!members.is_empty());
            for (r, value) in centre.iter_mut().enumerate() {
                *value = members.iter().map(|point| point[r]).sum::<f64>() / members.len() as f64;
            }
        }
    }
}

#[test]
fn bits_give_the_passes_that_numbers_give() {
    for (features, length, k, seed) in [(90, 70, 4, 0), (150, 200, 7, 1), (40, 64, 3, 2)] {
        let mask = random_mask(features, length, seed);
        let points: Vec<Vec<f64>> =
            (0..features).map(|f| (0..length).map(|at| f64::from(u8::from(mask.get(f, at)))).collect()).collect();
        let starts: Vec<usize> = (0..k).map(|c| c * 5).collect();
        let (labels, inertia) = lloyd(&points, starts.iter().map(|&start| points[start].clone()).collect());
        let found = KMeans::from(&mask, Points::Mask, k, Start::Points(&starts));
        assert_eq!(found.labels, labels, "{features} {length}");
        assert!((found.inertia - inertia).abs() < 1e-9 * inertia && found.relocated == 0);

        let given: Vec<f32> = starts.iter().flat_map(|&start| points[start].iter().map(|&x| x as f32)).collect();
        let other = KMeans::from(&mask, Points::Mask, k, Start::Given(&given));
        assert_eq!((other.labels, other.n_iter), (found.labels.clone(), found.n_iter));
        let weights: Vec<f32> = points.iter().flatten().map(|&x| x as f32).collect();
        let dense = KMeans::from(&mask, Points::Weights(&weights), k, Start::Points(&starts));
        assert!((dense.inertia - inertia).abs() < 1e-9 * inertia);
    }
}

#[test]
fn an_empty_cluster_takes_the_farthest_point_or_stays_empty() {
    let mask = Mask::from_fn(5, 8, |feature, at| at < [0, 0, 1, 7, 8][feature]);
    // Two centres at the same point: the second gets nothing, then the farthest point.
    let found = KMeans::from(&mask, Points::Mask, 2, Start::Points(&[0, 1]));
    assert_eq!((found.relocated, canonical(&found.labels)), (1, vec![0, 0, 0, 1, 1]));
    // Only two different points for three clusters: every point is at its centre, so one cluster stays empty.
    let mask = Mask::from_fn(4, 8, |feature, at| feature < 2 && at < 3);
    for starts in [[0, 1, 2], [0, 2, 3]] {
        let found = KMeans::from(&mask, Points::Mask, 3, Start::Points(&starts));
        assert_eq!((found.relocated, found.inertia, canonical(&found.labels)), (0, 0.0, vec![0, 0, 1, 1]));
    }
    assert_eq!(KMeans::best(&mask, Points::Mask, 3, 4, 1).inertia, 0.0);
}

#[test]
fn runs_do_not_depend_on_the_number_of_threads() {
    let mask = planted(200, 130, 6, 0.35, 1);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| format!("{:?}", clustering(&mask, &settings(6, 2))))
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn medoids_are_those_that_trying_every_swap_gives() {
    for (seed, k) in [(0, 1), (1, 2), (2, 4)] {
        let mask = random_mask(18, 12, seed);
        let cost = |medoids: &[usize]| {
            let near = |i: usize| medoids.iter().map(|&m| Pair::of(&mask, i, &mask, m).hamming_count()).min().unwrap();
            (0..18).map(near).sum::<usize>() as u64
        };
        let mut medoids = build_medoids(&mask, k);
        let first = (0..18).min_by_key(|&m| (cost(&[m]), m)).unwrap();
        assert!(medoids.contains(&first));
        loop {
            let mut best = (cost(&medoids), usize::MAX, usize::MAX);
            for &gone in &medoids {
                for feature in (0..18).filter(|feature| !medoids.contains(feature)) {
                    let with: Vec<usize> = medoids.iter().map(|&m| if m == gone { feature } else { m }).collect();
                    if cost(&with) < cost(&medoids) {
                        best = best.min((cost(&with), gone, feature));
                    }
                }
            }
            if best.1 == usize::MAX {
                break;
            }
            medoids = medoids.iter().map(|&m| if m == best.1 { best.2 } else { m }).collect();
            medoids.sort_unstable();
        }
        let found = swap_medoids(&mask, &build_medoids(&mask, k));
        assert_eq!((found.medoids.clone(), found.cost_count), (medoids.clone(), cost(&medoids)));
        assert!(medoids.iter().enumerate().all(|(label, &medoid)| found.labels[medoid] == label));
    }
}

#[test]
fn two_sources_share_their_references() {
    let (a, b) = (random_mask(40, 64, 0), random_mask(40, 64, 1));
    let separations = |mask: &Mask| -> Vec<f64> {
        let of = |reference| {
            let members = super::super::neighbourhood(mask, reference, 16, true);
            clustering(&mask.select(&members), &ClusterSettings { null_repeats: 0, ..settings(4, 0) })
                .row
                .figures
                .separation
        };
        references(&[&a, &b], 10, 3).into_iter().map(of).collect()
    };
    let paired = super::super::Repeats::paired(&separations(&a), &separations(&b));
    assert!(paired.n == 10 && paired.ci_lo < paired.mean && paired.mean < paired.ci_hi);
}
