//! Sampler of latent consistency models (LCM, Luo et al. 2023, arXiv:2310.04378): diffusers' `LCMScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Clip;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::distilled_points;
use crate::diffusion::scheduler_config::keys::{CLIP_SAMPLE, DISTILLED, Keys, SPACING, THRESHOLDING, TRAINING};
use crate::diffusion::scheduler_config::{Class, Label, Name, Sampler, SchedulerConfig, Training, ZeroSignal};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("lcm", "Multistep consistency sampling of Luo et al. (2023), for models distilled for it")],
    training: Training { beta_schedule: "scaled_linear", ..Training::LATENTS },
    zero_signal: ZeroSignal::WithoutEpsilon,
    ..Class::new("LCMScheduler", &[&TRAINING, &SPACING, &DISTILLED, &CLIP_SAMPLE, &THRESHOLDING], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lcm {
    original_inference_steps: usize,
    /// Factor of the timestep in the boundary condition.
    timestep_scaling: f64,
    clip: Clip,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(Lcm {
        original_inference_steps: keys.original_inference_steps()?,
        timestep_scaling: keys.positive("timestep_scaling")?.unwrap_or(10.0),
        clip: keys.clip(false)?,
    }))
}

impl Sampler for Lcm {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let all = self.original_inference_steps;
        Ok((distilled_points(config, (all, all), step_source, -1.0)?, 1.0))
    }

    /// The points of a run that starts from a picture, as diffusers computes them for latent consistency models (Luo et
    /// al., 2023).
    fn compressed(
        &self,
        config: &SchedulerConfig,
        steps: usize,
        strength: f64,
    ) -> Option<Result<Vec<Point>, InvalidSteps>> {
        let kept = (self.original_inference_steps as f64 * strength) as usize;
        Some(distilled_points(config, (self.original_inference_steps, kept), StepSource::Steps(steps), -1.0))
    }

    fn label(&self) -> Label {
        Label::AtOwnLevels("LCM")
    }
}

/// Standard deviation of the training data.
const SIGMA_DATA: f64 = 0.5;

/// Multistep consistency sampling, algorithm 3 of Luo et al. (2023), with states `x = α x0 + σ ε`. Each step computes
/// an estimate of the picture from the network output. Every step except the last then adds noise to this estimate, up
/// to the next level.
pub(super) async fn sample<D: Denoise>(options: &Lcm, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    let Lcm { timestep_scaling, clip, .. } = *options;
    let last = schedule.steps().len() - 1;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, _) = network.x0_and_epsilon(&x, &now, clip).await?;
        let t = now.t * timestep_scaling;
        let norm = t * t + SIGMA_DATA * SIGMA_DATA;
        let (c_skip, c_out) = (SIGMA_DATA * SIGMA_DATA / norm, t / libm::sqrt(norm));
        let denoised = Latents::combine(&[(c_out, &x0), (c_skip, &x)]);
        x = if i < last {
            let z = noise.draw(x.shape());
            Latents::combine(&[(next.alpha, &denoised), (next.sigma, &z)])
        } else {
            denoised.clone()
        };
        x = network.adjusted(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}
