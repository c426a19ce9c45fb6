//! The networks of Stable Video Diffusion. They compute the rows of calls in batches.

use candle_core::{DType, Result, Tensor};

use super::{Activation, FilmPreview, Frame, Loaded, NetworkError, byte, calls::ClipRow};
use crate::{
    device::Device,
    diffusion::Latents,
    models::{
        AutoencoderKlTemporalDecoder, ClipImageEncoder, UNetSpatioTemporalModel,
        autoencoder_kl::Stage,
        autoencoder_kl_temporal_decoder::AutoencoderKlTemporalDecoderConfig,
        clip_vision::ClipVisionConfig,
        demand::Demand,
        pause::ToEnd,
        unet_spatio_temporal::{ClipConditions, UNetSpatioTemporalConfig},
    },
};

/// The networks of Stable Video Diffusion, in memory.
#[derive(Debug)]
pub struct StableVideo {
    pub image_encoder: ClipImageEncoder,
    pub unet: UNetSpatioTemporalModel,
    pub vae: AutoencoderKlTemporalDecoder,
    pub sizes: StableVideoSizes,
    /// `None` only while the map is fitted.
    pub preview: Option<FilmPreview>,
    pub device: Device,
}

/// The sizes of the networks.
#[derive(Clone, Debug)]
pub struct StableVideoSizes {
    pub image_encoder: ClipVisionConfig,
    pub unet: UNetSpatioTemporalConfig,
    pub vae: AutoencoderKlTemporalDecoderConfig,
}

/// A decoding stage of several layers does at most this number of multiplications for one clip. A layer with more is a
/// stage of its own.
const STAGE_WORK: f64 = 1e9;

impl StableVideoSizes {
    /// C: channels of the latents of a frame.
    pub fn latent_channels(&self) -> usize {
        self.vae.pictures.latent_channels
    }

    /// Pixels per latent pixel, along one side.
    pub fn scale(&self) -> usize {
        self.vae.pictures.scale()
    }

    /// The width of the vector of a picture.
    pub fn vector_width(&self) -> usize {
        self.unet.vector_width()
    }

    /// The demand of encoding one picture to a vector.
    pub fn picture_demand(&self) -> Demand {
        self.image_encoder.demand()
    }

    /// The demand of encoding one picture of (H, W) pixels to latents.
    pub fn still_demand(&self, size: [usize; 2]) -> Demand {
        self.vae.encode_demand(size)
    }

    /// The demand of a prediction for one clip of `frames` frames of (h, w) latent pixels.
    pub fn denoise_demand(&self, frames: usize, size: [usize; 2]) -> Demand {
        self.unet.demand(frames, size)
    }

    /// The demand of decoding `frames` frames of (h, w) latent pixels together.
    pub fn decode_demand(&self, frames: usize, size: [usize; 2]) -> Demand {
        self.vae.decode_demand(frames, size)
    }

    fn stages(&self, [f, _, h, w]: [usize; 4]) -> Vec<Stage> {
        self.vae.decode_stages(f, [h, w], STAGE_WORK)
    }
}

impl StableVideo {
    /// The vector of each picture with pixels (3, side, side) in [0, 1].
    ///
    /// # Errors
    /// A row does not fit the network.
    pub async fn encode_pictures(&self, rows: &[Vec<f32>]) -> std::result::Result<Vec<Vec<f32>>, NetworkError> {
        let encode = async {
            let vectors = self.image_encoder.forward(&rows.concat(), rows.len(), self.device.candle()).await?;
            vectors.to_dtype(DType::F32)?.to_vec2::<f32>()
        };
        encode.await.map_err(NetworkError::of("image_encoder"))
    }

    /// The most likely latents (C, h, w) of each picture with pixels (3, H, W), roughly in [-1, 1], without a scaling
    /// factor.
    ///
    /// # Errors
    /// A row does not fit the network.
    pub async fn encode_stills(
        &self,
        [height, width]: [usize; 2],
        rows: &[Vec<f32>],
    ) -> std::result::Result<Vec<Vec<f32>>, NetworkError> {
        let encode = async {
            let pixels = Tensor::from_vec(rows.concat(), (rows.len(), 3, height, width), self.device.candle())?;
            rows_of(&self.vae.encode(&pixels).await?)
        };
        encode.await.map_err(NetworkError::of("vae_encoder"))
    }

