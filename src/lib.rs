//! latentd: an HTTP inference server for latent diffusion that batches every denoising step of every request.

pub mod app;
pub mod config;
pub mod diffusion;
pub mod engine;
pub mod generation;
pub mod http;
pub mod imaging;
pub mod kernels;
pub mod ledger;
pub mod metrics;
pub mod models;
pub mod pipelines;
pub mod service;
pub mod telemetry;
pub mod weights;
pub mod worker;
