//! Seeds and what is drawn from them: the same on every machine and for any number of threads.

use super::Mask;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// The seed of one draw: the first eight bytes, little-endian, of SHA-256 of the fields joined by `|`.
///
/// Fields name what the draw depends on. What must be the same for all sources, such as reference features that are
/// compared in pairs, leaves the source out.
///
/// ```
/// # use sparsify_exp::analysis::sub_seed;
/// assert_eq!(sub_seed(&["0", "clusters", "1", "q"]), sub_seed(&["0", "clusters", "1", "q"]));
/// assert_ne!(sub_seed(&["0", "clusters", "1", "q"]), sub_seed(&["0", "clusters", "1", "k"]));
/// ```
pub fn sub_seed(fields: &[&str]) -> u64 {
    let digest = Sha256::digest(fields.join("|").as_bytes());
    digest.iter().take(8).rev().fold(0, |seed, &byte| seed << 8 | u64::from(byte))
}

/// A stream of random numbers.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    /// Streams of one seed are independent of each other.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A whole number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// In [0, 1), with 53 bits.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal, mean 0 and variance 1 (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Reorders a list (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

/// `count` different members of a list, ascending by their place in it; all of them where there are no more.
///
/// ```
/// # use sparsify_exp::analysis::draw;
/// assert_eq!(draw(&[3, 5, 8], 9, 0), [3, 5, 8]);
/// assert_eq!(draw(&[3, 5, 8], 2, 0).len(), 2);
/// ```
pub fn draw(from: &[usize], count: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed, 0);
    let mut going = count.min(from.len());
    let mut drawn = Vec::with_capacity(going);
    for (i, &member) in from.iter().enumerate() {
        if random.below(from.len() - i) < going {
            drawn.push(member);
            going -= 1;
        }
    }
    drawn
}

/// All numbers below `count` in random order.
pub fn permutation(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    Random::new(seed, 0).shuffle(&mut order);
    order
}

/// The null model: every feature keeps as many positions as it has, at random places of its own.
pub fn shuffled(mask: &Mask, seed: u64) -> Mask {
    let length = mask.length();
    Mask::from_rows(mask.features(), length, |feature, words| {
        let mut random = Random::new(seed, feature as u64);
        let mut going = mask.kept(feature);
        // Selection sampling of the rarer kind of bit; only as many draws as there are positions before the last.
        let invert = 2 * going > length;
        going = if invert { length - going } else { going };
        for at in 0..length {
            if going == 0 {
                break;
            }
            if random.below(length - at) < going {
                words[at / 64] |= 1 << (at % 64);
                going -= 1;
            }
        }
        if invert {
            words.iter_mut().for_each(|word| *word = !*word);
        }
    })
}

/// The null model of weights: positions of each feature are permuted, its mask with its weights. `weights` is
/// `[features, length]`.
pub(super) fn shuffled_weights(mask: &Mask, weights: &[f32], seed: u64) -> (Mask, Vec<f32>) {
    let length = mask.length();
    let orders: Vec<Vec<usize>> = (0..mask.features())
        .into_par_iter()
        .map(|feature| {
            let mut order: Vec<usize> = (0..length).collect();
            Random::new(seed, feature as u64).shuffle(&mut order);
            order
        })
        .collect();
    let permuted = Mask::from_fn(mask.features(), length, |feature, at| mask.get(feature, orders[feature][at]));
    let mut moved = vec![0.0; weights.len()];
    moved.par_chunks_mut(length).enumerate().for_each(|(feature, to)| {
        to.iter_mut().zip(&orders[feature]).for_each(|(to, &at)| *to = weights[feature * length + at]);
    });
    (permuted, moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_those_of_sha256() {
        // python3: int.from_bytes(hashlib.sha256(b"0|clusters").digest()[:8], "little")
        assert_eq!(sub_seed(&["0", "clusters"]), 2516949128416235542);
        // and of b""
        assert_eq!(sub_seed(&[]), 1449310910991872227);
    }

    #[test]
    fn a_draw_is_of_different_members_and_every_one_is_as_likely() {
        let from: Vec<usize> = (10..20).collect();
        let mut times = [0; 20];
        for seed in 0..2000 {
            let drawn = draw(&from, 3, seed);
            assert!(drawn.len() == 3 && drawn.is_sorted() && drawn[0] != drawn[1] && drawn[1] != drawn[2]);
            drawn.iter().for_each(|&member| times[member] += 1);
        }
        assert!(times[10..].iter().all(|&times| (500..700).contains(&times)), "{times:?}");
        let mut order = permutation(50, 3);
        assert_ne!(order, permutation(50, 4));
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_shuffle_keeps_what_each_feature_keeps_and_nothing_else() {
        let mask = Mask::from_fn(6, 131, |feature, at| match feature {
            0 => false,
            1 => true,
            2 => at < 100,
            _ => at % feature == 0,
        });
        let other = shuffled(&mask, 1);
        assert!((0..6).all(|feature| other.kept(feature) == mask.kept(feature)));
        assert!((2..6).all(|feature| other.row(feature) != mask.row(feature)));
        assert_ne!(shuffled(&mask, 2), other);

        let weights: Vec<f32> =
            (0..6 * 131).map(|i| i as f32 * f32::from(u8::from(mask.get(i / 131, i % 131)))).collect();
        let (mask, moved) = shuffled_weights(&mask, &weights, 1);
        for feature in 2..6 {
            assert!((0..131).all(|at| mask.get(feature, at) != (moved[feature * 131 + at] == 0.0)));
            let mut sorted = moved[feature * 131..][..131].to_vec();
            sorted.sort_by(f32::total_cmp);
            assert_eq!(sorted.iter().filter(|&&w| w != 0.0).count(), mask.kept(feature));
            assert_ne!(moved[feature * 131..][..131], weights[feature * 131..][..131]);
        }
    }

    #[test]
    fn normal_numbers_have_their_mean_and_variance() {
        let mut random = Random::new(1, 2);
        let drawn: Vec<f64> = (0..20_000).map(|_| random.normal()).collect();
        let mean = drawn.iter().sum::<f64>() / 20_000.0;
        let variance = drawn.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
    }
}
