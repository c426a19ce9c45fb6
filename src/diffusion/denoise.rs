//! From a schedule to the sampler that it is run by.

use super::error::{Error, InvalidSteps};
use super::latents::Latents;
use super::network::Network;
use super::noise::Noise;
use super::samplers::{self, Run};
use super::schedule::Schedule;
use super::scheduler_config::SchedulerConfig;

pub use super::network::Denoise;

/// Runs the sampler of `schedule` from its first state `x: (B, C, h, w)` (unit noise times the schedule's
/// `init_noise_sigma`, or a picture under noise) to latents of a picture, of the same shape.  `eta`, held in `[0, 1]`, is
/// DDIM's share of noise and TCD's γ, the other samplers ignore it; `noise` is drawn from in diffusers' order, after `x`.
pub async fn sample<D: Denoise>(
    denoise: &D,
    schedule: &Schedule,
    eta: f64,
    x: Latents,
    noise: &mut Noise,
) -> Result<Latents, Error> {
    let network = Network::new(denoise, schedule);
    let eta = if eta > 0.0 { eta.min(1.0) } else { 0.0 };
    let run = Run { network: &network, schedule, eta, x, noise };
    let x = samplers::sample(&*schedule.config().sampler, run).await?;
    if x.is_finite() { Ok(x) } else { Err(Error::NotFinite) }
}

/// How many steps a whole run will take and how often it will ask the network, without running it.  The steps are those
/// asked for, except where `lambda_min_clipped` cuts trailing timesteps off.
pub fn steps_and_calls(config: &SchedulerConfig, steps: usize) -> Result<(usize, usize), InvalidSteps> {
    let schedule = Schedule::new(config, steps)?;
    Ok((schedule.steps().len(), schedule.calls()))
}
