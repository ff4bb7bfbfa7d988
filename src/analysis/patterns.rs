//! The patterns that the rows of a group of features make, and how many chance would make.
//!
//! ```text
//!   group of 3 features     pattern of a row: a bit a feature     distinct 3, repeated 1 (101)
//!   row 0   x . x           101                                   entropy: - 1/2 log2 1/2 - 2 * 1/4 log2 1/4
//!   row 1   x . x           101
//!   row 2   . . .           000
//!   row 3   x x x           111
//! ```

use super::Mask;
use super::stats::ratio;

/// More kinds of patterns than this are not summed over: their expectations are undefined.
const KINDS: usize = 1 << 16;

/// What the rows of a group look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patterns {
    pub all_zero: usize,
    pub all_one: usize,
    pub distinct: usize,
    pub repeated: usize,
    /// Plug-in, in bits.
    pub entropy: f64,
}

impl Patterns {
    pub(super) fn of(mask: &Mask, members: &[usize]) -> Self {
        let (length, per) = (mask.length(), members.len().div_ceil(64).max(1));
        // [row][ceil(members / 64)]
        let mut rows = vec![0u64; length * per];
        for (place, &member) in members.iter().enumerate() {
            for (w, &word) in mask.row(member).iter().enumerate() {
                let mut word = word;
                while word != 0 {
                    let at = w * 64 + word.trailing_zeros() as usize;
                    word &= word - 1;
                    rows[at * per + place / 64] |= 1 << (place % 64);
                }
            }
        }
        let mut rows: Vec<&[u64]> = rows.chunks(per).collect();
        rows.sort_unstable();
        let kept = |row: &[u64]| row.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        let runs: Vec<(usize, usize)> = rows.chunk_by(|a, b| a == b).map(|run| (kept(run[0]), run.len())).collect();
        let times = |bits: usize| runs.iter().filter(|(kept, _)| *kept == bits).map(|(_, times)| times).sum();
        let entropy = runs.iter().map(|&(_, times)| {
            let share = times as f64 / length as f64;
            -share * share.log2()
        });
        Self {
            all_zero: times(0),
            all_one: times(members.len()),
            distinct: runs.len(),
            repeated: runs.iter().filter(|(_, times)| *times > 1).count(),
            // Without this, one pattern has the entropy -0.
            entropy: entropy.sum::<f64>() + 0.0,
        }
    }
}

/// The expected number of distinct patterns and the expected plug-in entropy of `length` rows, drawn independently
/// with the members' densities. Undefined for groups with more than 2^16 kinds of patterns.
pub(super) fn by_chance(mask: &Mask, members: &[usize]) -> (f64, f64) {
    let Some(kinds) = kinds(mask, members) else { return (f64::NAN, f64::NAN) };
    let length = mask.length();
    // c log2 c for every count, once.
    let terms: Vec<f64> = (0..=length)
        .map(|count| {
            let share = count as f64 / length as f64;
            if count == 0 { 0.0 } else { -share * share.log2() }
        })
        .collect();
    let mut sums = (0.0, 0.0);
    for (chance, times) in kinds {
        let seen = if chance >= 1.0 { 1.0 } else { -(length as f64 * (-chance).ln_1p()).exp_m1() };
        sums.0 += times * seen;
        sums.1 += times * expected_term(chance, &terms);
    }
    (sums.0, sums.1 + 0.0)
}

/// The chance of every kind of pattern, not 0, and how many patterns are of that kind. Members that keep as many
/// positions are alike: a kind is how many of each sort are kept.
fn kinds(mask: &Mask, members: &[usize]) -> Option<Vec<(f64, f64)>> {
    let mut kept: Vec<usize> = members.iter().map(|&member| mask.kept(member)).collect();
    kept.sort_unstable();
    let mut kinds = vec![(1.0, 1.0)];
    for sort in kept.chunk_by(|a, b| a == b) {
        if kinds.len() * (sort.len() + 1) > KINDS {
            return None;
        }
        let density = sort[0] as f64 / mask.length() as f64;
        let mut ways = 1.0;
        let mut next = Vec::with_capacity(kinds.len() * (sort.len() + 1));
        for some in 0..=sort.len() {
            let chance = density.powi(some as i32) * (1.0 - density).powi((sort.len() - some) as i32);
            let of = kinds.iter().map(|&(before, times)| (before * chance, times * ways));
            next.extend(of.filter(|&(chance, _)| chance > 0.0));
            ways *= ratio((sort.len() - some) as f64, (some + 1) as f64);
        }
        kinds = next;
    }
    Some(kinds)
}

/// The mean of `terms[c]` for c of a binomial distribution over the length with that chance, `terms[0]` being 0.
/// Probabilities follow from their neighbour, from the likeliest count down and up until they no longer matter.
fn expected_term(chance: f64, terms: &[f64]) -> f64 {
    let length = terms.len() - 1;
    if chance >= 1.0 {
        return terms[length];
    }
    let odds = chance / (1.0 - chance);
    let likeliest = (((length + 1) as f64 * chance) as usize).min(length);
    let start = log_binomial(length, likeliest, chance).exp();
    let mut sum = start * terms[likeliest];
    let mut probability = start;
    for count in likeliest..length {
        probability *= (length - count) as f64 / (count + 1) as f64 * odds;
        if probability < start * 1e-20 {
            break;
        }
        sum += probability * terms[count + 1];
    }
    probability = start;
    for count in (1..=likeliest).rev() {
        probability *= count as f64 / ((length - count + 1) as f64 * odds);
        if probability < start * 1e-20 {
            break;
        }
        sum += probability * terms[count - 1];
    }
    sum
}

