//! Cosines and sines of a number at frequencies that grow exponentially (diffusers' `StableAudio3ExpoFourierFeatures`).

use std::f32::consts::PI;

/// `count` frequencies from `least` to `largest`, computed in float32 as PyTorch does. The angles of the largest
/// frequencies are so large that other roundings would be visible in the features.
pub(super) fn frequencies(count: usize, least: f64, largest: f64) -> Vec<f32> {
    let (low, high) = (libm::log(least), libm::log(largest));
    let last = count.saturating_sub(1);
    let step = 1.0 / last.max(1) as f32;
    // `torch.linspace` counts from both ends, with one rounding for each number.
    let ramp = |i: usize| match i < count / 2 {
        true => i as f32 * step,
        false => (1.0 - f64::from(step) * (last - i) as f64) as f32,
    };
    let exponent = |i| ramp(i) * (high - low) as f32 + low as f32;
    (0..count).map(|i| libm::exp(f64::from(exponent(i))) as f32).collect()
}

/// The cosines, then the sines, of 2π · frequency · value, with PyTorch's roundings.
pub(super) fn fourier_features(value: f32, frequencies: &[f32]) -> impl Iterator<Item = f32> {
    let angles = move || frequencies.iter().map(move |frequency| value * frequency * 2.0 * PI);
    angles().map(libm::cosf).chain(angles().map(libm::sinf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_those_of_pytorch() {
        // torch.exp(torch.linspace(0, 1, 16) * (log(1e4) - log(0.5)) + log(0.5)), of PyTorch 2.15.
        let pytorch = [
            0.5,
            0.967_621_15,
            1.872_581_4,
            3.623_898_7,
            7.013_122,
            13.572_087,
            26.265_284,
            50.829_69,
            98.367_676,
            190.365_28,
            368.402_95,
            712.949_34,
            1_379.729_6,
            2_670.109_9,
            5_167.312,
            10_000.001f32,
        ];
        for (made, expected) in frequencies(16, 0.5, 10_000.0).into_iter().zip(pytorch) {
            assert!((made / expected - 1.0).abs() < 1.2e-7, "{made} and {expected}");
        }
    }

    #[test]
    fn features_lie_on_circles() {
        let features: Vec<f32> = fourier_features(0.3, &[0.5, 2.0, 100.0]).collect();
        for i in 0..3 {
            assert!((features[i].powi(2) + features[3 + i].powi(2) - 1.0).abs() < 1e-6);
        }
        assert!((features[0] - 0.587_785_24).abs() < 1e-6, "cos 0.3π, {}", features[0]);
    }
}
