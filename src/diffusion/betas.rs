//! The noise that training adds at each timestep, in torch's float32 arithmetic.
//!
//! Sums and products follow torch's order and precision, because torch's rounding is part of the definition of the
//! noise levels.

use std::sync::Arc;

/// `β_t` and `ᾱ_t = Π (1 − β_s)` for the `T` training timesteps.
#[derive(Debug, Clone, PartialEq)]
pub struct Betas {
    betas: Arc<[f32]>,
    alphas_cumprod: Arc<[f32]>,
}

/// diffusers' `beta_schedule`: how β runs over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BetaSchedule {
    /// Evenly spaced β.
    Linear,
    /// Evenly spaced `√β`.
    ScaledLinear,
    /// Cosine schedule of Nichol and Dhariwal (2021), arXiv:2102.09672, equation 17.
    SquaredcosCapV2,
    /// `ᾱ = e^(−12 t)`.
    Exp,
    /// The logarithms of the signal-to-noise ratio follow a Laplace distribution (Hang et al. 2024, arXiv:2407.03297).
    Laplace,
    /// A sigmoid over `[-6, 6]`, scaled to run from the first β to the last.
    Sigmoid,
}

impl BetaSchedule {
    /// `count` betas from `start` to `end`. Schedules that are defined by `ᾱ` ignore `start` and `end`.
    pub(super) fn betas(self, start: f64, end: f64, count: usize) -> Vec<f32> {
        match self {
            BetaSchedule::Linear => linspace(start as f32, end as f32, count),
            BetaSchedule::ScaledLinear => {
                let roots = linspace(libm::sqrt(start) as f32, libm::sqrt(end) as f32, count);
                roots.into_iter().map(|root| root * root).collect()
            }
            BetaSchedule::SquaredcosCapV2 => of_alpha_bar(count, |t| {
                let cos = libm::cos((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2);
                cos * cos
            }),
            BetaSchedule::Exp => of_alpha_bar(count, |t| libm::exp(-12.0 * t)),
            BetaSchedule::Laplace => of_alpha_bar(count, |t| {
                let log_snr = -0.5 * (0.5 - t).signum() * libm::log(1.0 - 2.0 * (0.5 - t).abs() + 1e-6);
                let snr = libm::exp(log_snr);
                libm::sqrt(snr / (1.0 + snr))
            }),
            BetaSchedule::Sigmoid => {
                let sigmoid = |x: f32| 1.0 / (1.0 + libm::expf(-x));
                let (start, range) = (start as f32, (end - start) as f32);
                linspace(-6.0, 6.0, count).into_iter().map(|x| sigmoid(x) * range + start).collect()
            }
        }
    }
}

/// The betas that give `ᾱ(t)`, with `t` from 0 to 1 (diffusers' `betas_for_alpha_bar`).
fn of_alpha_bar(count: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let alpha_bar = |i: usize| alpha_bar(i as f64 / count as f64);
    (0..count).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32).collect()
}

impl Betas {
    pub(super) fn new(betas: Vec<f32>) -> Betas {
        let mut product = 1.0;
        let cumprod = |beta: &f32| {
            product *= f64::from(1.0 - beta);
            product as f32
        };
        let alphas_cumprod = betas.iter().map(cumprod).collect();
        Betas { betas: betas.into(), alphas_cumprod }
    }

    /// Algorithm 1 of Lin et al. (2023), arXiv:2305.08891: rescales the betas so that the last timestep has no signal.
    /// Returns `None` if there is no noise to rescale, or if a rescaled beta is outside of [0, 1].
    pub(super) fn rescaled_to_zero_terminal_snr(&self) -> Option<Betas> {
        let roots: Vec<f32> = self.alphas_cumprod.iter().map(|a| a.sqrt()).collect();
        let (first, last) = (*roots.first()?, *roots.last()?);
        if first <= last {
            return None;
        }
        let factor = first / (first - last);
        let alphas_bar = roots.iter().map(|root| {
            let root = (root - last) * factor;
            root * root
        });
        let mut before = 1.0;
        let betas = alphas_bar.map(|alpha_bar: f32| {
            let alpha = alpha_bar / before;
            before = alpha_bar;
            1.0 - alpha
        });
        let betas: Vec<f32> = betas.collect();
        betas.iter().all(|beta| (0.0..=1.0).contains(beta)).then(|| Betas::new(betas))
    }

    /// Replaces the last `ᾱ` by 2⁻²⁴, as diffusers' Euler and DPM-Solver classes do, so that σ/α stays finite (4096).
    pub(super) fn with_finite_end(mut self) -> Betas {
        let mut alphas_cumprod = self.alphas_cumprod.to_vec();
        if let Some(last) = alphas_cumprod.last_mut() {
            *last = 1.0 / (1 << 24) as f32;
        }
        self.alphas_cumprod = alphas_cumprod.into();
        self
    }

    /// `β_t`, `T` values.
    pub fn betas(&self) -> &[f32] {
        &self.betas
    }

    /// `ᾱ_t`, `T` values that do not rise.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }
}

/// `torch.linspace` in float32. Counts from both ends towards the middle and rounds each value once, as torch does.
pub(super) fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    if count == 1 {
        return vec![start];
    }
    let step = f64::from((end - start) / (count - 1) as f32);
    let value = |i: usize| {
        if i < count / 2 { f64::from(start) + step * i as f64 } else { f64::from(end) - step * (count - 1 - i) as f64 }
    };
    (0..count).map(|i| value(i) as f32).collect()
}
