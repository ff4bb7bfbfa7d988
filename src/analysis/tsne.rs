//! Features in the plane, near where they are near: t-SNE of Hamming distances.
//!
//! ```text
//!   h(i, j) ──> p(j | i) ~ exp(-h / 2 s_i^2) over the nearest of i, s_i such that 2^entropy = perplexity
//!           ──> p = (p(j | i) + p(i | j)) / 2F      q ~ 1 / (1 + |y_i - y_j|^2)      y goes down KL(p, q)
//! ```
//! Between rows of 0 and 1 the squared Euclidean distance is the Hamming distance. L. van der Maaten and G. Hinton,
//! "Visualizing Data using t-SNE", JMLR 9, 2008. Repulsion is summed over all pairs, which takes F^2 steps in each of 1000
//! passes and no memory; sums of a feature are taken in order, so threads do not matter. A figure of a few thousand
//! features at most.

use super::Mask;
use super::pairs::distances_from;
use super::random::Random;
use rayon::prelude::*;

/// Passes, in the first of which attraction is [`EXAGGERATION`] times as strong.
const PASSES: usize = 1000;
const EARLY: usize = 250;
const EXAGGERATION: f64 = 12.0;

/// Where features are in the plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// `[features]`: x and y.
    pub points: Vec<[f64; 2]>,
    /// The Kullback-Leibler divergence that is left, in nat.
    pub divergence: f64,
}

/// Embeds the features of a mask. A perplexity that is not below the number of features is lowered.
pub fn embedding(mask: &Mask, perplexity: f64, seed: u64) -> Embedding {
    let features = mask.features();
    if features < 3 {
        let points = (0..features).map(|feature| [feature as f64, 0.0]).collect();
        return Embedding { points, divergence: 0.0 };
    }
    let attraction = attraction(mask, perplexity.min((features - 1) as f64).max(1.0));
    let mut random = Random::new(seed, 0);
    let mut points: Vec<[f64; 2]> = (0..features).map(|_| [1e-4 * random.normal(), 1e-4 * random.normal()]).collect();
    let mut speed = vec![[0.0; 2]; features];
    let mut gains = vec![[1.0f64; 2]; features];
    let rate = (features as f64 / EXAGGERATION / 4.0).max(50.0);
    for pass in 0..PASSES {
        let early = pass < EARLY;
        let slopes = slopes(&points, &attraction, if early { EXAGGERATION } else { 1.0 });
        let momentum = if early { 0.5 } else { 0.8 };
        for feature in 0..features {
            for axis in 0..2 {
                let (slope, speed) = (slopes[feature][axis], &mut speed[feature][axis]);
                let gain = &mut gains[feature][axis];
                // Steps grow while the direction stays.
                *gain = (if slope * *speed < 0.0 { *gain + 0.2 } else { *gain * 0.8 }).max(0.01);
                *speed = momentum * *speed - rate * *gain * slope;
                points[feature][axis] += *speed;
            }
        }
    }
    let divergence = divergence(&points, &attraction);
    Embedding { points, divergence }
}

/// What each feature is drawn to, and how strongly: p, both ways.
type Attraction = Vec<Vec<(usize, f64)>>;

fn attraction(mask: &Mask, perplexity: f64) -> Attraction {
    let features = mask.features();
    let near = ((3.0 * perplexity) as usize + 1).min(features - 1);
    let one_way: Attraction = (0..features)
        .into_par_iter()
        .map(|from| {
            let mut others: Vec<(u32, usize)> = distances_from(mask, from).into_iter().zip(0..).collect();
            others.remove(from);
            others.sort_unstable();
            others.truncate(near);
            let distances: Vec<f64> = others.iter().map(|&(distance, _)| f64::from(distance)).collect();
            others.into_iter().map(|(_, feature)| feature).zip(conditional(&distances, perplexity)).collect()
        })
        .collect();
    let mut both: Attraction = vec![Vec::new(); features];
    for (from, others) in one_way.iter().enumerate() {
        for &(to, share) in others {
            let half = share / (2.0 * features as f64);
            both[from].push((to, half));
            both[to].push((from, half));
        }
    }
    for list in &mut both {
        list.sort_by_key(|&(feature, _)| feature);
        list.dedup_by(|next, first| {
            let same = next.0 == first.0;
            first.1 += if same { next.1 } else { 0.0 };
            same
        });
    }
    both
}

/// Shares exp(-b d), b such that their entropy is that of the perplexity; found by bisection.
fn conditional(distances: &[f64], perplexity: f64) -> Vec<f64> {
    let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
    let shares = |b: f64| {
        let raw: Vec<f64> = distances.iter().map(|d| (-b * (d - least)).exp()).collect();
        let total: f64 = raw.iter().sum();
        raw.into_iter().map(|share| share / total).collect::<Vec<_>>()
    };
    let entropy =
        |shares: &[f64]| -> f64 { shares.iter().filter(|&&share| share > 0.0).map(|share| -share * share.ln()).sum() };
    let (mut low, mut high, mut b) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..100 {
        let excess = entropy(&shares(b)) - perplexity.ln();
        if excess.abs() < 1e-7 {
            break;
        }
        if excess > 0.0 {
            low = b
        } else {
            high = b
        }
        b = if high.is_finite() { (low + high) / 2.0 } else { b * 2.0 };
    }
    shares(b)
}

