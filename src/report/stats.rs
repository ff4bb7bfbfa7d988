//! Means and spreads of a table's numbers.

/// The mean, of at least one value.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample standard deviation, of at least two values.
pub(super) fn sd(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    Some((values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_needs_two_values() {
        assert_eq!((mean(&[]), sd(&[]), sd(&[1.0])), (None, None, None));
        assert_eq!((mean(&[1.0, 3.0]), sd(&[1.0, 3.0])), (Some(2.0), Some(2.0f64.sqrt())));
    }
}
