//! Tests of schedules, samplers and noise: comparisons with results of diffusers and torch, and properties that hold
//! for any configuration.

mod bounds;
mod choices;
mod flow;
mod forward;
mod goldens;
mod lists;
mod network;
mod noise;
mod properties;
mod sde;
mod stages;
mod trajectories;
