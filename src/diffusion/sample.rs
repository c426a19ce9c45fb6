//! Entry points of sampling: run the sampler of a schedule, and count its steps and network calls.

use super::denoiser::Denoiser;
use super::error::{Error, InvalidSteps};
use super::latents::Latents;
use super::noise::Noise;
use super::samplers::{self, SamplerInputs};
use super::schedule::Schedule;
use super::scheduler_config::SchedulerConfig;

pub use super::denoiser::Denoise;

/// Runs the sampler of `schedule` from the first state `x: (B, C, h, w)` and returns the latents of the finished
/// pictures, of the same shape. `x` is unit noise times `init_noise_sigma`, or the latents of pictures with noise
/// added. `eta` is clamped to `[0, 1]`; DDIM uses it as the fraction of DDPM's noise that each step adds, TCD as γ; the
/// other samplers ignore it. The sampler takes random numbers from `noise` in the same order as diffusers.
///
/// # Errors
/// The network fails, a shape does not match, or the result is not finite.
pub async fn sample<D: Denoise>(
    denoise: &D,
    schedule: &Schedule,
    eta: f64,
    x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    let network = Denoiser::new(denoise, schedule);
    let eta = if eta > 0.0 { eta.min(1.0) } else { 0.0 };
    let run = SamplerInputs { network: &network, schedule, eta, x, noise };
    let x = samplers::sample(&*schedule.config().sampler, run).await?;
    if x.is_finite() { Ok(x) } else { Err(Error::NotFinite) }
}

/// The number of steps of a whole run and the number of its network calls, computed without running it. The returned
/// number of steps differs from the argument `steps` only where `lambda_min_clipped` removes timesteps of the spacing
/// `trailing`.
///
/// # Errors
/// The scheduler cannot run this number of steps.
pub fn steps_and_calls(config: &SchedulerConfig, steps: usize) -> Result<(usize, usize), InvalidSteps> {
    let schedule = Schedule::new(config, steps)?;
    Ok((schedule.steps().len(), schedule.calls()))
}
