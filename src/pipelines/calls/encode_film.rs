//! The call for one stage of encoding the next frames of a film.

use async_trait::async_trait;

use crate::{
    device::Precision,
    models::{autoencoder_kl_wan::FilmState, demand::Demand},
    pipelines::{
        Activation, Model, NetworkError, WanVideo,
        call::{Call, Shape, Stage},
    },
};

/// Runs one of the stages of [`encode_stages`](crate::pipelines::WanVideoSizes::encode_stages).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncodeFilm {
    /// The size (H, W) of the frames, in pixels.
    pub size: [usize; 2],
    /// Whether the call encodes the first frame of the film. Otherwise, it encodes the next four frames.
    pub begins: bool,
    /// The stage, counted from 0.
    pub stage: usize,
    /// Whether the answers are latents.
    pub is_last: bool,
    /// The demand of the stage.
    pub demand: Demand,
}

#[async_trait]
impl Call for EncodeFilm {
    type Row = FilmState;
    type Answer = FilmState;

    fn network(&self) -> &'static str {
        "encoder"
    }

    fn shape(&self) -> Shape {
        let [height, width] = self.size;
        [height, width, usize::from(self.begins), self.stage, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[FilmState]) -> Demand {
        let of = |networks: &WanVideo| self.demand.on(&networks.device, Precision::F32);
        model.networks::<WanVideo>().map_or(Demand::default(), of)
    }

    async fn run(&self, model: &Model, rows: &[FilmState]) -> Result<Vec<FilmState>, NetworkError> {
        model.networks::<WanVideo>()?.encode(self.size, self.begins, self.stage, rows).await
    }

    /// As for [`DecodeFilm`](super::DecodeFilm).
    fn is_finite(&self, film: &FilmState) -> bool {
        !self.is_last || film.map().is_ok_and(|latents| Activation(latents.clone()).is_finite())
    }

    /// As for [`Encode`](super::Encode).
    fn most_rows(&self) -> usize {
        1
    }

    fn stage(&self) -> Option<Stage> {
        let [height, width] = self.size;
        // A latent pixel stands for at least 64 pixels.
        Some(Stage { latent_pixels: height * width / 64, is_first: self.stage == 0 })
    }
}
