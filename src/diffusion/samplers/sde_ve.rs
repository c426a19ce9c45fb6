//! Predictor-corrector sampling of a variance-exploding equation.

use super::langevin::langevin;
use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::schedule::{Schedule, ve_steps};
use crate::diffusion::scheduler_config::ScoreSdeVe;

/// Algorithm 2 of Song et al. (2021), arXiv:2011.13456, with the reverse diffusion predictor of its equation 46;
/// `ScoreSdeVeScheduler`.  `x = x0 + σ ε`, and the network answers with the score `∇ ln p(x)`.  Corrects before it predicts, draws
/// in every correction and in every prediction, and ends with the mean of the last prediction, without its noise.
/// `probability_flow` predicts along the deterministic equation instead (appendix D.1): half the drift, and no draw.
pub(in crate::diffusion) async fn sde_ve<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    options: &ScoreSdeVe,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    let steps = ve_steps(options, schedule.whole());
    let last = schedule.whole() - 1;
    for (i, (now, _)) in schedule.steps().enumerate() {
        let step = &steps[schedule.run().start + i];
        for _ in 0..options.correct_steps {
            let score = network.ask(&x, now.t).await?;
            x = network.amended(langevin(&x, &score, options.snr, 1.0, noise));
        }
        let score = network.ask(&x, now.t).await?;
        let x0 = Prediction::Score.x0(&x, &score, &now, 1.0);
        // G² of the paper: the variance between this level and the one below.
        let variance = (step.sigma * step.sigma - step.below * step.below).max(0.0);
        x = if options.probability_flow {
            Latents::combine(&[(1.0, &x), (0.5 * variance, &score)])
        } else {
            let z = noise.draw(x.shape());
            let spread = if schedule.run().start + i < last { libm::sqrt(variance) } else { 0.0 };
            Latents::combine(&[(1.0, &x), (variance, &score), (spread, &z)])
        };
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
