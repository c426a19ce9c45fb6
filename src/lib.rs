//! latentd: an HTTP inference server for latent diffusion that batches every denoising step of every request.
//!
//! A request passes through the modules in this order: [`http`] receives it, [`generation`] validates it, [`service`]
//! applies the rules of the API, [`ledger`] stores it, [`worker`] claims it, and [`engine`] computes it in batches with
//! other requests, with a model of the [`catalogue`]. [`families`] define the kinds of models and which of the
//! [`pipelines`] draws with each. [`diffusion`] contains the samplers. [`models`] contains the networks, which are
//! built on [`kernels`] (a crate of its own), [`weights`] and [`device`]. [`safety`] checks what the pictures show,
//! [`watermark`] marks them, [`imaging`] and [`audio`] encode results, and [`provenance`] signs their files. (Another
//! crate of its own, `latentd-pixels`, contains [`watermark`] and what [`imaging`] computes with pixels.) [`app`]
//! starts the server and stops it in order.
//!
//! Invariants (`tests/layering.rs` checks those that can be seen in the source):
//!
//! - A module imports only from modules of its own group and of the groups to the right: `app` > `http` > `service`,
//!   `worker`, `webhooks` > `ledger`, `engine`, `safety` > `catalogue` > `families` > `pipelines` > `diffusion`,
//!   `device`, `models`, `weights`, `kernels`, `imaging`, `audio`, `provenance`, `watermark` > `generation`, `config`,
//!   `crash`, `executable`, `hex`, `jitter`, `metrics`, `telemetry`, `transient`.
//! - `diffusion`, `device`, `models`, `weights`, `kernels`, `imaging`, `audio`, `watermark`, `pipelines`,
//!   `families` and `catalogue` do not use tokio, axum, sqlx, clocks or environment variables.
//! - Only `device` names candle's devices. Tensors are created on the device of their network.
//! - Modules above `pipelines` do not compute with pixels: results are frames until `imaging` encodes them, then
//!   artifacts.
//! - Only a sampler's own file names its scheduler class.
//! - Only `families` and `models` name a family of models. No two files import each other, except parent and child.
//! - `http` does not use candle. Only `http/error.rs` chooses the status codes of errors.
//! - Only `config` reads settings files and the environment.
//! - Only `app` and the command line start single threads, or tasks without a task tracker. (`device` builds the thread
//!   pool of a device.) Other modules start tasks in task trackers, whose tasks the server waits for when it stops, and
//!   run blocking work with `spawn_blocking`.
//! - A picture depends only on its request, not on load, batch, retries or the number of threads. (On a GPU, its last
//!   bits may depend on the batch, unless `engine.batch_invariant` is set.)
//! - The ledger is the truth: losing everything in memory loses no generation.
//! - Every queue, channel, cache and body has a bound.
//! - After `generation` has parsed a request, every default is filled in. Later code checks again only what may have
//!   changed with the files of models (in `catalogue`).

pub mod app;
pub mod audio;
pub mod catalogue;
pub mod config;
pub mod crash;
pub mod device;
pub mod diffusion;
pub mod engine;
pub mod executable;
pub mod families;
pub mod generation;
pub mod hex;
pub mod http;
pub mod imaging;
pub mod jitter;
pub mod ledger;
pub mod metrics;
pub mod models;
pub mod pipelines;
pub mod provenance;
pub mod safety;
pub mod service;
pub mod telemetry;
pub mod transient;
pub mod webhooks;
pub mod weights;
pub mod worker;

pub use latentd_kernels as kernels;
pub use latentd_pixels::watermark;
