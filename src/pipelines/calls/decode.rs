//! The call for one stage of decoding latents to pictures.

use async_trait::async_trait;

use crate::{
    models::{demand::Demand, latent_diffusion::Part},
    pipelines::{
        Activation, LatentDiffusion, Model, NetworkError,
        call::{Call, Shape, Stage},
    },
};

/// The engine decodes pictures in three lanes, which do not wait for each other. The first lane is for pictures of at
/// most a quarter of this number of latent pixels, the second for larger ones of at most this number, the third for all
/// larger ones. The pictures that the first or the second lane decodes at the same time have at most this number of
/// latent pixels together; the third decodes one picture at a time. A tile of a large picture counts as a picture of
/// its size.
///
/// The limit exists because activations have as many pixels as the picture and many more channels. With 8 × 8 pixels
/// per latent pixel, at most four pictures of 256 × 256 pixels in the first lane, one of 512 × 512 in the second, and
/// one larger picture in the third are decoded at the same time.
pub const DECODING: usize = 64 * 64;

/// Runs one of the stages that [`Networks::decode_stages`](crate::pipelines::Networks::decode_stages) returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decode {
    /// The shape (C, h, w) of the latents.
    pub shape: [usize; 3],
    /// The stage, counted from 0.
    pub stage: usize,
    /// Whether the answers are pixels.
    pub is_last: bool,
    /// The stage's share of the work of the whole decoder, in [0, 1].
    pub share: f64,
}

#[async_trait]
impl Call for Decode {
    type Row = Activation;
    type Answer = Activation;

    fn network(&self) -> &'static str {
        "decoder"
    }

    fn shape(&self) -> Shape {
        let [c, h, w] = self.shape;
        [c, h, w, self.stage, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[Activation]) -> Demand {
        let [_, h, w] = self.shape;
        let whole = LatentDiffusion::demand(model, Part::Decode { size: [h, w] });
        Demand { work: self.share * whole.work, ..whole }
    }

    async fn run(&self, model: &Model, rows: &[Activation]) -> Result<Vec<Activation>, NetworkError> {
        LatentDiffusion::of(model)?.decode(self.shape, self.stage, rows).await
    }

    /// Checks only the pixels of the last stage, which are fewer numbers than the activations of the other stages. A
    /// number that is not finite in an earlier stage leads to pixels that are not finite.
    fn is_finite(&self, activation: &Activation) -> bool {
        !self.is_last || activation.is_finite()
    }

    fn most_rows(&self) -> usize {
        most_rows(self.shape)
    }

    fn stage(&self) -> Option<Stage> {
        let [_, h, w] = self.shape;
        Some(Stage { latent_pixels: h * w, is_first: self.stage == 0 })
    }
}

/// How many pictures with latents (C, h, w) may be decoded at the same time, at least 1.
pub(super) fn most_rows([_, h, w]: [usize; 3]) -> usize {
    (DECODING / (h * w).max(1)).max(1)
}
