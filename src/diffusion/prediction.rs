//! The meaning of raw network outputs (ε, v, x0, score or flow velocity), and clipping of x0.

use super::latents::Latents;
use super::point::Point;

/// What the network predicts: a value of diffusers' `prediction_type`, or a form that only some classes of diffusers
/// use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prediction {
    /// The noise ε.
    Epsilon,
    /// `v = α ε − σ x0` (Salimans and Ho 2022, arXiv:2202.00512).
    Velocity,
    /// x0 itself.
    Sample,
    /// The score `∇ ln p(x) = −ε/σ` of a state `x0 + σ ε`.
    Score,
    /// The velocity `ε − x0` of a flow `x = (1 − σ) x0 + σ ε`.
    Flow,
    /// `F` of Karras et al. (2022), arXiv:2206.00364, equation 7, for states `x0 + σ ε`; if `negated`, the network
    /// gives `−F`.
    Preconditioned { sigma_data: f64, negated: bool },
    /// As `Preconditioned`, not negated, with the boundary condition of Song et al. (2023), arXiv:2303.01469, appendix
    /// C: at `sigma_min`, the predicted x0 equals the state.
    Boundary { sigma_data: f64, sigma_min: f64 },
}

impl Prediction {
    /// diffusers' word for the prediction, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Prediction::Epsilon => "epsilon",
            Prediction::Velocity => "v_prediction",
            Prediction::Sample => "sample",
            Prediction::Score => "score",
            Prediction::Flow => "flow_prediction",
            Prediction::Preconditioned { negated: true, .. } => "v_prediction",
            Prediction::Preconditioned { .. } | Prediction::Boundary { .. } => "epsilon",
        }
    }

    /// The factor that scales a state `x0 + (σ/α) ε` for the network.
    pub(super) fn input_scale(self, now: &Point) -> f64 {
        match self {
            Prediction::Preconditioned { sigma_data, .. } | Prediction::Boundary { sigma_data, .. } => {
                1.0 / libm::hypot(now.sigma, sigma_data)
            }
            _ => now.alpha,
        }
    }

    /// x0 from a state and the raw network output at `now`. The state is `scale · (α x0 + σ ε)`; `scale` is `1/α` for
    /// samplers that work on `x/α`, and otherwise 1.
    pub(super) fn x0(self, x: &Latents, raw: &Latents, now: &Point, scale: f64) -> Latents {
        let Point { alpha, sigma, .. } = *now;
        match self {
            Prediction::Epsilon => Latents::combine(&[(1.0 / (alpha * scale), x), (-sigma / alpha, raw)]),
            Prediction::Velocity => Latents::combine(&[(alpha / scale, x), (-sigma, raw)]),
            Prediction::Sample => raw.clone(),
            Prediction::Score => Latents::combine(&[(1.0, x), (sigma * sigma, raw)]),
            Prediction::Flow => Latents::combine(&[(1.0, x), (-sigma, raw)]),
            Prediction::Preconditioned { sigma_data, negated } => {
                let skip = sigma_data * sigma_data / (sigma * sigma + sigma_data * sigma_data);
                let out = sigma * sigma_data / libm::hypot(sigma, sigma_data);
                Latents::combine(&[(skip, x), (if negated { -out } else { out }, raw)])
            }
            Prediction::Boundary { sigma_data, sigma_min } => {
                let above = sigma - sigma_min;
                let skip = sigma_data * sigma_data / (above * above + sigma_data * sigma_data);
                let out = above * sigma_data / libm::hypot(sigma, sigma_data);
                Latents::combine(&[(skip, x), (out, raw)])
            }
        }
    }

    /// The factor `k` of guidance by a gradient `g = s ∇ ln p(y | x)`: the raw network output plus `k g` predicts
    /// `ε − σ g` instead of ε (algorithm 2 of Dhariwal and Nichol 2021, arXiv:2105.05233). `x` is the state as the
    /// network receives it. At `α = 0`, a state says nothing about the class `y`, so there the factor is 0; schedules
    /// for networks that predict ε never start there.
    pub(crate) fn gradient_factor(self, now: &Point) -> f64 {
        let Point { alpha, sigma, .. } = *now;
        match self {
            Prediction::Epsilon => -sigma,
            _ if alpha == 0.0 => 0.0,
            Prediction::Velocity | Prediction::Flow => -sigma / alpha,
            Prediction::Sample => sigma * sigma / alpha,
            Prediction::Score => 1.0,
            Prediction::Preconditioned { sigma_data, negated } => {
                let factor = sigma / sigma_data;
                if negated { -factor } else { factor }
            }
            // At `sigma_min` the predicted x0 is the state, whatever the network returns.
            Prediction::Boundary { sigma_min, .. } if sigma <= sigma_min => 0.0,
            Prediction::Boundary { sigma_data, sigma_min } => sigma * sigma / ((sigma - sigma_min) * sigma_data),
        }
    }

    /// ε from a state `α x0 + σ ε` and the raw network output at `now`.
    pub(super) fn epsilon(self, x: &Latents, raw: &Latents, now: &Point) -> Latents {
        let Point { alpha, sigma, .. } = *now;
        match self {
            Prediction::Epsilon => raw.clone(),
            Prediction::Velocity => Latents::combine(&[(sigma, x), (alpha, raw)]),
            Prediction::Sample => Latents::combine(&[(1.0 / sigma, x), (-alpha / sigma, raw)]),
            Prediction::Flow => Latents::combine(&[(1.0, x), (alpha, raw)]),
            Prediction::Score => raw.scale(-sigma),
            Prediction::Preconditioned { .. } | Prediction::Boundary { .. } => {
                Prediction::Sample.epsilon(x, &self.x0(x, raw, now, 1.0), now)
            }
        }
    }
}

