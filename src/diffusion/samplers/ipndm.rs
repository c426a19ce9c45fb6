//! Improved pseudo numerical methods.

use std::collections::VecDeque;

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::prediction::Clip;
use crate::diffusion::schedule::Schedule;

/// The linear multistep method of Liu et al. (2022), arXiv:2202.09778, started with lower orders instead of Runge-Kutta steps;
/// `IPNDMScheduler`.  `x = α x0 + σ ε` along a schedule of its own, without signal at first; the network predicts v.
pub(in crate::diffusion) async fn ipndm<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    mut x: Latents,
) -> Result<Latents, Error> {
    // ε at the last steps, the newest first.
    let mut known: VecDeque<Latents> = VecDeque::with_capacity(WEIGHTS.len());
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, Clip::Nothing).await?;
        known.truncate(WEIGHTS.len() - 1);
        known.push_front(epsilon);
        let terms: Vec<_> = WEIGHTS[known.len() - 1].iter().copied().zip(&known).collect();
        let epsilon = Latents::combine(&terms);
        // Without signal ε is the state itself, and nothing is known of x0.
        let kept = if now.alpha > 0.0 { next.alpha / now.alpha } else { 0.0 };
        x = Latents::combine(&[(kept, &x), (next.sigma - kept * now.sigma, &epsilon)]);
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// Adams-Bashforth, of first to fourth order.
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];
