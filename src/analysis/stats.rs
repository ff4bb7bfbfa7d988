//! Statistics: means, deviations, quantiles, and intervals over repeats.
//!
//! An undefined number is NaN: it is left out of means and counted. Nothing undefined becomes 0 or infinite.

/// A quotient; undefined where the divisor is 0.
pub(super) fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { f64::NAN } else { a / b }
}

/// The mean; undefined for nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    ratio(values.iter().sum(), values.len() as f64)
}

/// The standard deviation over n - `ddof`; undefined where that is not positive.
pub(super) fn sd(values: &[f64], ddof: usize) -> f64 {
    if values.len() <= ddof {
        return f64::NAN;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (squares / (values.len() - ddof) as f64).sqrt()
}

/// The quantile of ascending numbers, interpolated at q (n - 1); undefined for nothing.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let low = (at.floor() as usize).min(last);
    let high = (low + 1).min(last);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}

/// A figure over repeats: references, seeds, or runs of a null model.
#[derive(Clone, Copy, Debug)]
pub struct Repeats {
    /// Repeats, undefined ones among them.
    pub n: usize,
    /// Repeats whose figure is undefined; nothing below looks at them.
    pub n_undefined: usize,
    /// Their mean.
    pub mean: f64,
    /// Over n - 1; undefined for one.
    pub sd: f64,
    /// Below the mean by t(0.975, n - 1) sd / sqrt(n).
    pub ci_lo: f64,
    /// Above it by as much.
    pub ci_hi: f64,
    /// sd / mean.
    pub cv: f64,
}

impl Repeats {
    /// Of the figures of repeats.
    ///
    /// ```
    /// # use sparsify_exp::analysis::Repeats;
    /// let repeats = Repeats::of(&[1.0, f64::NAN, 3.0]);
    /// assert_eq!((repeats.n, repeats.n_undefined, repeats.mean), (3, 1, 2.0));
    /// ```
    pub fn of(values: &[f64]) -> Self {
        let defined: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        let (mean, sd) = (mean(&defined), sd(&defined, 1));
        let half = if defined.len() < 2 {
            f64::NAN
        } else {
            t_quantile_975(defined.len() - 1) * sd / (defined.len() as f64).sqrt()
        };
        Self {
            n: values.len(),
            n_undefined: values.len() - defined.len(),
            mean,
            sd,
            ci_lo: mean - half,
            ci_hi: mean + half,
            cv: ratio(sd, mean),
        }
    }

    /// Of the differences `b - a` of repeats that two sources share, the same reference or seed at the same place.
    /// A pair of which one is undefined is undefined. `cv` of a difference means nothing and is undefined.
    ///
    /// # Panics
    /// When there are not as many of one as of the other.
    pub fn paired(a: &[f64], b: &[f64]) -> Self {
        assert_eq!(a.len(), b.len(), "repeats are paired one to one");
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
        Self { cv: f64::NAN, ..Self::of(&differences) }
    }
}

/// The 0.975 quantile of Student's t with this many degrees of freedom, not 0.
///
/// With t = sqrt(v) tan(a), the probability between -t and t is a finite series in cos(a) (Abramowitz and Stegun,
/// 26.7.3 and 26.7.4), which is inverted by bisection.
fn t_quantile_975(freedom: usize) -> f64 {
    let inside = |angle: f64| {
        let (sin, cos) = angle.sin_cos();
        let odd = freedom % 2 == 1;
        // Odd: sum of cos, 2/3 cos^3, 2*4/(3*5) cos^5, ...; even: 1, 1/2 cos^2, 1*3/(2*4) cos^4, ...
        let (mut term, mut sum) = (if odd { cos } else { 1.0 }, 0.0);
        for i in 0..freedom / 2 {
            sum += term;
            let step =
                if odd { (2 * i + 2) as f64 / (2 * i + 3) as f64 } else { (2 * i + 1) as f64 / (2 * i + 2) as f64 };
            term *= step * cos * cos;
        }
        if odd { (angle + sin * sum) * std::f64::consts::FRAC_2_PI } else { sin * sum }
    };
    let (mut low, mut high) = (0.0, std::f64::consts::FRAC_PI_2);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if inside(middle) < 0.95 { low = middle } else { high = middle }
    }
    (freedom as f64).sqrt() * low.tan()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_t_are_those_of_scipy() {
        // scipy.stats.t.ppf(0.975, v)
        let expected = [
            (1, 12.706204736174694),
            (2, 4.302652729749462),
            (3, 3.1824463052837078),
            (9, 2.262157162798205),
            (10, 2.228138851986274),
            (99, 1.9842169515864174),
            (1000, 1.9623390808264083),
        ];
        for (freedom, expected) in expected {
            let found = t_quantile_975(freedom);
            assert!((found - expected).abs() < 2e-12 * expected, "{freedom}: {found} {expected}");
        }
    }

    #[test]
    fn intervals_and_what_is_undefined() {
        let repeats = Repeats::of(&[2.0, 4.0, 4.0, 6.0]);
        // scipy.stats.t.interval(0.95, 3, 4, scipy.stats.sem([2, 4, 4, 6]))
        assert!(
            (repeats.ci_lo - 1.4015434727497782).abs() < 1e-12 && (repeats.ci_hi - 6.598456527250222).abs() < 1e-12
        );
        assert!((repeats.sd - (8.0f64 / 3.0).sqrt()).abs() < 1e-15 && (repeats.cv - repeats.sd / 4.0).abs() < 1e-15);
        let one = Repeats::of(&[5.0]);
        assert!(one.mean == 5.0 && one.sd.is_nan() && one.ci_lo.is_nan() && one.cv.is_nan());
        assert!(Repeats::of(&[]).mean.is_nan() && Repeats::of(&[f64::NAN]).n_undefined == 1);
        assert!(Repeats::of(&[1.0, -1.0]).cv.is_nan());
        let paired = Repeats::paired(&[1.0, 2.0, f64::NAN], &[2.0, 5.0, 1.0]);
        assert!(paired.mean == 2.0 && paired.n_undefined == 1 && paired.cv.is_nan());
    }

    #[test]
    fn quantiles_are_interpolated() {
        // numpy.quantile([1, 2, 4, 8], q)
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!([0.0, 0.25, 0.5, 0.9, 1.0].map(|q| quantile(&sorted, q)), [1.0, 1.75, 3.0, 6.800000000000001, 8.0]);
        assert!(quantile(&[], 0.5).is_nan() && quantile(&[3.0], 0.7) == 3.0 && sd(&sorted, 0) > 0.0);
    }
}
