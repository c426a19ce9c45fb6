//! The networks of Wan. They compute the rows of calls in batches.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::{FilmPreview, Frame, Loaded, NetworkError, TextEmbedding, byte, calls::FilmRow};
use crate::{
    device::{Device, HOST},
    diffusion::Latents,
    imaging::Pixels,
    kernels::Kernels,
    models::{
        AutoencoderKlWan, ClipVisionModel, T5EncoderModel, T5Tokenizer, WanTransformer3DModel,
        autoencoder_kl::Stage,
        autoencoder_kl_wan::{AutoencoderKlWanConfig, FilmState},
        clip_preparation::Preparation,
        clip_vision::ClipVisionConfig,
        demand::Demand,
        pause::ToEnd,
        t5_encoder::T5Config,
        wan_transformer3d::{PATCH, WanConditions, WanTransformer3DConfig},
    },
};

/// The networks of Wan, in memory.
#[derive(Debug)]
pub struct WanVideo {
    pub tokenizer: T5Tokenizer,
    pub text_encoder: T5EncoderModel,
    /// The denoisers, one or two; see [`WanVideoSizes::boundary_ratio`].
    pub transformers: Vec<WanTransformer3DModel>,
    pub vae: AutoencoderKlWan,
    /// The encoder of the picture that a film begins with, and how it sees the picture; only for denoisers that see the
    /// picture's tokens.
    pub image_encoder: Option<(ClipVisionModel, Preparation)>,
    pub sizes: WanVideoSizes,
    /// `None` only while the map is fitted.
    pub preview: Option<FilmPreview>,
    pub device: Device,
}

/// The sizes of the networks.
#[derive(Clone, Debug)]
pub struct WanVideoSizes {
    pub text_encoder: T5Config,
    /// The configurations of the denoisers, one or two with equal channels.
    pub transformers: Vec<WanTransformer3DConfig>,
    pub vae: AutoencoderKlWanConfig,
    /// The first denoiser predicts at times of at least this fraction of the training timesteps, the second denoiser at
    /// smaller times. `None` for models with one denoiser.
    pub boundary_ratio: Option<f64>,
    /// Whether each latent frame has a time of its own.
    pub expand_timesteps: bool,
    /// `None` for models that make films from a prompt alone.
    pub picture: Option<PictureUse>,
    /// Only for denoisers that see the picture's tokens.
    pub image_encoder: Option<ClipVisionConfig>,
}

/// How a denoiser sees the picture that a film begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureUse {
    /// As further channels: a mask, and the latents of a film whose first frame is the picture and whose other frames
    /// are gray.
    Channels,
    /// In place of the first latent frame, with time 0.
    FirstFrame,
}

impl WanVideoSizes {
    /// The largest number of tokens of a prompt, which is the default, too.
    pub const TOKENS: usize = 512;

    /// C: channels of the latents.
    pub fn latent_channels(&self) -> usize {
        self.vae.z_dim
    }

    /// Pixels per latent pixel, along one side.
    pub fn scale(&self) -> usize {
        self.vae.scale()
    }

    /// Width and height of a film are multiples of this many pixels.
    pub fn size_multiple(&self) -> usize {
        self.scale() * PATCH
    }

    /// The demand of encoding one prompt of at most `tokens` tokens.
    pub fn text_demand(&self, tokens: usize) -> Demand {
        self.text_encoder.demand(tokens)
    }

    /// The demand of a prediction by denoiser `network` for one film of F latent frames of (h, w) pixels, with `tokens`
    /// tokens of text.
    pub fn denoise_demand(&self, network: usize, film: [usize; 3], tokens: usize) -> Demand {
        let times = if self.expand_timesteps { film[0] } else { 1 };
        self.transformers.get(network).map_or(Demand::default(), |sizes| sizes.demand(film, tokens, self.seen(), times))
    }

    /// The tokens of a picture.
    fn seen(&self) -> usize {
        self.image_encoder.as_ref().map_or(0, |config| 1 + config.patches())
    }

    /// The demand of encoding a picture to the states of its tokens.
    pub fn picture_demand(&self) -> Demand {
        self.image_encoder.as_ref().map_or(Demand::default(), ClipVisionConfig::demand)
    }

    /// The demand of encoding the picture of a film of `frames` latent frames of (H, W) pixels to latents.
    pub fn encode_demand(&self, frames: usize, size: [usize; 2]) -> Demand {
        match self.picture {
            None => Demand::default(),
            Some(PictureUse::FirstFrame) => self.vae.encode_demand(1, size),
            Some(PictureUse::Channels) => self.vae.encode_demand(self.vae.frames(frames, true), size),
        }
    }

    /// The stages of encoding the first frame of (H, W) pixels, or the next four frames.
    pub fn encode_stages(&self, size: [usize; 2], is_first: bool) -> Vec<Stage> {
        self.vae.encode_stages(if is_first { 1 } else { self.vae.frames(1, false) }, size, is_first)
    }

