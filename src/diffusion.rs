//! The mathematics of sampling, on the host and nowhere else: noise, schedules, samplers, guidance.
//!
//! Nothing here knows a device, a clock, a thread or a batch.  A sampler is an async function over [`Denoise`]; what
//! awaiting the network means is the engine's affair.  Latents are `f32`, scalars `f64`, and every elementary function
//! comes from `libm`, so that equal inputs give equal bits on every machine.
//!
//! Letters used throughout: `B` images in a run, `C` latent channels, `h` and `w` latent rows and columns, `T` training
//! timesteps, `n` steps, `t` a timestep in `[0, T)`.  A noise level is a pair `(α, σ)`, `x = α x0 + σ ε`: variance
//! preserving, `α² + σ² = 1`.  `σ/α`, the noise of Karras et al. (2022) in `x/α`, is called `noise` in the code.
//!
//! Reading order: [`denoise`] (what a run calls), [`schedule`], `samplers`, then what they stand on.

pub mod betas;
pub mod brownian;
pub mod denoise;
pub mod error;
pub mod forward;
pub mod generator;
pub mod guidance;
pub mod latents;
pub mod mt19937;
pub mod noise;
pub mod point;
pub mod posterior;
pub mod prediction;
pub mod sampler_label;
pub mod schedule;
pub mod scheduler_choice;
pub mod scheduler_config;
pub mod stages;

mod beta_distribution;
mod course;
mod network;
mod samplers;
mod seed_sequence;
mod sigmas;
mod spacing;

pub use denoise::{Denoise, sample, steps_and_calls};
pub use error::{Error, InvalidScheduler, InvalidSteps};
pub use forward::Transition;
pub use guidance::{guide, guide_edit};
pub use latents::Latents;
pub use noise::Noise;
pub use point::Point;
pub use posterior::Posterior;
pub use prediction::Prediction;
pub use sampler_label::SamplerLabel;
pub use schedule::Schedule;
pub use scheduler_choice::{SchedulerName, names};
pub use scheduler_config::SchedulerConfig;
pub use stages::{InvalidStage, OwnSchedule, Stages};
