//! The families of models: what each can be asked for, how its files are read, and which recipe draws with it.

pub mod stable_diffusion;
