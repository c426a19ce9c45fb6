//! The call for one stage of decoding the latents of several frames of a clip.

use async_trait::async_trait;

use super::decode::most_rows;
use crate::{
    models::demand::Demand,
    pipelines::{
        Activation, Model, NetworkError, StableVideo,
        call::{Call, Shape, Stage},
    },
};

/// Runs one of the stages that [`StableVideo::decode_stages`] returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeClip {
    /// The shape (F, C, h, w) of the latents of the frames that the decoder sees together.
    pub shape: [usize; 4],
    /// The stage, counted from 0.
    pub stage: usize,
    /// Whether the answers are pixels.
    pub is_last: bool,
    /// The stage's share of the work of the whole decoder, in [0, 1].
    pub share: f64,
}

impl DecodeClip {
    /// The latent pixels of all frames as those of one picture.
    fn as_picture(&self) -> [usize; 3] {
        let [f, c, h, w] = self.shape;
        [c, f * h, w]
    }
}

#[async_trait]
impl Call for DecodeClip {
    type Row = Activation;
    type Answer = Activation;

    fn network(&self) -> &'static str {
        "decoder"
    }

    fn shape(&self) -> Shape {
        let [f, c, h, w] = self.shape;
        [f, c, h, w, self.stage, 0]
    }

    fn demand(&self, model: &Model, _rows: &[Activation]) -> Demand {
        let [f, _, h, w] = self.shape;
        let of_whole = |networks: &StableVideo| networks.sizes.decode_demand(f, [h, w]);
        let whole = model.networks::<StableVideo>().map_or(Demand::default(), of_whole);
        Demand { work: self.share * whole.work, ..whole }
    }

    async fn run(&self, model: &Model, rows: &[Activation]) -> Result<Vec<Activation>, NetworkError> {
        model.networks::<StableVideo>()?.decode(self.shape, self.stage, rows).await
    }

    /// As for [`Decode`](super::Decode).
    fn is_finite(&self, activation: &Activation) -> bool {
        !self.is_last || activation.is_finite()
    }

    fn most_rows(&self) -> usize {
        most_rows(self.as_picture())
    }

    fn stage(&self) -> Option<Stage> {
        let [_, h, w] = self.as_picture();
        Some(Stage { latent_pixels: h * w, is_first: self.stage == 0 })
    }
}
