//! Straight-line async functions from a generation to its pictures, which read like the papers.
//!
//! A pipeline awaits a [`Compute`] wherever a network must run. It knows nothing of batches, devices or other
//! generations: the engine suspends it at each `await`, runs many pipelines' rows as one, and goes on.

pub mod adapters;
mod canvas;
mod card;
pub mod catalogue;
mod companions;
mod conditioning;
mod control_nets;
mod crop;
pub mod decoding;
mod embedded;
mod feature_cache;
mod generate;
mod guided;
mod image_to_image;
mod inpaint;
mod inputs;
mod instruct_pix2pix;
pub mod latent_rgb;
mod latents;
pub mod model;
pub mod networks;
mod numerics;
mod pixels;
mod refine;
mod setup;
mod steering;
mod text_to_image;

pub use adapters::Adapters;
pub use catalogue::{Acquired, Catalogue, CatalogueError, Changes, Lease, Plan, Reloaded, Ticket, Users};
pub use companions::{CompanionError, Companions};
pub use control_nets::ControlNets;
pub use decoding::{Activation, DecodeCall, decode};
pub use generate::generate;
pub use inputs::Inputs;
pub use latent_rgb::LatentRgb;
pub use model::Model;
pub use networks::{Control, DenoiseRow, Denoised, Depth, Features, NetworkError, Networks, Posterior, TextEmbedding};
pub use numerics::Numerics;

use crate::{diffusion::Latents, imaging::RgbImage, models::text_encoders::Tokens};

/// What a pipeline may await. Answers come in the order of the rows.
pub trait Compute: Sized {
    /// The same for the networks of the generation's refiner, where it has one.
    fn refiner(&self) -> Option<Self>;

    /// Prompts, each padded to the encoders' length -> one embedding each.
    fn text(
        &self,
        prompts: Vec<Tokens>,
        clip_skip: u32,
    ) -> impl Future<Output = Result<Vec<TextEmbedding>, PipelineError>>;

    /// Rows of latents (C, h, w), each with its own timestep and context -> the network's raw prediction for each, by as
    /// much of the network as `depth` says.
    fn denoise(
        &self,
        shape: [usize; 3],
        depth: Depth,
        rows: Vec<DenoiseRow>,
    ) -> impl Future<Output = Result<Vec<Denoised>, PipelineError>>;

    /// Pictures as pixels (3, H, W) in [-1, 1] -> the distribution of the latents of each.
    fn encode(
        &self,
        shape: [usize; 2],
        pixels: Vec<Vec<f32>>,
    ) -> impl Future<Output = Result<Vec<Posterior>, PipelineError>>;

    /// (B, C, h, w) -> B pictures of (8 h, 8 w) pixels.
    fn decode(&self, latents: &Latents) -> impl Future<Output = Result<Vec<RgbImage>, PipelineError>>;

    /// The same by the model's tiny decoder; an error where it has none.
    fn decode_tiny(&self, latents: &Latents) -> impl Future<Output = Result<Vec<RgbImage>, PipelineError>>;

    /// Whether a preview is due after `step` of `steps` for which [`Compute::sketch`] should be awaited.
    fn wants_sketch(&self, step: usize, steps: usize) -> bool;

    /// Shows the present estimate of the end, by the model's tiny decoder.
    fn sketch(&self, step: usize, denoised: &Latents) -> impl Future<Output = Result<(), PipelineError>>;

    /// Told after each step of the sampler: `step` counts 1..=steps, `denoised` is the present estimate of the end.
    fn stepped(&self, step: usize, steps: usize, denoised: &Latents);
}

/// Why a generation has no pictures.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("the sampler failed: {0}")]
    Sampler(String),
    #[error("the picture for {0} is not at hand")]
    MissingInput(&'static str),
}
