//! Predictor-corrector sampling of a variance-preserving equation.

use super::langevin::langevin;
use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::schedule::Schedule;
use crate::diffusion::scheduler_config::ScoreSdeVp;

/// The Euler-Maruyama predictor of Song et al. (2021), arXiv:2011.13456, on equation 11 reversed; `ScoreSdeVpScheduler`.
/// `x = α x0 + σ ε`, and the network answers with ε, so that the score is `−ε/σ`.  Draws in every step, and ends with the mean of the
/// last.  `correct_steps`, which diffusers does not have, puts corrections of algorithm 5 before each prediction;
/// `probability_flow` predicts along the deterministic equation (appendix D.1): half the drift of the score, and no draw.
pub(in crate::diffusion) async fn sde_vp<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    options: &ScoreSdeVp,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    let dt = 1.0 / schedule.whole() as f64;
    let last = schedule.whole() - 1;
    for (i, (now, _)) in schedule.steps().enumerate() {
        let beta = options.beta(options.time(now.t));
        for _ in 0..options.correct_steps {
            let score = network.ask(&x, now.t).await?.scale(-1.0 / now.sigma);
            x = network.amended(langevin(&x, &score, options.snr, 1.0 - beta * dt, noise));
        }
        let epsilon = network.ask(&x, now.t).await?;
        let x0 = network.prediction.x0(&x, &epsilon, &now, 1.0);
        let (kept, drift) = (1.0 + 0.5 * beta * dt, -beta * dt / now.sigma);
        x = if options.probability_flow {
            Latents::combine(&[(kept, &x), (0.5 * drift, &epsilon)])
        } else {
            let z = noise.draw(x.shape());
            let spread = if schedule.run().start + i < last { libm::sqrt(beta * dt) } else { 0.0 };
            Latents::combine(&[(kept, &x), (drift, &epsilon), (spread, &z)])
        };
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
