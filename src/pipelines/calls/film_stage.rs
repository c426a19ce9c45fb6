//! The call for one stage of encoding or decoding the next frames of a film.

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

/// Runs one of the stages of [`encode_stages`](crate::pipelines::WanVideoSizes::encode_stages) or
/// [`decode_stages`](crate::pipelines::WanVideoSizes::decode_stages).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FilmStage {
    pub way: FilmWay,
    /// Whether the stage belongs to the first frame of the film, and otherwise to the next ones.
    pub begins: bool,
    /// The stage, counted from 0.
    pub stage: usize,
    /// Whether the answers are latents or pixels.
    pub is_last: bool,
    /// The demand of the stage.
    pub demand: Demand,
}

/// Whether a film is encoded or decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilmWay {
    /// Frames of (H, W) pixels: the first one, or the next four.
    Encode([usize; 2]),
    /// A latent frame (h, w).
    Decode([usize; 2]),
}

#[async_trait]
impl Call for FilmStage {
    type Row = FilmState;
    type Answer = FilmState;

    fn network(&self) -> &'static str {
        match self.way {
            FilmWay::Encode(_) => "encoder",
            FilmWay::Decode(_) => "decoder",
        }
    }

    fn shape(&self) -> Shape {
        let (FilmWay::Encode([height, width]) | FilmWay::Decode([height, width])) = self.way;
        [height, width, usize::from(self.begins), self.stage, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[FilmState]) -> Demand {
        let of = |networks: &WanVideo| self.demand.on(&networks.device, Precision::F32);
        model.networks::<WanVideo>().map_or(Demand::default(), of)
    }

    async fn run(&self, model: &Model, rows: &[FilmState]) -> Result<Vec<FilmState>, NetworkError> {
        let networks = model.networks::<WanVideo>()?;
        match self.way {
            FilmWay::Encode(size) => networks.encode(size, self.begins, self.stage, rows).await,
            FilmWay::Decode(size) => networks.decode(size, self.begins, self.stage, rows).await,
        }
    }

    /// As for [`Decode`](super::Decode).
    fn is_finite(&self, film: &FilmState) -> bool {
        !self.is_last || film.map().is_ok_and(|numbers| Activation(numbers.clone()).is_finite())
    }

    /// As for [`Encode`](super::Encode) and [`Decode`](super::Decode).
    fn most_rows(&self) -> usize {
        match self.way {
            FilmWay::Encode(_) => 1,
            FilmWay::Decode([h, w]) => most_rows([1, h, w]),
        }
    }

    fn stage(&self) -> Option<Stage> {
        let latent_pixels = match self.way {
            // The pixels of latents are 64 or more pixels.
            FilmWay::Encode([height, width]) => height * width / 64,
            FilmWay::Decode([h, w]) => h * w,
        };
        Some(Stage { latent_pixels, is_first: self.stage == 0 })
    }
}
