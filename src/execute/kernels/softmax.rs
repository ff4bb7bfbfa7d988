//! Sums of exponentials over a vocabulary: the arithmetic of every likelihood.
//!
//! Exponentials are f32, of a function that compilers turn into vector code; sums are kept in f64.

use super::exp::exp;

/// Sums kept side by side, so that the loops become vector code.
const LANES: usize = 16;
/// Elements after which the f32 sums go to f64: their rounding stays below that of the logits.
const BLOCK: usize = 16 * LANES;

/// The largest logit.
pub fn max(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The logarithm of the sum of exponentials.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    log_sum_exp_below(logits, max(logits))
}

/// As [`log_sum_exp`], where the largest logit is known.
pub fn log_sum_exp_below(logits: &[f32], max: f32) -> f64 {
    let mut sum = 0.0;
    for block in logits.chunks(BLOCK) {
        let mut lanes = [0.0f32; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &logit) in lanes.iter_mut().zip(chunk) {
                *lane += exp(logit - max);
            }
        }
        sum += lanes.iter().copied().chain(rest.iter().map(|&logit| exp(logit - max))).map(f64::from).sum::<f64>();
    }
    f64::from(max) + sum.ln()
}

/// KL(p ‖ q) of the distributions that two sets of logits stand for, in nats.
///
/// With weights w = exp(p − max p): Σ w (p − q) / Σ w − (log Σ exp p − log Σ exp q).
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let max = max(p);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (p, q) in p.chunks(BLOCK).zip(q.chunks(BLOCK)) {
        let (mut sums, mut products) = ([0.0f32; LANES], [0.0f32; LANES]);
        let ((p_chunks, p_rest), (q_chunks, q_rest)) = (p.as_chunks::<LANES>(), q.as_chunks::<LANES>());
        for (p, q) in p_chunks.iter().zip(q_chunks) {
            for lane in 0..LANES {
                let weight = exp(p[lane] - max);
                sums[lane] += weight;
                products[lane] += weight * (p[lane] - q[lane]);
            }
        }
        for (lane, (&p, &q)) in p_rest.iter().zip(q_rest).enumerate() {
            let weight = exp(p - max);
            sums[lane] += weight;
            products[lane] += weight * (p - q);
        }
        sum += sums.iter().copied().map(f64::from).sum::<f64>();
        weighted += products.iter().copied().map(f64::from).sum::<f64>();
    }
    let norm = f64::from(max) + sum.ln();
    // Rounding can leave a divergence of nearly equal distributions just below 0.
    (weighted / sum - (norm - log_sum_exp(q))).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_by_hand() {
        // p = (1/2, 1/2), q = (1/4, 3/4): ln(2)/2 + ln(2/3)/2.
        let expected = 0.5 * (2.0f64.ln() + (2.0f64 / 3.0).ln());
        assert!((divergence(&[1.0, 1.0], &[0.0, 3.0f32.ln()]) - expected).abs() < 1e-6);
        assert_eq!(divergence(&[3.0, -2.0, 0.5], &[3.0, -2.0, 0.5]), 0.0);
    }

    #[test]
    fn sums_match_float64() {
        let logits: Vec<f32> =
            (0..50_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 200.0 - 12.0).collect();
        let exact = logits.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
        assert!((log_sum_exp(&logits) - exact).abs() < 1e-6);
    }
}