    /// The stages of decoding the next latent frame (h, w) of a film.
    pub fn decode_stages(&self, size: [usize; 2], is_first: bool) -> Vec<Stage> {
        self.vae.decode_stages(1, size, is_first)
    }
}

impl WanVideo {
    /// The demand of encoding the longest of these prompts on the device.
    pub fn text_demand(&self, rows: &[Vec<u32>]) -> Demand {
        self.sizes.text_demand(self.padded(rows)).on(&self.device, self.device.precision())
    }

    /// [`WanVideoSizes::denoise_demand`] on the device.
    pub fn denoise_demand(&self, network: usize, film: [usize; 3], tokens: usize) -> Demand {
        self.sizes.denoise_demand(network, film, tokens).on(&self.device, self.device.precision())
    }

    /// The states of the tokens of prompts, which are ids without padding: (L, D) for each.
    ///
    /// # Errors
    /// A row does not fit the network.
    pub async fn encode_prompts(&self, rows: &[Vec<u32>]) -> std::result::Result<Vec<TextEmbedding>, NetworkError> {
        let encode = async {
            let (tokens, length): (Vec<usize>, _) = (rows.iter().map(Vec::len).collect(), self.padded(rows));
            let padded = rows.iter().map(|ids| ids.iter().copied().chain(std::iter::repeat(0)).take(length).collect());
            let padded: Vec<Vec<u32>> = padded.collect();
            let ids: Vec<&[u32]> = padded.iter().map(Vec::as_slice).collect();
            let states = self.text_encoder.forward(&ids, Some(&tokens)).await?;
            let row = |(row, tokens): (usize, &usize)| {
                // A copy, because a view in the cache of embeddings would keep the whole batch in memory.
                Ok(TextEmbedding { hidden: states.get(row)?.narrow(0, 0, *tokens)?.force_contiguous()?, pooled: None })
            };
            tokens.iter().enumerate().map(row).collect::<Result<Vec<_>>>()
        };
        encode.await.map_err(NetworkError::of("text_encoder"))
    }

    /// The number of tokens to which the prompts of a batch are padded. The bits of reference kernels depend on the
    /// shapes, so they get the same shape in every batch.
    fn padded(&self, rows: &[Vec<u32>]) -> usize {
        match self.device.kernels() {
            Kernels::Packed(_) => rows.iter().map(Vec::len).max().unwrap_or(0),
            Kernels::Reference(_) => WanVideoSizes::TOKENS,
        }
    }

    /// The raw prediction (C, F, h, w) of denoiser `network` for each film (C_in, F, h, w). Texts are padded with zeros
    /// to `tokens` tokens.
    ///
    /// # Errors
    /// A row does not fit the network.
    pub async fn denoise(
        &self,
        network: usize,
        [c, f, h, w]: [usize; 4],
        tokens: usize,
        rows: &[FilmRow],
    ) -> std::result::Result<Vec<Vec<f32>>, NetworkError> {
        let Some(transformer) = self.transformers.get(network) else {
            return Err(NetworkError::new("transformer", format!("denoiser {network} of {}", self.transformers.len())));
        };
        let device = self.device.candle();
        let predict = async {
            let samples: Vec<f32> = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
            let samples = Tensor::from_vec(samples, (rows.len(), c, f, h, w), device)?;
            let texts = rows.iter().map(|row| {
                let hidden = row.text.hidden.to_device(device)?.to_dtype(DType::F32)?;
                hidden.pad_with_zeros(0, 0, tokens.saturating_sub(hidden.dim(0)?))
            });
            let text = Tensor::stack(&texts.collect::<Result<Vec<Tensor>>>()?, 0)?.contiguous()?;
            let times = if self.sizes.expand_timesteps { f } else { 1 };
            let of_frame = |row: &FilmRow, frame| if frame == 0 && row.is_known { 0.0 } else { row.t };
            let t: Vec<f32> = rows.iter().flat_map(|row| (0..times).map(move |i| of_frame(row, i))).collect();
            let pictures = rows.iter().filter_map(|row| row.picture.as_ref().map(|tokens| tokens.to_device(device)));
            let pictures = pictures.collect::<Result<Vec<Tensor>>>()?;
            let picture = if pictures.is_empty() { None } else { Some(Tensor::stack(&pictures, 0)?) };
            let precision = self.device.precision().dtype();
            let (samples, text) = (samples.to_dtype(precision)?, text.to_dtype(precision)?);
            let picture = picture.map(|picture| picture.to_dtype(precision)).transpose()?;
            let conditions = WanConditions { t: &t, text: &text, picture: picture.as_ref() };
            let predictions = transformer.forward(&samples, conditions).await?;
            predictions.flatten_from(1)?.to_dtype(DType::F32)?.to_vec2::<f32>()
        };
        predict.await.map_err(NetworkError::of("transformer"))
    }

