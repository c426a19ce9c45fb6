//! Sampling of trajectory consistency models.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::Clip;
use crate::diffusion::schedule::Schedule;

/// Strategic stochastic sampling, algorithm 4 of Zheng et al. (2024), arXiv:2402.19159: down along the trajectory to the share
/// `1 − eta` of the next timestep (γ = `eta`), and up to it again by noise; `TCDScheduler`.  `x = α x0 + σ ε`.  Draws where
/// `eta > 0`, in every step but the last.
pub(in crate::diffusion) async fn tcd<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    eta: f64,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    let last = schedule.steps().len() - 1;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, Clip::Nothing).await?;
        // In float32 as diffusers, since it is cut to a whole timestep.
        let below = schedule.level(f64::from(((1.0 - eta) as f32 * next.t as f32).floor()));
        x = Latents::combine(&[(below.alpha, &x0), (below.sigma, &epsilon)]);
        if eta > 0.0 && i < last {
            let kept = next.alpha / below.alpha;
            let z = noise.draw(x.shape());
            x = Latents::combine(&[(kept, &x), (libm::sqrt((1.0 - kept * kept).max(0.0)), &z)]);
        }
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
