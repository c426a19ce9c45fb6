//! Recipes: straight-line async functions that compute the frames of a generation and read like the papers.
//!
//! A recipe awaits [`Compute::call`] wherever a network must run. It knows nothing about batches, devices or other
//! generations. The engine suspends the recipe at each `await`, computes rows of many runs together, and resumes the
//! recipe.

mod animate_diff;
mod antialiased;
mod auxiliary;
mod beginning;
pub mod call;
pub mod calls;
mod canvas;
mod class_guided;
mod classifier_guided;
mod conditioning;
mod control_schedule;
mod crop;
pub mod decoding;
mod feature_cache;
mod film_preview;
mod frame;
mod guided;
mod image_to_image;
mod image_to_video;
mod inpaint;
mod inputs;
mod instruct_pix2pix;
mod latent_diffusion;
pub mod latent_rgb;
mod latents;
mod masked_picture;
pub mod model;
pub mod networks;
mod pixels;
mod plain_unet;
mod prepared;
mod reference;
mod refine;
mod setup;
mod sound_guided;
mod sound_latents;
mod stable_video;
mod text_guided;
mod text_to_image;
mod text_to_sound;
mod text_to_video;
mod text_to_waveform;
mod unguided;
mod wan_video;

pub use animate_diff::animate_diff;
pub use antialiased::CLIP_SIDE;
pub use auxiliary::Auxiliary;
pub(crate) use canvas::{byte, unit_byte};
pub use class_guided::class_guided;
pub use classifier_guided::classifier_guided;
pub use decoding::{Activation, decode};
pub use film_preview::{FilmOrder, FilmPreview};
pub use frame::{Clip, Frame};
pub use image_to_video::image_to_video;
pub use inputs::{FittedInputs, Inputs};
pub use latent_diffusion::LatentDiffusion;
pub use latent_rgb::LatentRgb;
pub use model::{Loaded, Model};
pub use networks::{
    Control, DenoiseRow, Denoised, Depth, Features, NetworkError, Networks, Posterior, PromptRole, Reference,
    TextEmbedding,
};
pub use pixels::reference_size;
pub use plain_unet::{Classifier, Codes, Output, PlainUNet};
pub use prepared::Prepared;
pub use stable_video::{StableVideo, StableVideoSizes};
pub use text_guided::text_guided;
pub use text_to_sound::text_to_sound;
pub use text_to_video::text_to_video;
pub use text_to_waveform::text_to_waveform;
pub use unguided::unguided;
pub use wan_video::{PictureUse, WanVideo, WanVideoSizes};

use call::Call;

use crate::{diffusion::Latents, generation::Phase};

/// The interface of a recipe to the engine: network calls, progress and previews.
pub trait Compute: Sized {
    /// The same interface for the networks of the generation's refiner; `None` if the generation has no refiner.
    fn refiner(&self) -> Option<Self>;

    /// Runs a network call. Returns one answer per row, in order. Meanwhile, the progress of the generation shows
    /// `phase`.
    fn call<C: Call>(
        &self,
        phase: Phase,
        call: C,
        rows: Vec<C::Row>,
    ) -> impl Future<Output = Result<Vec<C::Answer>, PipelineError>>;

    /// Whether the recipe should decode a preview with a network after `step` of `steps` and pass it to
    /// [`Compute::show`]. Other previews are computed from the latents alone.
    fn wants_decoded_preview(&self, step: usize, steps: usize) -> bool;

    /// Shows a preview of each picture after `step`.
    fn show(&self, step: usize, frames: Vec<Frame>);

    /// Called after each step of the sampler. `step` counts from 1 to `steps`; `denoised` is the current estimate of
    /// x0.
    fn stepped(&self, step: usize, steps: usize, denoised: &Latents);
}

/// Why a recipe failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("the sampler failed: {0}")]
    Sampler(String),
    /// Numbers became infinite or undefined. The text says which numbers, such as "the sampler's result".
    #[error("{0} is not finite")]
    NotFinite(String),
    #[error("this program has no recipe for models of the family {0:?}")]
    NoFamily(&'static str),
    #[error("the picture for {0} is missing")]
    MissingInput(&'static str),
    #[error("the job does not {0}, as the recipe of its model does")]
    OtherWork(&'static str),
}
