//! SA-Solver.

use std::collections::VecDeque;

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::schedule::Schedule;
use crate::diffusion::scheduler_config::SaSolver;

/// Algorithm 1 of Xue et al. (2023), arXiv:2309.05019, a stochastic Adams method: the answer at a point first corrects the
/// state that was predicted there, then predicts the next; `SASolverScheduler`.  `x = α x0 + σ ε`, λ = ln(α/σ).
/// Draws in every step; its noise τ is 1 from timestep 200 to 800, else 0.
pub(in crate::diffusion) async fn sa_solver<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    options: &SaSolver,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    let kept = options.predictor_order.max(options.corrector_order - 1);
    // What is integrated, x0 or ε, at the last points, and λ there; the newest first.
    let mut known: VecDeque<(f64, Latents)> = VecDeque::with_capacity(kept + 1);
    // What the last prediction went from and what corrects it: the state, its point, the noise, the order.
    let mut predicted: Option<(Latents, Point, Latents, usize)> = None;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let left = schedule.whole() - (schedule.run().start + i);
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, options.clip).await?;
        let m = match options.clip {
            _ if options.predict_x0 => x0.clone(),
            Clip::Nothing => epsilon,
            _ => Prediction::Sample.epsilon(&x, &x0, &now),
        };
        known.push_front((now.lambda(), m));
        if let Some((from, before, z, order)) = predicted.take() {
            x = step(options, order, &from, &known, (&before, &now), &z);
        }
        known.truncate(kept);
        let z = noise.draw(x.shape());
        let lower = |order: usize, left: usize| if options.lower_order_final { order.min(left) } else { order };
        let corrector = lower(options.corrector_order, left + 1).min(known.len() + 1);
        let order = lower(options.predictor_order, left).min(known.len());
        predicted = Some((x.clone(), now, z.clone(), corrector));
        x = network.amended(step(options, order, &x, &known, (&now, &next), &z));
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// The exact solution of the stochastic equation over a step, with the polynomial of this order through the newest of the
/// known integrands in place of the integrand: equations 14 and 17.  Where the newest is the step's end, it corrects.
fn step(
    options: &SaSolver,
    order: usize,
    x: &Latents,
    known: &VecDeque<(f64, Latents)>,
    (now, next): (&Point, &Point),
    z: &Latents,
) -> Latents {
    let tau2 = if (200.0..=800.0).contains(&now.t) { 1.0 } else { 0.0 };
    let h = next.lambda() - now.lambda();
    let k = 1.0 + tau2;
    let (c, scale, rate, s) = if options.predict_x0 {
        let variance = -libm::expm1(-2.0 * tau2 * h);
        let c = libm::exp(-tau2 * h) * next.sigma / now.sigma;
        (c, k * next.alpha, k, next.sigma * libm::sqrt(variance.max(0.0)))
    } else {
        let variance = tau2 * libm::expm1(2.0 * h);
        (next.alpha / now.alpha, -k * next.sigma, -1.0, next.sigma * libm::sqrt(variance.max(0.0)))
    };
    // Nodes as distances from the end of the step.
    let nodes: Vec<f64> = known.iter().take(order).map(|(lambda, _)| lambda - next.lambda()).collect();
    let moments = moments(h, rate, order);
    let mut weights: Vec<f64> = (0..order)
        .map(|i| lagrange(&nodes, i).iter().zip(&moments).map(|(c, moment)| scale * c * moment).sum())
        .collect();
    if options.predict_x0 && order == 2 {
        // The paper's implementation takes h²/2 for the slope's integral here, and so does diffusers.
        let off = h * h / 2.0 - (h * k + libm::expm1(-k * h)) / (k * k);
        let slope = scale * off / (nodes[0] - nodes[1]);
        weights[0] += slope;
        weights[1] -= slope;
    }
    let integrands = weights.into_iter().zip(known).map(|(weight, (_, m))| (weight, m));
    let terms: Vec<_> = std::iter::once((c, x)).chain(integrands).chain([(s, z)]).collect();
    Latents::combine(&terms)
}

/// `∫ u^p e^(rate u) du` from −h to 0, for p = 0, 1, … as many as `count`.
fn moments(h: f64, rate: f64, count: usize) -> Vec<f64> {
    let mut moments = vec![-libm::expm1(-rate * h) / rate];
    for p in 1..count {
        let lower = -libm::pow(-h, p as f64) * libm::exp(-rate * h) / rate;
        moments.push(lower - p as f64 / rate * moments[p - 1]);
    }
    moments
}

/// The coefficients, from the constant upwards, of the polynomial that is 1 at node `i` and 0 at the others.
fn lagrange(nodes: &[f64], i: usize) -> Vec<f64> {
    let mut polynomial = vec![1.0];
    for (j, node) in nodes.iter().enumerate().filter(|(j, _)| *j != i) {
        let below = nodes[i] - nodes[j];
        let shifted = std::iter::once(0.0).chain(polynomial.iter().copied());
        let unshifted = polynomial.iter().copied().chain([0.0]);
        polynomial = shifted.zip(unshifted).map(|(up, same)| (up - node * same) / below).collect();
    }
    polynomial
}
