//! Heun's method along a flow.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::schedule::Schedule;

/// The trapezoidal rule along the velocity of Liu et al. (2023), arXiv:2209.03003; `FlowMatchHeunDiscreteScheduler`.
/// `x = (1 − σ) x0 + σ ε`.  Two network calls in each step but the last, at whose end there is no velocity.
pub(in crate::diffusion) async fn flow_heun<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    mut x: Latents,
) -> Result<Latents, Error> {
    for (i, (now, next)) in schedule.steps().enumerate() {
        let h = next.sigma - now.sigma;
        let mut v = network.ask(&x, now.t).await?;
        let mut x0 = Prediction::Flow.x0(&x, &v, &now, 1.0);
        if next.sigma > 0.0 {
            let euler = network.amended(Latents::combine(&[(1.0, &x), (h, &v)]));
            let v_next = network.ask(&euler, next.t).await?;
            x0 = Prediction::Flow.x0(&euler, &v_next, &next, 1.0);
            v = Latents::combine(&[(0.5, &v), (0.5, &v_next)]);
        }
        x = network.amended(Latents::combine(&[(1.0, &x), (h, &v)]));
        network.stepped(i, &x0);
    }
    Ok(x)
}
