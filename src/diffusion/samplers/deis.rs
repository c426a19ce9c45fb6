//! DEIS.

use std::collections::VecDeque;

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::schedule::Schedule;
use crate::diffusion::scheduler_config::Deis;

/// The exponential integrator of Zhang and Chen (2023), arXiv:2204.13902, in ρ = σ/α (tAB-DEIS with polynomials in ln ρ), of
/// order 1 to 3; `DEISMultistepScheduler`.  `x = α x0 + σ ε`.  Never goes to zero noise.
pub(in crate::diffusion) async fn deis<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    options: &Deis,
    mut x: Latents,
) -> Result<Latents, Error> {
    // ε at the last points, and ρ there; the newest first.
    let mut known: VecDeque<(f64, Latents)> = VecDeque::with_capacity(options.order);
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, _) = network.x0_and_epsilon(&x, &now, options.clip).await?;
        known.truncate(options.order - 1);
        known.push_front((now.noise(), Prediction::Sample.epsilon(&x, &x0, &now)));
        let left = schedule.whole() - (schedule.run().start + i);
        let short = options.lower_order_final && schedule.whole() < 15;
        let order = if short { options.order.min(left) } else { options.order }.min(known.len());
        let rho: Vec<f64> = known.iter().take(order).map(|(rho, _)| *rho).collect();
        let weights = weights(&rho, next.noise());
        let answers = weights.iter().zip(&known).map(|(weight, (_, epsilon))| (next.alpha * weight, epsilon));
        let terms: Vec<_> = std::iter::once((next.alpha / now.alpha, &x)).chain(answers).collect();
        x = network.amended(Latents::combine(&terms));
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// The integrals `∫ ℓ_j(ln ρ) dρ` from the newest of the points to the next, of the Lagrange polynomials in ln ρ through the
/// points.
fn weights(rho: &[f64], next: f64) -> Vec<f64> {
    let logs: Vec<f64> = rho.iter().map(|rho| libm::log(*rho)).collect();
    let weight = |j: usize| {
        let others: Vec<f64> = (0..logs.len()).filter(|k| *k != j).map(|k| logs[k]).collect();
        let below: f64 = others.iter().map(|other| logs[j] - other).product();
        // Antiderivatives of 1, (ln ρ − a) and (ln ρ − a)(ln ρ − b).
        let primitive = |rho: f64| {
            let log = libm::log(rho);
            match others[..] {
                [] => rho,
                [a] => rho * (log - a - 1.0),
                [a, b, ..] => rho * ((log - a) * (log - b) - 2.0 * log + a + b + 2.0),
            }
        };
        (primitive(next) - primitive(rho[0])) / below
    };
    (0..rho.len()).map(weight).collect()
}
