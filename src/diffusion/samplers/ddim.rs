//! Denoising diffusion implicit models.

use std::sync::Arc;

use super::Run;
use crate::diffusion::course::Course;
use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::schedule::trained_points;
use crate::diffusion::scheduler_config::keys::{CLIP_SAMPLE, Keys, SPACING, THRESHOLDING, TRAINING};
use crate::diffusion::scheduler_config::{Class, Label, Name, Sampler, SchedulerConfig, ZeroSignal};

pub(super) static CLASS: Class = Class {
    aliases: &["DDIMParallelScheduler"],
    names: &[Name::new("ddim", "Implicit sampling of Song et al. (2021), deterministic unless eta is given")],
    spacing: "leading",
    zero_signal: ZeroSignal::WithoutEpsilon,
    // Eta alone is that of the ancestral samplers, whose default there is 1.
    eta: Some("Eta DDIM"),
    ..Class::new("DDIMScheduler", KEYS, read)
};

const KEYS: &[&[&str]] = &[
    &TRAINING,
    &SPACING,
    &CLIP_SAMPLE,
    &THRESHOLDING,
    &["set_alpha_to_one", "rescale_betas_zero_snr"],
    // An argument of `step` in diffusers, which its `DDIMPipeline` passes on.
    &["use_clipped_model_output"],
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ddim {
    /// Whether the last step ends without noise, or at the first training timestep.
    set_alpha_to_one: bool,
    clip: Clip,
    /// Whether ε is taken from the clipped x0, and not from the network.
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
    fn levels(&self, config: &SchedulerConfig, course: Course<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let stride = config.stride(course.len());
        Ok((trained_points(config, course.without_lists(config)?, |last| last - stride)?, 1.0))
    }

    fn label(&self) -> Label {
        Label::AtOwnLevels("DDIM")
    }

    fn ends_at_first_timestep(&self) -> bool {
        !self.set_alpha_to_one
    }
}

/// Equations 12 and 16 of Song et al. (2021), arXiv:2010.02502; `DDIMScheduler`.  `x = α x0 + σ ε`.
/// `eta` 0 is deterministic and draws nothing, 1 is as noisy as DDPM.
pub(super) async fn sample<D: Denoise>(options: &Ddim, run: Run<'_, D>) -> Result<Latents, Error> {
    let Run { network, schedule, eta, mut x, noise } = run;
    for (i, (now, _)) in schedule.steps().enumerate() {
        // A stride below, which need not be where the next step starts.
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
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
