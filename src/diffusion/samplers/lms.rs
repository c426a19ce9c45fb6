//! Linear multistep method.

use std::collections::VecDeque;

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Clip;
use crate::diffusion::schedule::Schedule;

/// Steps that a step looks back on, itself among them.
const ORDER: usize = 4;

/// Adams-Bashforth of up to fourth order on `dx/dσ = (x − D(x; σ))/σ` (equation 1 of Karras et al. 2022, arXiv:2206.00364),
/// with the weights of uneven steps; `LMSDiscreteScheduler`.  `x = x0 + σ ε`.
pub(in crate::diffusion) async fn lms<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    mut x: Latents,
) -> Result<Latents, Error> {
    // The slopes of the last steps, the newest first.
    let mut d = VecDeque::with_capacity(ORDER);
    for (i, (now, _)) in schedule.steps().enumerate() {
        let sigma = now.noise();
        let denoised = network.denoised(&x, &now, Clip::Nothing).await?;
        d.truncate(ORDER - 1);
        d.push_front(Latents::combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]));
        // The order goes by the whole schedule: a run that begins late leaves out what it has no slope for.
        let weights = weights(schedule.points(), schedule.run().start + i);
        let slopes = weights.into_iter().zip(&d);
        x = Latents::combine(&std::iter::once((1.0, &x)).chain(slopes).collect::<Vec<_>>());
        x = network.amended(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}

/// The integrals over step `i` of the Lagrange polynomials through its point and those before it, the newest first.
fn weights(points: &[Point], i: usize) -> Vec<f64> {
    let order = ORDER.min(i + 1);
    let (from, to) = (points[i].noise(), points[i + 1].noise());
    let weight = |j: usize| {
        let own = points[i - j].noise();
        let others = || (0..order).filter(move |k| *k != j).map(|k| points[i - k].noise());
        let polynomial = |sigma: f64| others().map(|other| (sigma - other) / (own - other)).product::<f64>();
        // Simpson's rule is exact up to the third degree.
        (to - from) / 6.0 * (polynomial(from) + 4.0 * polynomial(0.5 * (from + to)) + polynomial(to))
    };
    (0..order).map(weight).collect()
}
