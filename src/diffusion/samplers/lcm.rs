//! Sampling of latent consistency models.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::Clip;
use crate::diffusion::schedule::Schedule;

/// Standard deviation of the data, as the models are trained.
const SIGMA_DATA: f64 = 0.5;

/// Multistep consistency sampling, algorithm 3 of Luo et al. (2023), arXiv:2310.04378: each answer is taken for the picture,
/// over which noise is laid again; `LCMScheduler`.  `x = α x0 + σ ε`.  Draws in every step but the last.
pub(in crate::diffusion) async fn lcm<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    timestep_scaling: f64,
    clip: Clip,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
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
        x = network.amended(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}
