//! Quantiles of the symmetric beta distribution, for beta sigmas (arXiv:2407.12173).

/// The `p` quantile of Beta(a, a), found by bisection; 60 halvings reach double precision.
pub(super) fn quantile(p: f64, a: f64) -> f64 {
    if p > 0.5 {
        return 1.0 - quantile(1.0 - p, a);
    }
    // Half of the probability mass lies below 0.5, which gives the normalizing constant without a gamma function.
    let half = unscaled_cdf(0.5, a);
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if unscaled_cdf(middle, a) < 2.0 * p * half {
            low = middle;
        } else {
            high = middle;
        }
    }
    // The quantile of probability zero is zero. Bisection alone would return the smallest number that it reaches.
    if p > 0.0 { high } else { 0.0 }
}

/// `∫_0^x u^(a-1) (1-u)^(a-1) du` by its power series (DLMF 8.17.8 with `_2F_1` written out). Needs `x ≤ 1/2`, where
/// each term is at most half of the term before it.
fn unscaled_cdf(x: f64, a: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 0.0);
    for i in 0..60 {
        let i = f64::from(i);
        sum += term / (a + i);
        term *= x * (i + 1.0 - a) / (i + 1.0);
    }
    libm::pow(x, a) * sum
}
