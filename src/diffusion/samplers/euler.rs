//! Euler's method.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::prediction::Clip;
use crate::diffusion::schedule::Schedule;

/// Algorithm 2 of Karras et al. (2022), arXiv:2206.00364, without churn and correction; `EulerDiscreteScheduler`.
/// `x = x0 + σ ε`.
pub(in crate::diffusion) async fn euler<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    mut x: Latents,
) -> Result<Latents, Error> {
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (sigma, sigma_next) = (now.noise(), next.noise());
        let denoised = network.denoised(&x, &now, Clip::Nothing).await?;
        let d = Latents::combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]);
        x = Latents::combine(&[(1.0, &x), (sigma_next - sigma, &d)]);
        x = network.amended(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}