    /// The raw prediction (F, C, h, w) for each clip of this shape.
    ///
    /// # Errors
    /// A row does not fit the network.
    pub async fn denoise(
        &self,
        [f, c, h, w]: [usize; 4],
        rows: &[ClipRow],
    ) -> std::result::Result<Vec<Vec<f32>>, NetworkError> {
        let device = self.device.candle();
        let predict = async {
            let frames = rows.iter().flat_map(|row| row.latents.chunks((c * h * w).max(1)).map(move |x| (row, x)));
            let samples: Vec<f32> = frames.flat_map(|(row, x)| x.iter().chain(row.picture.iter()).copied()).collect();
            let samples = Tensor::from_vec(samples, (rows.len() * f, 2 * c, h, w), device)?;
            let vectors: Vec<f32> = rows.iter().flat_map(|row| row.vector.iter().copied()).collect();
            let vectors = Tensor::from_vec(vectors, (rows.len(), self.sizes.vector_width()), device)?;
            let t: Vec<f32> = rows.iter().map(|row| row.t).collect();
            let time_ids: Vec<f32> = rows.iter().flat_map(|row| row.time_ids).collect();
            let conditions = ClipConditions { t: &t, time_ids: &time_ids, vectors: &vectors, frames: f };
            let predictions = self.unet.forward(&samples, conditions).await?;
            rows_of(&predictions.reshape((rows.len(), f * c, h, w))?)
        };
        predict.await.map_err(NetworkError::of("unet"))
    }

    /// The stages of decoding latents (F, C, h, w), each a call of [`StableVideo::decode`]. Returns, for each stage,
    /// its share of the total work; the shares add up to 1.
    pub fn decode_stages(&self, shape: [usize; 4]) -> Vec<f64> {
        let stages = self.sizes.stages(shape);
        let all: f64 = stages.iter().map(|stage| stage.demand.work).sum();
        stages.iter().map(|stage| stage.demand.work / all).collect()
    }

    /// Runs one stage, counted from 0, of decoding latents (F, C, h, w). The first stage takes latents (1, F, C, h, w),
    /// each later one takes the output of the stage before, and the last one returns pixels (1, F, H, W, 3), roughly in
    /// [-1, 1].
    ///
    /// # Errors
    /// There is no such stage, or a row does not fit it.
    pub async fn decode(
        &self,
        shape: [usize; 4],
        stage: usize,
        rows: &[Activation],
    ) -> std::result::Result<Vec<Activation>, NetworkError> {
        let stages = self.sizes.stages(shape);
        let Some(layers) = stages.get(stage).map(|stage| stage.layers.clone()) else {
            return Err(NetworkError::new("vae", format!("stage {stage} of {}", stages.len())));
        };
        let frames = shape[0];
        let decode = async {
            let mut x = Activation::join(rows)?.to_device(self.device.candle())?.flatten(0, 1)?;
            if stage == 0 {
                x = (x * (1.0 / self.sizes.vae.pictures.scaling_factor))?;
            }
            let x = self.vae.decode_layers(layers, x, frames).await?;
            let (_, height, width, channels) = x.dims4()?;
            Activation::split(x.reshape((rows.len(), frames, height, width, channels))?)
        };
        decode.await.map_err(NetworkError::of("vae"))
    }

    /// Decodes the latents (1, C, h, w) of a film of one frame without an engine, for a caller that has the networks to
    /// itself.
    ///
    /// # Errors
    /// The decoder failed.
    pub fn decode_alone(&self, latents: &Latents) -> std::result::Result<Vec<Frame>, NetworkError> {
        let shape = latents.shape();
        let mut rows = vec![Activation::of_clip(latents.data().to_vec(), shape)?];
        for stage in 0..self.decode_stages(shape).len() {
            rows = self.decode(shape, stage, &rows).to_end()?;
        }
        rows.iter().map(picture_of).collect::<Result<_>>().map_err(NetworkError::of("vae"))
    }
}

/// The picture of pixels (1, 1, H, W, 3) in [-1, 1].
fn picture_of(pixels: &Activation) -> Result<Frame> {
    let (_, _, height, width, _) = pixels.0.dims5()?;
    let levels: Vec<f32> = pixels.0.flatten_all()?.to_vec1()?;
    Ok(Frame::picture(width, height, levels.into_iter().map(byte).collect()))
}

impl Loaded for StableVideo {
    fn rgb_preview(&self, estimate: &[f32], shape: [usize; 3]) -> Option<Frame> {
        self.preview.as_ref()?.frame(estimate, shape)
    }
}

/// The rows of a batch on the host, in float32.
fn rows_of(batch: &Tensor) -> Result<Vec<Vec<f32>>> {
    batch.flatten_from(1)?.to_dtype(DType::F32)?.to_vec2::<f32>()
}