/// 1 / (1 + distance squared), and the difference.
fn kernel(a: [f64; 2], b: [f64; 2]) -> (f64, [f64; 2]) {
    let apart = [a[0] - b[0], a[1] - b[1]];
    (1.0 / (1.0 + apart[0] * apart[0] + apart[1] * apart[1]), apart)
}

/// The slope of the divergence for every feature: 4 sum (p - q) (y_i - y_j) / (1 + |y_i - y_j|^2).
fn slopes(points: &[[f64; 2]], attraction: &Attraction, exaggeration: f64) -> Vec<[f64; 2]> {
    let push = |&from: &[f64; 2]| {
        let (mut total, mut force) = (0.0, [0.0; 2]);
        for &to in points {
            let (near, apart) = kernel(from, to);
            total += near;
            force[0] += near * near * apart[0];
            force[1] += near * near * apart[1];
        }
        (total - 1.0, force)
    };
    let pushes: Vec<(f64, [f64; 2])> = points.par_iter().with_min_len(16).map(push).collect();
    let total: f64 = pushes.iter().map(|(total, _)| total).sum();
    let slope = |(feature, (_, push)): (usize, &(f64, [f64; 2]))| {
        let mut pull = [0.0; 2];
        for &(to, share) in &attraction[feature] {
            let (near, apart) = kernel(points[feature], points[to]);
            pull[0] += share * near * apart[0];
            pull[1] += share * near * apart[1];
        }
        [0, 1].map(|axis| 4.0 * (exaggeration * pull[axis] - push[axis] / total))
    };
    pushes.par_iter().enumerate().with_min_len(16).map(slope).collect()
}

fn divergence(points: &[[f64; 2]], attraction: &Attraction) -> f64 {
    let row = |&from: &[f64; 2]| points.iter().map(|&to| kernel(from, to).0).sum::<f64>() - 1.0;
    let total: f64 = points.par_iter().map(row).collect::<Vec<_>>().iter().sum();
    let of_feature = |(feature, others): (usize, &Vec<(usize, f64)>)| {
        let terms = others.iter().map(|&(to, p)| p * (p * total / kernel(points[feature], points[to]).0).ln());
        terms.sum::<f64>()
    };
    attraction.iter().enumerate().map(of_feature).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Features of four clusters: a position differs from the centre's at one in sixteen.
    fn clusters(features: usize) -> Mask {
        Mask::from_fn(features, 128, |feature, at| {
            let centre = Random::new((feature % 4 * 128 + at) as u64, 0).unit() < 0.5;
            let flip = Random::new((feature * 128 + at) as u64, 1).unit() < 1.0 / 16.0;
            centre != flip
        })
    }

    #[test]
    fn clusters_are_apart_in_the_plane() {
        let mask = clusters(60);
        let found = embedding(&mask, 10.0, 3);
        assert_eq!(found, embedding(&mask, 10.0, 3));
        let apart = |a: usize, b: usize| 1.0 / kernel(found.points[a], found.points[b]).0;
        for feature in 0..60 {
            let mut others: Vec<usize> = (0..60).filter(|&other| other != feature).collect();
            others.sort_by(|&a, &b| apart(feature, a).total_cmp(&apart(feature, b)));
            let alike = others[..10].iter().filter(|&&other| other % 4 == feature % 4).count();
            assert!(alike >= 9, "{feature}: {alike}");
        }
    }

    #[test]
    fn the_divergence_left_is_that_of_scikit_learn() {
        let hash = |x: u32| {
            let x = x.wrapping_mul(2_654_435_761).wrapping_add(12345);
            let x = (x ^ x >> 15).wrapping_mul(2_246_822_519);
            x ^ x >> 13
        };
        let mask = Mask::from_fn(90, 160, |feature, at| {
            let (feature, at) = (feature as u32, at as u32);
            let centre = hash(feature % 6 * 1000 + at) % 2 == 1;
            centre != (hash(feature * 1000 + at + 500_000) % 10 < 2)
        });
        assert_eq!(mask.total(), 7177);
        // sklearn.manifold.TSNE(2, perplexity=15).fit(bits).kl_divergence_ for seeds 0 to 2, from random starts and from
        // principal components: 0.1403 to 0.1431.
        let left: Vec<f64> = (0..3).map(|seed| embedding(&mask, 15.0, seed).divergence).collect();
        let least = left.iter().copied().fold(f64::INFINITY, f64::min);
        assert!((0.13..0.15).contains(&least) && left.iter().all(|&left| left < 0.165), "{left:?}");
    }

    #[test]
    fn perplexity_is_met_and_small_masks_are_embedded() {
        let distances: Vec<f64> = (0..30).map(|i| f64::from(i * i % 41)).collect();
        let shares = conditional(&distances, 7.0);
        let entropy: f64 = shares.iter().map(|share| -share * share.ln()).sum();
        assert!((entropy.exp() - 7.0).abs() < 1e-5 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        for features in [0, 1, 2, 3, 4] {
            let found = embedding(&Mask::from_fn(features, 4, |feature, at| at < feature), 30.0, 0);
            assert!(found.points.len() == features && found.points.iter().flatten().all(|x| x.is_finite()));
        }
        // All features equal: every distance is 0.
        assert!(
            embedding(&Mask::from_fn(9, 4, |_, at| at < 2), 30.0, 0).points.iter().flatten().all(|x| x.is_finite())
        );
    }
}
