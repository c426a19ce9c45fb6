//! Multistep consistency sampling.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::schedule::Schedule;
use crate::diffusion::scheduler_config::Consistency;

/// Algorithm 1 of Song et al. (2023), arXiv:2303.01469; `CMStochasticIterativeScheduler`.  `x = x0 + σ ε`.
/// Draws in every step unless there is one step only, also in the last, where the noise is multiplied by zero.
pub(in crate::diffusion) async fn consistency<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    options: &Consistency,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    for (i, (now, next)) in schedule.steps().enumerate() {
        let x0 = network.denoised(&x, &now, options.clip).await?;
        x = x0.clone();
        if schedule.whole() > 1 {
            let sigma = next.sigma.max(options.sigma_min).min(options.sigma_max);
            let up = libm::sqrt((sigma * sigma - options.sigma_min * options.sigma_min).max(0.0));
            let z = noise.draw(x.shape());
            x = Latents::combine(&[(1.0, &x), (options.s_noise * up, &z)]);
        }
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