/// The logarithm of a binomial probability by Loader's saddle point: as exact for a million rows as for ten.
fn log_binomial(n: usize, count: usize, chance: f64) -> f64 {
    let (n, x) = (n as f64, count as f64);
    if count == 0 {
        return n * (-chance).ln_1p();
    }
    if x == n {
        return n * chance.ln();
    }
    let deviance = deviance(x, n * chance) + deviance(n - x, n * (1.0 - chance));
    stirling_error(n) - stirling_error(x) - stirling_error(n - x) - deviance
        + 0.5 * (n / (std::f64::consts::TAU * x * (n - x))).ln()
}

/// x ln(x / mean) + mean - x, without cancellation where they are near.
fn deviance(x: f64, mean: f64) -> f64 {
    if (x - mean).abs() < 0.1 * (x + mean) {
        let v = (x - mean) / (x + mean);
        let mut sum = (x - mean) * v;
        let mut power = 2.0 * x * v;
        for j in 1..1000 {
            power *= v * v;
            let next = sum + power / (2 * j + 1) as f64;
            if next == sum {
                break;
            }
            sum = next;
        }
        return sum;
    }
    x * (x / mean).ln() + mean - x
}

/// ln n! minus Stirling's formula.
fn stirling_error(n: f64) -> f64 {
    if n < 16.0 {
        // Exact factorials: 15! is below 2^53.
        let factorial: f64 = (1..=n as u64).map(|i| i as f64).product();
        return factorial.ln() - (0.5 * (std::f64::consts::TAU * n).ln() + n * n.ln() - n);
    }
    let square = n * n;
    let series = [1.0 / 12.0, 1.0 / 360.0, 1.0 / 1260.0, 1.0 / 1680.0, 1.0 / 1188.0];
    let tail = (series[3] - series[4] / square) / square;
    (series[0] - (series[1] - (series[2] - tail) / square) / square) / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_counted() {
        let mask = Mask::from_fn(3, 4, |feature, at| [0b101, 0b101, 0, 0b111][at] >> feature & 1 == 1);
        let found = Patterns::of(&mask, &[0, 1, 2]);
        assert_eq!((found.all_zero, found.all_one, found.distinct, found.repeated, found.entropy), (1, 1, 3, 1, 1.5));
        let one = Patterns::of(&mask, &[1]);
        assert_eq!((one.all_zero, one.all_one, one.distinct), (3, 1, 2));
        // More than a word of members.
        let wide = Mask::from_fn(70, 90, |feature, at| (feature == 66 && at < 45) || feature == 3);
        let found = Patterns::of(&wide, &(0..70).collect::<Vec<_>>());
        assert_eq!((found.distinct, found.entropy, found.all_zero), (2, 1.0, 0));
        let (distinct, entropy) = by_chance(&wide, &(0..70).collect::<Vec<_>>());
        assert!((distinct - 2.0).abs() < 1e-9 && (0.9..1.0).contains(&entropy), "{distinct} {entropy}");
    }

    #[test]
    fn expectations_are_sums_over_a_binomial_distribution() {
        // scipy: p = 0.3 ** i * 0.7 ** (4 - i); sum of comb(4, i) (1 - (1 - p) ** 50), and of
        // comb(4, i) sum(binom.pmf(c, 50, p) * -(c / 50) * log2(c / 50) for c in 1..51)
        let mask = Mask::from_fn(4, 50, |feature, at| (at + feature) % 50 < 15);
        let (distinct, entropy) = by_chance(&mask, &[0, 1, 2, 3]);
        assert!((distinct - 13.146678822347681).abs() < 1e-12 * distinct, "{distinct}");
        assert!((entropy - 3.2872838598945786).abs() < 1e-12 * entropy, "{entropy}");
    }

    #[test]
    fn constant_members_and_too_many_kinds() {
        let mask = Mask::from_fn(40, 1000, |feature, at| feature == 1 || (feature > 1 && at < feature * 20));
        assert_eq!(by_chance(&mask, &[0, 1]), (1.0, 0.0));
        assert!(by_chance(&mask, &(2..20).collect::<Vec<_>>()).0.is_nan());
        assert!(by_chance(&mask, &(2..18).collect::<Vec<_>>()).0 > 16.0);
    }

    #[test]
    fn probabilities_are_exact_far_out() {
        // Python, decimal with 60 digits: comb(n, k).ln() + k * p.ln() + (n - k) * (1 - p).ln()
        let expected = [
            (50, 15, 0.3, -2.100895138499625),
            (11008, 43, 0.00390625, -2.799519620642144),
            (100000, 50123, 0.5, -6.284833864523785),
        ];
        for (n, count, chance, expected) in expected {
            let found = log_binomial(n, count, chance);
            assert!((found - expected).abs() < 2e-12, "{n} {count}: {found} {expected}");
        }
    }
}
