//! latentd: an HTTP inference server for latent diffusion that batches every denoising step of every request.
//!
//! Read the rooms in the order of a request's walk: [`http`] takes it in, [`generation`] makes it valid, [`service`]
//! says what it means, [`ledger`] makes it durable, [`worker`] claims it, [`engine`] computes it together with all
//! others, with a model of the [`catalogue`]; [`families`] say what a model is and which of the [`pipelines`] draws with it,
//! [`diffusion`] and [`models`] are the papers' mathematics and networks, [`kernels`] and [`weights`] what they stand on, and [`device`]
//! where they compute; [`imaging`] makes files of the pictures. [`app`] builds the house and ends it in order.
//!
//! What is absent, and stays absent (`tests/layering.rs` holds every sentence):
//!
//! - Imports point down: `app` > `http` > `service`, `worker`, `webhooks` > `ledger`, `engine` > `catalogue` > `families` >
//!   `pipelines` > `diffusion`, `device`, `models`, `weights`, `kernels`, `imaging` > `generation`, `config`, `crash`, `metrics`,
//!   `telemetry`.
//! - `diffusion`, `device`, `models`, `weights`, `kernels`, `imaging`, `pipelines`, `families` and `catalogue` never see tokio,
//!   axum, sqlx, a clock or an environment variable.
//! - Only `device` names the processor; tensors go where their network's device is.
//! - Above `pipelines` nothing sees pixels: results are frames until they are encoded, and artifacts from then on.
//! - Only a sampler's own file names its scheduler class.
//! - Only `families` and `models` name a family of models; no two files lead to each other but parent and child.
//! - `http` never sees candle; statuses are picked in `http/error.rs` or are a success's own.
//! - Only `config` reads settings files and the environment; only `app` and the command line start threads and tasks
//!   of their own, other rooms use the trackers of tasks that `app` lends them and waits for.
//! - A picture is a function of its request: not of the load, the batch, the retry or the number of threads.
//! - The ledger is the truth; what lives in memory can be lost without losing a generation.
//! - Every queue, channel, cache and body has a bound.
//! - Behind `generation` nothing is optional and nothing is checked again.

pub mod app;
pub mod catalogue;
pub mod config;
pub mod crash;
pub mod device;
pub mod diffusion;
pub mod engine;
pub mod families;
pub mod generation;
pub mod http;
pub mod imaging;
#[allow(unsafe_code, reason = "vector units and rectangles shared by threads; each block has its proof")]
pub mod kernels;
pub mod ledger;
pub mod metrics;
pub mod models;
pub mod pipelines;
pub mod service;
pub mod telemetry;
pub mod webhooks;
pub mod weights;
pub mod worker;
