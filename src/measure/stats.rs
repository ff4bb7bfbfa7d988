//! Statistics of samples.

/// The mean; NaN of no samples.
pub fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

/// The sample standard deviation (n − 1); NaN of fewer than two samples.
pub fn sd(samples: &[f64]) -> f64 {
    if samples.len() < 2 {
        return f64::NAN;
    }
    let mean = mean(samples);
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (squares / (samples.len() - 1) as f64).sqrt()
}

/// The `q`-quantile, 0 ≤ q ≤ 1, with linear interpolation between samples; NaN of no samples.
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_numpys() {
        let samples = [4.0, 1.0, 3.0, 10.0];
        assert_eq!(mean(&samples), 4.5);
        // numpy.std(samples, ddof=1), numpy.quantile(samples, ...)
        assert!((sd(&samples) - 3.872_983_346_207_417).abs() < 1e-15);
        for (q, expected) in [(0.0, 1.0), (0.25, 2.5), (0.5, 3.5), (0.95, 9.1), (1.0, 10.0)] {
            assert!((quantile(&samples, q) - expected).abs() < 1e-12, "{q}");
        }
    }

    #[test]
    fn too_few_samples_give_no_number() {
        assert!(mean(&[]).is_nan() && quantile(&[], 0.5).is_nan() && sd(&[1.0]).is_nan());
        assert_eq!((mean(&[2.0]), quantile(&[2.0], 0.95)), (2.0, 2.0));
    }
}
