//! Means and spreads of a table's numbers, and whether two of them differ by more than chance.
//!
//! ```text
//!   Sample  a value for each seed      Contrast::of(a, b)   difference, spread, p ──> decided()
//! ```

use std::f64::consts::PI;

/// The fewest seeds that a verdict may rest on.
pub(super) const LEAST_SEEDS: usize = 3;
/// The largest p of a difference that is not put down to chance.
const ALPHA: f64 = 0.05;

/// The mean, of at least one value.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample standard deviation, of at least two values.
pub(super) fn sd(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    Some((values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt())
}

/// A number of a point, for each of its seeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// The seed, where the number depends on one, and the number.
    pub values: Vec<(Option<u64>, f64)>,
}

impl Sample {
    fn numbers(&self) -> Vec<f64> {
        self.values.iter().map(|(_, value)| *value).collect()
    }

    /// The mean over seeds, of at least one.
    pub fn mean(&self) -> Option<f64> {
        mean(&self.numbers())
    }

    /// Whether the number depends on a seed.
    pub fn seeded(&self) -> bool {
        self.values.iter().any(|(seed, _)| seed.is_some())
    }

    /// The standard deviation over seeds: 0 for what depends on none, nothing for one seed of what does.
    pub fn sd(&self) -> Option<f64> {
        if self.seeded() { sd(&self.numbers()) } else { Some(0.0) }
    }

    /// How many values there are.
    pub fn seeds(&self) -> usize {
        self.values.len()
    }

    /// Whether so few seeds were run that nothing can be said of chance.
    pub fn too_few(&self) -> bool {
        self.seeded() && self.seeds() < LEAST_SEEDS
    }
}

/// How two samples were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// Neither depends on a seed: the difference is what it is.
    Exact,
    /// Student's t of the differences at the seeds that both have.
    Paired,
    /// Welch's t.
    Welch,
}

impl Test {
    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Paired => "paired",
            Self::Welch => "welch",
        }
    }
}

/// The difference of two samples, and what the seeds say of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Contrast {
    pub test: Test,
    /// Mean of the first less mean of the second; at the shared seeds, where they are paired.
    pub difference: f64,
    /// The standard deviation of the differences, where they are paired; else the root of the sum of both variances.
    pub spread: Option<f64>,
    /// The probability of a difference at least as large where there is none, two-sided.
    pub p: Option<f64>,
    /// A side has fewer than [`LEAST_SEEDS`] seeds, or too few are shared.
    pub too_few: bool,
}

impl Contrast {
    /// Of two samples that have values.
    pub fn of(a: &Sample, b: &Sample) -> Option<Self> {
        let shared: Vec<f64> = pairs(a, b);
        let (mean_a, mean_b) = (a.mean()?, b.mean()?);
        if !a.seeded() && !b.seeded() {
            let difference = mean_a - mean_b;
            return Some(Self { test: Test::Exact, difference, spread: Some(0.0), p: None, too_few: false });
        }
        if shared.len() >= 2 {
            let (difference, spread) = (mean(&shared)?, sd(&shared)?);
            let n = shared.len() as f64;
            let p = p_of(difference, spread / n.sqrt(), n - 1.0);
            let too_few = shared.len() < LEAST_SEEDS;
            return Some(Self { test: Test::Paired, difference, spread: Some(spread), p, too_few });
        }
        let difference = mean_a - mean_b;
        let spread = a.sd().zip(b.sd()).map(|(a, b)| a.hypot(b));
        let p = spread.and_then(|_| welch(difference, a, b));
        Some(Self { test: Test::Welch, difference, spread, p, too_few: a.too_few() || b.too_few() })
    }

    /// Whether there are seeds enough, the difference is larger than the spread and its p is small; without seeds,
    /// whether there is a difference.
    pub fn decided(&self) -> bool {
        match self.test {
            Test::Exact => self.difference != 0.0,
            Test::Paired | Test::Welch => {
                let beyond = self.spread.is_some_and(|spread| self.difference.abs() > spread);
                !self.too_few && beyond && self.p.is_some_and(|p| p < ALPHA)
            }
        }
    }
}

/// The differences at the seeds that both have.
fn pairs(a: &Sample, b: &Sample) -> Vec<f64> {
    let at = |seed: u64| b.values.iter().find(|(other, _)| *other == Some(seed)).map(|(_, value)| *value);
    a.values.iter().filter_map(|(seed, value)| Some(value - at((*seed)?)?)).collect()
}

/// Welch's t-test of two samples with known spreads, whose degrees of freedom are those of Welch and Satterthwaite.
fn welch(difference: f64, a: &Sample, b: &Sample) -> Option<f64> {
    let error = |sample: &Sample| Some((sample.sd()?.powi(2) / sample.seeds() as f64, sample.seeds() as f64 - 1.0));
    let ((va, na), (vb, nb)) = (error(a)?, error(b)?);
    let share = |v: f64, n: f64| if v == 0.0 { 0.0 } else { v * v / n };
    let degrees = (va + vb).powi(2) / (share(va, na) + share(vb, nb));
    p_of(difference, (va + vb).sqrt(), degrees)
}