/// How a predicted x0 is clipped before use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    Nothing,
    /// `clip_sample`: clamps to `[-range, range]`.
    Range(f32),
    /// `thresholding`: clamps to `[-s, s]` and divides by `s`, where `s` is the `ratio` quantile of `|x0|`, clamped to
    /// `[1, max]` (section 2.3 of Saharia et al. 2022, arXiv:2205.11487).
    Dynamic {
        ratio: f32,
        max: f32,
    },
}

impl Clip {
    pub(super) fn apply(self, x0: Latents) -> Latents {
        match self {
            Clip::Nothing => x0,
            Clip::Range(range) => x0.each_row(|row| row.iter_mut().for_each(|x| *x = x.clamp(-range, range))),
            Clip::Dynamic { ratio, max } => x0.each_row(|row| {
                let s = quantile(row, ratio).max(1.0).min(max);
                row.iter_mut().for_each(|x| *x = x.clamp(-s, s) / s);
            }),
        }
    }
}

/// The `ratio` quantile of `|x|` with linear interpolation, as `torch.quantile`.
fn quantile(row: &[f32], ratio: f32) -> f32 {
    let mut sorted: Vec<f32> = row.iter().map(|x| x.abs()).collect();
    sorted.sort_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let rank = ratio * last as f32;
    let below = (rank as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (rank - below as f32) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guidance by a gradient `g` changes the predicted noise from `ε` to `ε − σ c g`, whatever the network predicts.
    /// `c` is the factor by which the state is multiplied to get the input of the network (1 for most networks). `g` is
    /// the gradient with respect to this input, so `c g` is the gradient with respect to the state.
    #[test]
    fn guidance_by_a_gradient_changes_the_noise_equally_for_all_predictions() {
        let of = |value: f32| Latents::new([1, 1, 1, 1], vec![value]).unwrap();
        let (vp, flow, edm) = (Point::of_noise(1.0, 1.5), Point::of_flow(1.0, 0.3), Point::of_edm(1.0, 2.5));
        let cases = [
            (Prediction::Epsilon, vp),
            (Prediction::Velocity, vp),
            (Prediction::Sample, vp),
            (Prediction::Flow, flow),
            (Prediction::Score, edm),
            (Prediction::Preconditioned { sigma_data: 0.5, negated: false }, edm),
            (Prediction::Preconditioned { sigma_data: 0.5, negated: true }, edm),
            (Prediction::Boundary { sigma_data: 0.5, sigma_min: 0.002 }, edm),
        ];
        let (x, raw, gradient) = (of(0.7), of(-0.4), 0.2);
        for (prediction, now) in cases {
            let scale = match prediction {
                Prediction::Preconditioned { .. } | Prediction::Boundary { .. } => prediction.input_scale(&now),
                _ => 1.0,
            };
            let guided = Latents::combine(&[(1.0, &raw), (prediction.gradient_factor(&now), &of(gradient))]);
            let noise = |raw: &Latents| prediction.epsilon(&x, raw, &now).row(0)[0];
            let (change, expected) = (noise(&guided) - noise(&raw), -(now.sigma * scale) as f32 * gradient);
            assert!((change - expected).abs() < 1e-5, "{prediction:?}: {change}, not {expected}");
        }
    }

    #[test]
    fn without_signal_the_gradient_changes_nothing() {
        let start = Point { t: 1.0, alpha: 0.0, sigma: 1.0 };
        for prediction in [Prediction::Velocity, Prediction::Sample, Prediction::Flow] {
            assert_eq!(prediction.gradient_factor(&start), 0.0, "{prediction:?}");
        }
    }
}
