//! Euler's method with ancestral noise.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::Clip;
use crate::diffusion::schedule::Schedule;

/// An Euler step down to `σ_down`, then noise up to the next level, so that the step has the variance of the ancestral
/// one of Ho et al. (2020), arXiv:2006.11239; `EulerAncestralDiscreteScheduler`.  `x = x0 + σ ε`.
/// Draws in every step, also in the last, where the noise is multiplied by zero.
pub(in crate::diffusion) async fn euler_a<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (sigma, sigma_next) = (now.noise(), next.noise());
        let denoised = network.denoised(&x, &now, Clip::Nothing).await?;
        // σ_up² + σ_down² = σ_next², with σ_down = σ_next²/σ.
        let sigma_down = sigma_next * sigma_next / sigma;
        let sigma_up = libm::sqrt((sigma_next * sigma_next - sigma_down * sigma_down).max(0.0));
        let d = Latents::combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]);
        let z = noise.draw(x.shape());
        x = Latents::combine(&[(1.0, &x), (sigma_down - sigma, &d), (sigma_up, &z)]);
        x = network.amended(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}
