//! Sampler of trajectory consistency models (TCD, Zheng et al. 2024, arXiv:2402.19159): diffusers' `TCDScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Clip;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::distilled_points;
use crate::diffusion::scheduler_config::keys::{CLIP_SAMPLE, DISTILLED, Keys, SPACING, THRESHOLDING, TRAINING};
use crate::diffusion::scheduler_config::{Class, Name, Sampler, SchedulerConfig, Training, ZeroSignal};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("tcd", "Trajectory consistency sampling of Zheng et al. (2024), for models distilled for it")],
    training: Training { beta_schedule: "scaled_linear", ..Training::LATENTS },
    zero_signal: ZeroSignal::WithoutEpsilon,
    eta: Some("Eta"),
    // diffusers' class reads the keys about thresholding and clipping, but does not use them.
    ..Class::new("TCDScheduler", &[&TRAINING, &SPACING, &DISTILLED, &CLIP_SAMPLE, &THRESHOLDING], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tcd {
    original_inference_steps: usize,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(Tcd { original_inference_steps: keys.original_inference_steps()? }))
}

impl Sampler for Tcd {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let all = self.original_inference_steps;
        Ok((distilled_points(config, (all, all), step_source, 0.0)?, 1.0))
    }
}

/// Strategic stochastic sampling, algorithm 4 of Zheng et al. (2024), with states `x = α x0 + σ ε`. A step goes down
/// the trajectory to `(1 − eta)` times the next timestep (γ = `eta`); then noise brings the state up to the next
/// timestep. If `eta > 0`, every step except the last draws noise.
pub(super) async fn sample<D: Denoise>(_: &Tcd, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, eta, mut x, noise } = run;
    let last = schedule.steps().len() - 1;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, Clip::Nothing).await?;
        // Computed in float32 as in diffusers, because the result is truncated to a whole timestep.
        let below = schedule.level(f64::from(((1.0 - eta) as f32 * next.t as f32).floor()));
        x = Latents::combine(&[(below.alpha, &x0), (below.sigma, &epsilon)]);
        if eta > 0.0 && i < last {
            let kept = next.alpha / below.alpha;
            let z = noise.draw(x.shape());
            x = Latents::combine(&[(kept, &x), (libm::sqrt((1.0 - kept * kept).max(0.0)), &z)]);
        }
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
