//! Schedules, samplers and noise against what diffusers and torch compute, and the properties that hold for any
//! configuration.

mod bounds;
mod choices;
mod forward;
mod goldens;
mod lists;
mod network;
mod noise;
mod properties;
mod sde;
mod stages;
mod trajectories;