/// The two-sided p of a difference with a standard error.
fn p_of(difference: f64, error: f64, degrees: f64) -> Option<f64> {
    match (difference == 0.0, error == 0.0) {
        (true, true) => Some(1.0),
        // All seeds agree: the difference is as sure as it gets.
        (false, true) => Some(0.0),
        (_, false) => {
            let t = difference / error;
            Some(incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5))
        }
    }
}

/// The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun, 26.5.8),
/// evaluated by Lentz's method; about 14 digits.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast below the mean, and I_x(a, b) = 1 - I_{1-x}(b, a).
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    const TINY: f64 = 1e-300;
    let guard = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut c, mut d) = (1.0, 1.0 / guard(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..500u32 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for term in [even, odd] {
            d = 1.0 / guard(1.0 + term * d);
            c = guard(1.0 + term / c);
            step = c * d;
            fraction *= step;
        }
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    let front = a * x.ln() + b * (1.0 - x).ln() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b);
    front.exp() * fraction / a
}

/// The logarithm of the gamma function of a positive number: Stirling's series, from 10 upwards.
fn ln_gamma(mut x: f64) -> f64 {
    let mut product = 1.0;
    while x < 10.0 {
        product *= x;
        x += 1.0;
    }
    let (inverse, square) = (1.0 / x, 1.0 / (x * x));
    let series = [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0];
    let series = series.iter().rev().fold(0.0, |sum, term| sum * square + term) * inverse;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - product.ln()
}

/// The places, from 0 on, of the sorted values that enclose the median of what they are drawn from with a probability of
/// at least 90 %: the interval of the sign test, which assumes no distribution. None of fewer than five values.
fn median_interval(count: usize) -> Option<(usize, usize)> {
    let n = count as f64;
    let mut below = 0.0;
    let mut place = None;
    for k in 0..count / 2 {
        // The probability that exactly k values lie below the median.
        let log = ln_gamma(n + 1.0) - ln_gamma(k as f64 + 1.0) - ln_gamma(n - k as f64 + 1.0) - n * 2f64.ln();
        below += log.exp();
        if below > 0.05 {
            break;
        }
        place = Some((k, count - 1 - k));
    }
    place
}

/// The median of some values; NaN of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The interval of the median of some values, at 90 %.
pub(super) fn median_bounds(values: &[f64]) -> Option<(f64, f64)> {
    let (low, high) = median_interval(values.len())?;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some((sorted[low], sorted[high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[f64]) -> Sample {
        Sample { values: values.iter().enumerate().map(|(seed, v)| (Some(seed as u64), *v)).collect() }
    }

    fn fixed(value: f64) -> Sample {
        Sample { values: vec![(None, value)] }
    }

    #[test]
    fn spread_needs_two_values() {
        assert_eq!((mean(&[]), sd(&[]), sd(&[1.0])), (None, None, None));
        assert_eq!((mean(&[1.0, 3.0]), sd(&[1.0, 3.0])), (Some(2.0), Some(2.0f64.sqrt())));
    }

    #[test]
    fn p_is_that_of_scipy() {
        // scipy.stats.ttest_rel, ttest_ind(equal_var=False) and ttest_1samp of the same numbers.
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-9 * b.max(1e-3), "{a:?} and {b}");
        let (a, b) = (sample(&[63.67, 63.41, 63.92]), sample(&[63.46, 63.11, 63.70]));
        let paired = Contrast::of(&a, &b).unwrap();
        assert_eq!(paired.test, Test::Paired);
        near(paired.p, PAIRED);
        assert!(paired.decided());
        let apart = Sample { values: b.values.iter().map(|(seed, v)| (seed.map(|s| s + 10), *v)).collect() };
        let welch = Contrast::of(&a, &apart).unwrap();
        assert_eq!(welch.test, Test::Welch);
        near(welch.p, WELCH);
        assert!(!welch.decided());
        near(Contrast::of(&a, &fixed(64.1)).unwrap().p, ONE);
    }

    const PAIRED: f64 = 0.013423427536749763;
    const WELCH: f64 = 0.3432651682199361;
    const ONE: f64 = 0.09865551396189726;

    #[test]
    fn two_seeds_decide_nothing() {
        let contrast = Contrast::of(&sample(&[10.0, 10.1]), &sample(&[20.0, 20.1])).unwrap();
        assert!(contrast.too_few && !contrast.decided());
        let one = Contrast::of(&sample(&[10.0]), &fixed(20.0)).unwrap();
        assert!(one.too_few && one.spread.is_none() && one.p.is_none());
        assert!(Contrast::of(&fixed(1.0), &fixed(2.0)).unwrap().decided());
        assert!(!Contrast::of(&fixed(2.0), &fixed(2.0)).unwrap().decided());
    }

    #[test]
    fn a_median_lies_between_two_of_the_values() {
        // scipy.stats.binom.cdf(k, n, 0.5) is at most 0.05 up to k = 0 of 5, 0 of 6, 5 of 20 and 41 of 100.
        assert_eq!(
            [4, 5, 6, 20, 100].map(median_interval),
            [None, Some((0, 4)), Some((0, 5)), Some((5, 14)), Some((41, 58))]
        );
        assert_eq!(median_bounds(&[3.0, 1.0, 2.0, 6.0, 5.0, 4.0]), Some((1.0, 6.0)));
    }
}
