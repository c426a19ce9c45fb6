//! Euler's method along a flow.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::schedule::Schedule;

/// Straight steps along the velocity of Liu et al. (2023), arXiv:2209.03003, as Esser et al. (2024), arXiv:2403.03206, take
/// them; `FlowMatchEulerDiscreteScheduler`.  `x = (1 − σ) x0 + σ ε`.  `stochastic` steps go to x0 and lay new noise over it,
/// drawn in every step.
pub(in crate::diffusion) async fn flow_euler<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    stochastic: bool,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    for (i, (now, next)) in schedule.steps().enumerate() {
        let v = network.ask(&x, now.t).await?;
        let x0 = Prediction::Flow.x0(&x, &v, &now, 1.0);
        x = if stochastic {
            let z = noise.draw(x.shape());
            Latents::combine(&[(next.alpha, &x0), (next.sigma, &z)])
        } else {
            Latents::combine(&[(1.0, &x), (next.sigma - now.sigma, &v)])
        };
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
