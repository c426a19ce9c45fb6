//! Ancestral sampling.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::Clip;
use crate::diffusion::schedule::Schedule;
use crate::diffusion::scheduler_config::Variance;

/// Algorithm 2 of Ho et al. (2020), arXiv:2006.11239, with the posterior of its equations 6 and 7 between any two
/// timesteps; `DDPMScheduler`.  `x = α x0 + σ ε`.  Draws in every step that does not start at timestep 0.
pub(in crate::diffusion) async fn ddpm<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    variance: Variance,
    clip: Clip,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, _) = network.x0_and_epsilon(&x, &now, clip).await?;
        // α_t and β_t of the paper for the step from `now` to `next`.
        let alpha_t = (now.alpha * now.alpha) / (next.alpha * next.alpha);
        let beta_t = 1.0 - alpha_t;
        let (sigma2, sigma2_next) = (now.sigma * now.sigma, next.sigma * next.sigma);
        let mean_x0 = next.alpha * beta_t / sigma2;
        let mean_x = libm::sqrt(alpha_t) * sigma2_next / sigma2;
        let variance = match variance {
            Variance::Small => (beta_t * sigma2_next / sigma2).max(1e-20),
            Variance::Large => beta_t,
        };
        x = if now.t > 0.0 {
            let z = noise.draw(x.shape());
            Latents::combine(&[(mean_x0, &x0), (mean_x, &x), (libm::sqrt(variance), &z)])
        } else {
            Latents::combine(&[(mean_x0, &x0), (mean_x, &x)])
        };
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
