//! Ancestral sampling.

use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::Error;
use crate::diffusion::latents::Latents;
use crate::diffusion::network::Network;
use crate::diffusion::noise::Noise;
use crate::diffusion::posterior::{Posterior, Variance};
use crate::diffusion::prediction::Clip;
use crate::diffusion::schedule::Schedule;
use crate::diffusion::scheduler_config::Variance as VarianceType;

/// Algorithm 2 of Ho et al. (2020), arXiv:2006.11239, with the posterior of its equations 6 and 7 between any two
/// timesteps; `DDPMScheduler`.  `x = α x0 + σ ε`.  Draws in every step that does not start at timestep 0.  A classifier's gradient
/// shifts the mean, in the last step too (algorithm 1 of Dhariwal and Nichol 2021, arXiv:2105.05233).
pub(in crate::diffusion) async fn ddpm<D: Denoise>(
    network: &Network<'_, D>,
    schedule: &Schedule,
    variance_type: VarianceType,
    clip: Clip,
    mut x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    for (i, (now, next)) in schedule.steps().enumerate() {
        let Posterior { prediction, variance, pull } = network.posterior(&x, now.t).await?;
        let x0 = clip.apply(network.prediction.x0(&x, &prediction, &now, 1.0));
        // α_t and β_t of the paper for the step from `now` to `next`.
        let alpha_t = (now.alpha * now.alpha) / (next.alpha * next.alpha);
        let beta_t = 1.0 - alpha_t;
        let (sigma2, sigma2_next) = (now.sigma * now.sigma, next.sigma * next.sigma);
        let mean_x0 = next.alpha * beta_t / sigma2;
        let mean_x = libm::sqrt(alpha_t) * sigma2_next / sigma2;
        let small = (beta_t * sigma2_next / sigma2).max(1e-20);
        let variance = match (variance_type, variance) {
            (VarianceType::Small, _) => Variance::One(small),
            (VarianceType::Large, _) => Variance::One(beta_t),
            (VarianceType::LearnedRange, None) => return Err(Error::NoVariance),
            (VarianceType::LearnedRange, Some(share)) => {
                let (least, most) = (libm::log(small), libm::log(beta_t));
                let middle = 0.5 * (least + most);
                Variance::Each(share.map(|v| libm::exp(middle + 0.5 * v * (most - least))))
            }
        };
        let shift = pull.map(|pull| variance.times(pull, |variance| variance));
        let noise = (now.t > 0.0).then(|| variance.times(noise.draw(x.shape()), libm::sqrt));
        let mut terms = vec![(mean_x0, &x0), (mean_x, &x)];
        terms.extend(shift.iter().chain(&noise).map(|(factor, term)| (*factor, term)));
        x = Latents::combine(&terms);
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
