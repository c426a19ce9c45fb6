//! From a schedule to the sampler that it is run by.

use super::error::{Error, InvalidSteps};
use super::latents::Latents;
use super::network::Network;
use super::noise::Noise;
use super::samplers;
use super::schedule::Schedule;
use super::scheduler_config::{Sampler, SchedulerConfig};

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
    let config = schedule.config();
    let network = Network::new(denoise, schedule);
    let eta = if eta > 0.0 { eta.min(1.0) } else { 0.0 };
    let x = match &config.sampler {
        Sampler::Ddpm { variance, clip } => samplers::ddpm(&network, schedule, *variance, *clip, x, noise).await?,
        Sampler::Ddim(options) => samplers::ddim(&network, schedule, *options, eta, x, noise).await?,
        Sampler::Pndm { skip_prk_steps, .. } => samplers::pndm(&network, schedule, *skip_prk_steps, x).await?,
        Sampler::Euler(_) => samplers::euler(&network, schedule, x).await?,
        Sampler::EulerAncestral => samplers::euler_a(&network, schedule, x, noise).await?,
        Sampler::Heun { clip, .. } => samplers::heun(&network, schedule, *clip, x).await?,
        Sampler::Lms { .. } => samplers::lms(&network, schedule, x).await?,
        Sampler::Dpm2 { ancestral, .. } => samplers::dpm2(&network, schedule, *ancestral, x, noise).await?,
        Sampler::DpmMultistep(dpm) => samplers::dpm_multistep(&network, schedule, dpm, x, noise).await?,
        Sampler::DpmSinglestep(dpm) => samplers::dpm_singlestep(&network, schedule, dpm, x, noise).await?,
        Sampler::UniPc(options) => samplers::uni_pc(&network, schedule, options, x).await?,
        Sampler::Deis(options) => samplers::deis(&network, schedule, options, x).await?,
        Sampler::Lcm { timestep_scaling, clip, .. } => {
            samplers::lcm(&network, schedule, *timestep_scaling, *clip, x, noise).await?
        }
        Sampler::Tcd { .. } => samplers::tcd(&network, schedule, eta, x, noise).await?,
        Sampler::Ipndm => samplers::ipndm(&network, schedule, x).await?,
        Sampler::DpmSde { seed, .. } => samplers::dpm_sde(&network, schedule, *seed, x, noise).await?,
        Sampler::SaSolver(options) => samplers::sa_solver(&network, schedule, options, x, noise).await?,
        Sampler::EdmEuler(_) => samplers::euler(&network, schedule, x).await?,
        Sampler::EdmDpmMultistep(_, dpm) => samplers::dpm_multistep(&network, schedule, dpm, x, noise).await?,
        Sampler::FlowEuler { stochastic, .. } => {
            samplers::flow_euler(&network, schedule, *stochastic, x, noise).await?
        }
        Sampler::FlowHeun => samplers::flow_heun(&network, schedule, x).await?,
        Sampler::Consistency(options) => samplers::consistency(&network, schedule, options, x, noise).await?,
        Sampler::ScoreSdeVe(options) => samplers::sde_ve(&network, schedule, options, x, noise).await?,
        Sampler::ScoreSdeVp(options) => samplers::sde_vp(&network, schedule, options, x, noise).await?,
    };
    if x.is_finite() { Ok(x) } else { Err(Error::NotFinite) }
}

/// How many steps a whole run will take and how often it will ask the network, without running it.  The steps are those
/// asked for, except where `lambda_min_clipped` cuts trailing timesteps off.
pub fn steps_and_calls(config: &SchedulerConfig, steps: usize) -> Result<(usize, usize), InvalidSteps> {
    let schedule = Schedule::new(config, steps)?;
    Ok((schedule.steps().len(), schedule.calls()))
}
