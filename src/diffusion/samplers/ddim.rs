//! Denoising diffusion implicit models (DDIM, Song et al. 2021, arXiv:2010.02502): diffusers' `DDIMScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::trained_points;
use crate::diffusion::scheduler_config::keys::{CLIP_SAMPLE, Keys, SPACING, THRESHOLDING, TRAINING};
use crate::diffusion::scheduler_config::{Class, Label, Name, Sampler, SchedulerConfig, ZeroSignal};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    aliases: &["DDIMParallelScheduler"],
    names: &[Name::new("ddim", "Implicit sampling of Song et al. (2021), deterministic unless eta is above 0")],
    spacing: "leading",
    zero_signal: ZeroSignal::WithoutEpsilon,
    // In the web interface, `Eta` without `DDIM` is the value for the ancestral samplers, and its default is 1.
    eta: Some("Eta DDIM"),
    ..Class::new("DDIMScheduler", KEYS, read)
};

const KEYS: &[&[&str]] = &[
    &TRAINING,
    &SPACING,
    &CLIP_SAMPLE,
    &THRESHOLDING,
    &["set_alpha_to_one", "rescale_betas_zero_snr"],
    // In diffusers, this option is an argument of `step`, and `DDIMPipeline` passes it on.
    &["use_clipped_model_output"],
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ddim {
    /// Whether the last step ends without noise; otherwise it ends at the noise level of training timestep 0.
    set_alpha_to_one: bool,
    clip: Clip,
    /// Whether ε is computed from the clipped x0; otherwise from the network output.
    use_clipped_model_output: bool,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(Ddim {
        set_alpha_to_one: keys.flag("set_alpha_to_one", true)?,
        clip: keys.clip(true)?,
        use_clipped_model_output: keys.flag("use_clipped_model_output", false)?,
    }))
}

impl Sampler for Ddim {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let stride = config.stride(step_source.len());
        Ok((trained_points(config, step_source.without_lists(config)?, |last| last - stride)?, 1.0))
    }

    fn label(&self) -> Label {
        Label::AtOwnLevels("DDIM")
    }

    fn ends_at_first_timestep(&self) -> bool {
        !self.set_alpha_to_one
    }
}

/// Equations 12 and 16 of Song et al. (2021) with states `x = α x0 + σ ε`. With `eta` 0 the sampler is deterministic
/// and draws no noise; with `eta` 1 it adds as much noise as DDPM.
pub(super) async fn sample<D: Denoise>(options: &Ddim, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, eta, mut x, noise } = run;
    for (i, (now, _)) in schedule.steps().enumerate() {
        // The step ends one stride below `now`, even if the next step starts elsewhere.
        let next = schedule.level(now.t - schedule.stride());
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, options.clip).await?;
        let epsilon =
            if options.use_clipped_model_output { Prediction::Sample.epsilon(&x, &x0, &now) } else { epsilon };
        let (ratio, kept) = (next.sigma / now.sigma, now.alpha / next.alpha);
        let sigma_t = eta * ratio * libm::sqrt((1.0 - kept * kept).max(0.0));
        let direction = libm::sqrt((next.sigma * next.sigma - sigma_t * sigma_t).max(0.0));
        x = if eta > 0.0 {
            let z = noise.draw(x.shape());
            Latents::combine(&[(next.alpha, &x0), (direction, &epsilon), (sigma_t, &z)])
        } else {
            Latents::combine(&[(next.alpha, &x0), (direction, &epsilon)])
        };
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
