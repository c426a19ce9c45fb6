//! Straight-line async functions from a generation to its results, which read like the papers.
//!
//! A pipeline awaits a [`Compute`] wherever a network must run. It knows nothing of batches, devices or other
//! generations: the engine suspends it at each `await`, runs many pipelines' rows as one, and goes on.

pub mod call;
pub mod calls;
mod canvas;
mod class_guided;
mod classifier_guided;
mod companions;
mod conditioning;
mod crop;
pub mod decoding;
mod feature_cache;
mod frame;
mod guided;
mod image_to_image;
mod inpaint;
mod inputs;
mod instruct_pix2pix;
mod latent_diffusion;
pub mod latent_rgb;
mod latents;
pub mod model;
pub mod networks;
mod pixels;
mod plain_unet;
mod prepared;
mod refine;
mod setup;
mod steering;
mod text_guided;
mod text_to_image;
mod unguided;

pub(crate) use canvas::{byte, unit_byte};
pub use class_guided::class_guided;
pub use classifier_guided::classifier_guided;
pub use companions::Companions;
pub use decoding::{Activation, decode};
pub use frame::Frame;
pub use inputs::Inputs;
pub use latent_diffusion::LatentDiffusion;
pub use latent_rgb::LatentRgb;
pub use model::{Loaded, Model};
pub use networks::{Control, DenoiseRow, Denoised, Depth, Features, NetworkError, Networks, Posterior, TextEmbedding};
pub use plain_unet::{Classifier, Codes, Output, PlainUNet};
pub use prepared::Prepared;
pub use text_guided::text_guided;
pub use unguided::unguided;

use call::Call;

use crate::{diffusion::Latents, generation::Phase};

/// What a pipeline may await.
pub trait Compute: Sized {
    /// The same for the networks of the generation's refiner, where it has one.
    fn refiner(&self) -> Option<Self>;

    /// One answer for each row, in order; `phase` is what the generation shows meanwhile.
    fn call<C: Call>(
        &self,
        phase: Phase,
        call: C,
        rows: Vec<C::Row>,
    ) -> impl Future<Output = Result<Vec<C::Answer>, PipelineError>>;

    /// Whether a preview is due after `step` of `steps` which the pipeline should decode and [`Compute::show`].
    fn wants_sketch(&self, step: usize, steps: usize) -> bool;

    /// Shows a preview of each result after `step`.
    fn show(&self, step: usize, frames: Vec<Frame>);

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
    #[error("no family {0:?} draws")]
    NoFamily(&'static str),
    #[error("the picture for {0} is not at hand")]
    MissingInput(&'static str),
}
