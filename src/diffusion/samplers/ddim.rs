//! Denoising diffusion implicit models.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::schedule::Schedule;
use crate::diffusion::scheduler_config::Ddim;

/// Equations 12 and 16 of Song et al. (2021), arXiv:2010.02502; `DDIMScheduler`.  `x = α x0 + σ ε`.
/// `eta` 0 is deterministic and draws nothing, 1 is as noisy as DDPM.
pub(in crate::diffusion) async fn ddim<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    options: Ddim,
    eta: f64,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
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
