//! Langevin corrections of the score SDE samplers (Song et al. 2021, arXiv:2011.13456).

use crate::diffusion::latents::Latents;
use crate::diffusion::noise::Noise;

/// One correction of algorithms 4 and 5 of Song et al. (2021): a step along the score `∇ ln p(x)`, plus noise. `snr` is
/// the signal-to-noise ratio of the step. `alpha` is the fraction of the state's variance that the next level keeps; it
/// is 1 for variance-exploding equations. The norms of score and noise are means over the images that share a
/// generator, as in diffusers; with a generator per image, each image uses its own norms.
pub(super) fn langevin(x: &Latents, score: &Latents, snr: f64, alpha: f64, noise: &mut Noise) -> Latents {
    let z = noise.draw(x.shape());
    let rows = x.shape()[0];
    let group = if noise.is_batch() { rows.max(1) } else { 1 };
    let mut step = Vec::with_capacity(rows);
    for first in (0..rows).step_by(group) {
        let mean = |of: &Latents| (first..first + group).map(|b| norm(of.row(b))).sum::<f64>() / group as f64;
        let ratio = snr * mean(&z) / mean(score);
        step.extend(std::iter::repeat_n(2.0 * alpha * ratio * ratio, group));
    }
    let by_row = |of: &Latents, factor: &dyn Fn(f64) -> f64| {
        let mut factors = step.iter().map(|step| factor(*step));
        of.clone().each_row(|row| {
            let factor = factors.next().unwrap_or_default();
            row.iter_mut().for_each(|x| *x = (factor * f64::from(*x)) as f32);
        })
    };
    let drift = by_row(score, &|step| step);
    let spread = by_row(&z, &|step| libm::sqrt(2.0 * step));
    Latents::combine(&[(1.0, x), (1.0, &drift), (1.0, &spread)])
}

fn norm(row: &[f32]) -> f64 {
    libm::sqrt(row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum())
}
