//! The mathematics of sampling: noise, schedules, samplers and guidance. All of it runs on the CPU.
//!
//! This module knows no device, clock, thread or batch. A sampler is an async function that calls the network through
//! [`Denoise`]; a recipe implements this trait with calls to the engine. Latents are `f32`, scalars are `f64`, and
//! every elementary function comes from `libm`, so that equal inputs give equal bits on every machine.
//!
//! Letters used throughout: `B` images in a run, `C` latent channels, `h` and `w` latent rows and columns, `T` training
//! timesteps, `n` steps, `t` a timestep in `[0, T)`. A noise level is a pair `(α, σ)`: at this level, the state of a
//! run is `x = α x0 + σ ε`, where `x0` are the latents of the picture and `ε` is unit noise. The level is variance
//! preserving if `α² + σ² = 1`. In the code, `noise` of a level means `σ/α`, the noise in `x/α` (σ of Karras et al.
//! 2022). A [`Point`] is a level with its timestep. A schedule has one point at the start of each step, and the *end*:
//! the point after the last step.
//!
//! Reading order: [`sample()`] (the entry point of a run), [`schedule`], `samplers`, then the modules that they use.

pub mod betas;
pub mod brownian;
pub mod error;
pub mod forward;
pub mod generator;
pub mod guidance;
pub mod labelled_sampler;
pub mod latents;
pub mod mt19937;
pub mod noise;
pub mod point;
pub mod posterior;
pub mod prediction;
pub mod sample;
pub mod sampler_label;
pub mod schedule;
pub mod scheduler_choice;
pub mod scheduler_config;
pub mod stages;

mod beta_distribution;
mod denoiser;
mod samplers;
mod seed_sequence;
mod sigmas;
mod spacing;
mod step_source;

pub use error::{Error, InvalidScheduler, InvalidSteps};
pub use forward::Transition;
pub use guidance::{guide, guide_edit, limited};
pub use labelled_sampler::{SCHEDULE_TYPES, UnknownLabel, labelled, sampler_labels};
pub use latents::Latents;
pub use noise::Noise;
pub use point::Point;
pub use posterior::StepPosterior;
pub use prediction::Prediction;
pub use sample::{Denoise, sample, steps_and_calls};
pub use sampler_label::SamplerLabel;
pub use schedule::Schedule;
pub use scheduler_choice::{SchedulerName, names};
pub use scheduler_config::SchedulerConfig;
pub use stages::{BaseSchedule, InvalidStage, Stages};
