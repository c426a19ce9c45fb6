//! Pseudo numerical methods for diffusion models.

use std::collections::VecDeque;

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::schedule::Schedule;

/// Algorithm 2 of Liu et al. (2022), arXiv:2202.09778: three pseudo Runge-Kutta steps, then pseudo linear multisteps;
/// with `skip_prk_steps` the multisteps begin at lower order, as in Stable Diffusion; `PNDMScheduler`.
/// `x = α x0 + σ ε`.  Steps go a stride down, which need not be where the next step starts.
pub(in crate::diffusion) async fn pndm<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    skip_prk_steps: bool,
    mut x: Latents,
) -> Result<Latents, Error> {
    let delta = schedule.stride();
    // The answers of the last steps, the newest first.
    let mut e = VecDeque::with_capacity(4);
    for (i, (now, next)) in schedule.steps().enumerate() {
        let last = i + 1 == schedule.steps().len();
        let answer = network.ask(&x, now.t).await?;
        e.push_front(answer);
        e.truncate(4);
        let (from, to, raw);
        if !skip_prk_steps && i < 3 {
            (from, to) = (now, next);
            raw = runge_kutta(network, schedule, &x, (&now, &next), &e[0]).await?;
        } else if skip_prk_steps && i == 0 && !last {
            // The first step is tried, and done again with the mean of the answers at its two ends.
            let tried = transfer(network.prediction, &x, &e[0], &now, &schedule.level(now.t - delta));
            let there = network.ask(&tried, next.t).await?;
            (from, to) = (schedule.level(next.t + delta), next);
            raw = Latents::combine(&[(0.5, &there), (0.5, &e[0])]);
        } else {
            (from, to) = (now, schedule.level(now.t - delta));
            raw = linear_multistep(&e);
        }
        let denoised = network.prediction.x0(&x, &raw, &from, 1.0);
        x = transfer(network.prediction, &x, &raw, &from, &to);
        network.stepped(i, &denoised);
    }
    Ok(x)
}

/// Equation 13: the classical Runge-Kutta mean of four answers between two points, `e1` the first.  The timestep in the
/// middle is half a stride above the next point.
async fn runge_kutta<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    x: &Latents,
    (now, next): (&Point, &Point),
    e1: &Latents,
) -> Result<Latents, Error> {
    let half = (schedule.stride() / 2.0).floor();
    let middle = schedule.level(next.t + half);
    let x1 = transfer(network.prediction, x, e1, now, &schedule.level(now.t - half));
    let e2 = network.ask(&x1, middle.t).await?;
    let x2 = transfer(network.prediction, x, &e2, now, &middle);
    let e3 = network.ask(&x2, middle.t).await?;
    let x3 = transfer(network.prediction, x, &e3, now, next);
    let e4 = network.ask(&x3, next.t).await?;
    Ok(Latents::combine(&[(1.0 / 6.0, e1), (1.0 / 3.0, &e2), (1.0 / 3.0, &e3), (1.0 / 6.0, &e4)]))
}

/// Equation 12, the Adams-Bashforth formula of as high an order as there are answers (up to 4, the newest first).
fn linear_multistep(e: &VecDeque<Latents>) -> Latents {
    match e.len() {
        0 | 1 => e[0].clone(),
        2 => Latents::combine(&[(3.0 / 2.0, &e[0]), (-1.0 / 2.0, &e[1])]),
        3 => Latents::combine(&[(23.0 / 12.0, &e[0]), (-16.0 / 12.0, &e[1]), (5.0 / 12.0, &e[2])]),
        _ => {
            Latents::combine(&[(55.0 / 24.0, &e[0]), (-59.0 / 24.0, &e[1]), (37.0 / 24.0, &e[2]), (-9.0 / 24.0, &e[3])])
        }
    }
}

/// Equation 11: from one level to another along an answer.
fn transfer(prediction: Prediction, x: &Latents, raw: &Latents, from: &Point, to: &Point) -> Latents {
    let epsilon = prediction.epsilon(x, raw, from);
    let (a, a_to) = (from.alpha * from.alpha, to.alpha * to.alpha);
    let divisor = a * to.sigma + from.alpha * from.sigma * to.alpha;
    Latents::combine(&[(to.alpha / from.alpha, x), (-(a_to - a) / divisor, &epsilon)])
}
