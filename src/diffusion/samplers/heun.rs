//! Heun's method.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::prediction::Clip;
use crate::diffusion::schedule::Schedule;

/// Algorithm 1 of Karras et al. (2022), arXiv:2206.00364; `HeunDiscreteScheduler`.  `x = x0 + σ ε`.
/// Two network calls in each step but the last, which has no slope at its end.
pub(in crate::diffusion) async fn heun<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    clip: Clip,
    mut x: Latents,
) -> Result<Latents, Error> {
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (sigma, sigma_next) = (now.noise(), next.noise());
        let mut denoised = network.denoised(&x, &now, clip).await?;
        let mut d = Latents::combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]);
        if sigma_next > 0.0 {
            let euler = network.amended(Latents::combine(&[(1.0, &x), (sigma_next - sigma, &d)]));
            denoised = network.denoised(&euler, &next, clip).await?;
            let d_next = Latents::combine(&[(1.0 / sigma_next, &euler), (-1.0 / sigma_next, &denoised)]);
            d = Latents::combine(&[(0.5, &d), (0.5, &d_next)]);
        }
        x = Latents::combine(&[(1.0, &x), (sigma_next - sigma, &d)]);
        x = network.amended(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}