    /// The states (M, P) of the tokens of each picture with prepared pixels (side, side, 3).
    ///
    /// # Errors
    /// The model has no such encoder, or a row does not fit it.
    pub async fn encode_pictures(&self, rows: &[Vec<f32>]) -> std::result::Result<Vec<Tensor>, NetworkError> {
        let (Some((encoder, _)), Some(config)) = (&self.image_encoder, &self.sizes.image_encoder) else {
            return Err(NetworkError::missing("image_encoder"));
        };
        let encode = async {
            let side = config.image_size;
            let pixels = Tensor::from_vec(rows.concat(), (rows.len(), side, side, 3), self.device.candle())?;
            let states = encoder.penultimate(&pixels).await?.to_dtype(DType::F32)?;
            // Copies, because a view would keep the whole batch in memory.
            (0..rows.len()).map(|i| states.get(i)?.force_contiguous()).collect::<Result<Vec<_>>>()
        };
        encode.await.map_err(NetworkError::of("image_encoder"))
    }

    /// Runs one stage, counted from 0, of encoding the next frames of each film. The first stage takes films whose map
    /// is pixels (1 or 4, H, W, 3) in [-1, 1]. After the last stage, the map is normalized latents (1, h, w, C).
    ///
    /// # Errors
    /// There is no such stage, or a row does not fit it.
    pub async fn encode(
        &self,
        size: [usize; 2],
        is_first: bool,
        stage: usize,
        rows: &[FilmState],
    ) -> std::result::Result<Vec<FilmState>, NetworkError> {
        let layers = layers_of("vae_encoder", &self.sizes.encode_stages(size, is_first), stage)?;
        let encode = async {
            let mut films = Vec::with_capacity(rows.len());
            for film in rows {
                let film = film.clone().on(self.device.candle())?;
                films.push(self.vae.encode_layers(layers.clone(), film).await?);
            }
            Ok(films)
        };
        encode.await.map_err(NetworkError::of("vae_encoder"))
    }

    /// Runs one stage, counted from 0, of decoding the next latent frame (h, w) of each film. The first stage takes
    /// films whose map is normalized latents (1, h, w, C). After the last stage, the map is pixels (F, H, W, 3) in [-1,
    /// 1].
    ///
    /// # Errors
    /// There is no such stage, or a row does not fit it.
    pub async fn decode(
        &self,
        size: [usize; 2],
        is_first: bool,
        stage: usize,
        rows: &[FilmState],
    ) -> std::result::Result<Vec<FilmState>, NetworkError> {
        let layers = layers_of("vae", &self.sizes.decode_stages(size, is_first), stage)?;
        let decode = async {
            let mut films = Vec::with_capacity(rows.len());
            for film in rows {
                let film = film.clone().on(self.device.candle())?;
                films.push(self.vae.decode_layers(layers.clone(), film).await?);
            }
            Ok(films)
        };
        decode.await.map_err(NetworkError::of("vae"))
    }

    /// Decodes the normalized latents (1, C, h, w) of a film of one frame without an engine, for a caller that has the
    /// networks to itself.
    ///
    /// # Errors
    /// The decoder failed.
    pub fn decode_alone(&self, latents: &Latents) -> std::result::Result<Vec<Frame>, NetworkError> {
        let [_, c, h, w] = latents.shape();
        let frame = Tensor::from_slice(latents.data(), (1, c, h, w), &HOST);
        let frame =
            frame.and_then(|frame| frame.permute((0, 2, 3, 1))?.contiguous()).map_err(NetworkError::of("vae"))?;
        let mut rows = vec![FilmState::default().next(frame)];
        for stage in 0..self.sizes.decode_stages([h, w], true).len() {
            rows = self.decode([h, w], true, stage, &rows).to_end()?;
        }
        rows.iter().map(picture_of).collect::<Result<_>>().map_err(NetworkError::of("vae"))
    }
}

/// The picture of a film whose map is pixels (1, H, W, 3) in [-1, 1].
fn picture_of(film: &FilmState) -> Result<Frame> {
    let (_, height, width, _) = film.map()?.dims4()?;
    let levels: Vec<f32> = film.map()?.flatten_all()?.to_vec1()?;
    Ok(Frame::picture(width, height, levels.into_iter().map(byte).collect()))
}

/// The layers of a stage of a network.
fn layers_of(network: &'static str, stages: &[Stage], stage: usize) -> std::result::Result<Range<usize>, NetworkError> {
    let layers = stages.get(stage).map(|stage| stage.layers.clone());
    layers.ok_or_else(|| NetworkError::new(network, format!("stage {stage} of {}", stages.len())))
}

impl Loaded for WanVideo {
    fn picture_for_encoder(&self, picture: &Pixels<3>) -> std::result::Result<Option<Vec<f32>>, NetworkError> {
        let Some((_, preparation)) = &self.image_encoder else { return Ok(None) };
        let pixels = preparation.prepared(picture).and_then(|pixels| pixels.flatten_all()?.to_vec1());
        pixels.map(Some).map_err(NetworkError::of("image_encoder"))
    }

    fn rgb_preview(&self, estimate: &[f32], shape: [usize; 3]) -> Option<Frame> {
        self.preview.as_ref()?.frame(estimate, shape)
    }
}
