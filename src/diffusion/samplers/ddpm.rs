//! Ancestral sampling (DDPM, Ho et al. 2020, arXiv:2006.11239): diffusers' `DDPMScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::betas::BetaSchedule;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::posterior::{StepPosterior, Variance};
use crate::diffusion::prediction::Clip;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::trained_points;
use crate::diffusion::scheduler_config::keys::{CLIP_SAMPLE, Keys, SPACING, THRESHOLDING, TRAINING};
use crate::diffusion::scheduler_config::{Class, Name, Sampler, SchedulerConfig, Training, ZeroSignal};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    aliases: &["DDPMParallelScheduler"],
    names: &[Name::new("ddpm", "Ancestral sampling of Ho et al. (2020), noise in every step")],
    training: Training {
        beta_schedules: &[("laplace", BetaSchedule::Laplace), ("sigmoid", BetaSchedule::Sigmoid)],
        ..Training::PIXELS
    },
    spacing: "leading",
    zero_signal: ZeroSignal::WithoutEpsilon,
    ..Class::new("DDPMScheduler", KEYS, read)
};

const KEYS: &[&[&str]] =
    &[&TRAINING, &SPACING, &CLIP_SAMPLE, &THRESHOLDING, &["variance_type", "rescale_betas_zero_snr"]];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ddpm {
    variance_type: VarianceType,
    clip: Clip,
}

/// diffusers' `variance_type`: `β̃` of the posterior (small), `β` of the step (large), or a value between them that the
/// network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VarianceType {
    Small,
    Large,
    LearnedRange,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    // `fixed_small_log` gives the same variance as `fixed_small`. Two values are not supported: with `fixed_large_log`,
    // diffusers takes the root of a negative number, and no published file has `learned`.
    let words = [
        ("fixed_small", VarianceType::Small),
        ("fixed_small_log", VarianceType::Small),
        ("fixed_large", VarianceType::Large),
        ("learned_range", VarianceType::LearnedRange),
    ];
    Ok(Arc::new(Ddpm { variance_type: keys.word("variance_type", "fixed_small", &words)?, clip: keys.clip(true)? }))
}

impl Sampler for Ddpm {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok((trained_points(config, step_source, |_| -1.0)?, 1.0))
    }

    fn learns_variance(&self) -> bool {
        self.variance_type == VarianceType::LearnedRange
    }
}

/// Algorithm 2 of Ho et al. (2020) with states `x = α x0 + σ ε`; equations 6 and 7, which give the posterior, are
/// applied to a step between any two timesteps. Every step that does not start at timestep 0 draws noise. The gradient
/// of a classifier shifts the mean, also in the last step (algorithm 1 of Dhariwal and Nichol 2021, arXiv:2105.05233).
pub(super) async fn sample<D: Denoise>(options: &Ddpm, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    let Ddpm { variance_type, clip } = *options;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let StepPosterior { prediction, variance, gradient } = network.posterior(&x, now.t).await?;
        let x0 = clip.apply(network.prediction.x0(&x, &prediction, &now, 1.0));
        // α_t and β_t of the paper for the step from `now` to `next`.
        let alpha_t = (now.alpha * now.alpha) / (next.alpha * next.alpha);
        let beta_t = 1.0 - alpha_t;
        let (sigma2, sigma2_next) = (now.sigma * now.sigma, next.sigma * next.sigma);
        let mean_x0 = next.alpha * beta_t / sigma2;
        let mean_x = libm::sqrt(alpha_t) * sigma2_next / sigma2;
        let small = (beta_t * sigma2_next / sigma2).max(1e-20);
        let variance = match (variance_type, variance) {
            (VarianceType::Small, _) => Variance::One(small),
            (VarianceType::Large, _) => Variance::One(beta_t),
            (VarianceType::LearnedRange, None) => return Err(Error::NoVariance),
            (VarianceType::LearnedRange, Some(share)) => {
                let (least, most) = (libm::log(small), libm::log(beta_t));
                let middle = 0.5 * (least + most);
                Variance::Each(share.map(|v| libm::exp(middle + 0.5 * v * (most - least))))
            }
        };
        let shift = gradient.map(|gradient| variance.times(gradient, |variance| variance));
        let noise = (now.t > 0.0).then(|| variance.times(noise.draw(x.shape()), libm::sqrt));
        let mut terms = vec![(mean_x0, &x0), (mean_x, &x)];
        terms.extend(shift.iter().chain(&noise).map(|(factor, term)| (*factor, term)));
        x = Latents::combine(&terms);
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
