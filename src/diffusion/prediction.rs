//! What a network's raw answer means: ε, v or x0.

use super::latents::Latents;
use super::point::Point;

/// diffusers' `prediction_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise ε.
    Epsilon,
    /// `v = α ε − σ x0` (Salimans and Ho 2022, arXiv:2202.00512).
    Velocity,
    /// x0 itself.
    Sample,
}

impl Prediction {
    pub fn name(self) -> &'static str {
        match self {
            Prediction::Epsilon => "epsilon",
            Prediction::Velocity => "v_prediction",
            Prediction::Sample => "sample",
        }
    }

    /// x0 of a state and the network's answer at `now`.  The state is `scale · (α x0 + σ ε)`: 1 for variance-preserving
    /// samplers, `1/α` for those that run on `x/α`.
    pub(super) fn x0(self, x: &Latents, raw: &Latents, now: &Point, scale: f64) -> Latents {
        let Point { alpha, sigma, .. } = *now;
        match self {
            Prediction::Epsilon => Latents::combine(&[(1.0 / (alpha * scale), x), (-sigma / alpha, raw)]),
            Prediction::Velocity => Latents::combine(&[(alpha / scale, x), (-sigma, raw)]),
            Prediction::Sample => raw.clone(),
        }
    }

    /// ε of a variance-preserving state and the network's answer at `now`.
    pub(super) fn epsilon(self, x: &Latents, raw: &Latents, now: &Point) -> Latents {
        let Point { alpha, sigma, .. } = *now;
        match self {
            Prediction::Epsilon => raw.clone(),
            Prediction::Velocity => Latents::combine(&[(sigma, x), (alpha, raw)]),
            Prediction::Sample => Latents::combine(&[(1.0 / sigma, x), (-alpha / sigma, raw)]),
        }
    }
}

/// What is done to a predicted x0 before it is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    Nothing,
    /// `clip_sample`: into `[-range, range]`.
    Range(f32),
    /// `thresholding`: into the `ratio` quantile of `|x0|`, kept in `[1, max]`, then divided by it
    /// (section 2.3 of Saharia et al. 2022, arXiv:2205.11487).
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

/// The quantile of `|x|`, linear between neighbours, as `torch.quantile`.
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
