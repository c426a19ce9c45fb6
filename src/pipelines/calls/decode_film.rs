//! The call for one stage of decoding the next latent frame of a film.

use async_trait::async_trait;

use super::decode::most_rows;
use crate::{
    device::Precision,
    models::{autoencoder_kl_wan::FilmState, demand::Demand},
    pipelines::{
        Activation, Model, NetworkError, WanVideo,
        call::{Call, Shape, Stage},
    },
};

/// Runs one of the stages of [`decode_stages`](crate::pipelines::WanVideoSizes::decode_stages).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeFilm {
    /// The size (h, w) of the latent frame.
    pub size: [usize; 2],
    /// Whether the latent frame is the first one of the film.
    pub begins: bool,
    /// The stage, counted from 0.
    pub stage: usize,
    /// Whether the answers are pixels.
    pub is_last: bool,
    /// The demand of the stage.
    pub demand: Demand,
}

#[async_trait]
impl Call for DecodeFilm {
    type Row = FilmState;
    type Answer = FilmState;

    fn network(&self) -> &'static str {
        "decoder"
    }

    fn shape(&self) -> Shape {
        let [h, w] = self.size;
        [h, w, usize::from(self.begins), self.stage, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[FilmState]) -> Demand {
        model
            .networks::<WanVideo>()
            .map_or(Demand::default(), |networks| self.demand.on(&networks.device, Precision::F32))
    }

    async fn run(&self, model: &Model, rows: &[FilmState]) -> Result<Vec<FilmState>, NetworkError> {
        model.networks::<WanVideo>()?.decode(self.size, self.begins, self.stage, rows).await
    }

    /// As for [`Decode`](super::Decode).
    fn is_finite(&self, film: &FilmState) -> bool {
        !self.is_last || film.map().is_ok_and(|pixels| Activation(pixels.clone()).is_finite())
    }

    fn most_rows(&self) -> usize {
        let [h, w] = self.size;
        most_rows([1, h, w])
    }

    fn stage(&self) -> Option<Stage> {
        let [h, w] = self.size;
        Some(Stage { latent_pixels: h * w, is_first: self.stage == 0 })
    }
}
