//! The networks of one model, row by row: what the engine runs.

use candle_core::{Device, Tensor};

use super::{Activation, canvas::byte};
use crate::{
    imaging::RgbImage,
    models::{
        autoencoder_kl::{Moments, Tiles},
        stable_diffusion::{Spec, StableDiffusion},
    },
};

/// The hidden states of one prompt, (L, D). A cheap handle.
#[derive(Clone, Debug)]
pub struct TextEmbedding(pub Tensor);

impl TextEmbedding {
    /// (L, D)
    pub fn dims(&self) -> [usize; 2] {
        let dims = self.0.dims();
        [dims.first().copied().unwrap_or(0), dims.get(1).copied().unwrap_or(0)]
    }
}

/// One sample of one ask for a prediction.
#[derive(Clone, Debug)]
pub struct DenoiseRow {
    /// (C, h, w), scaled for the network.
    pub sample: Vec<f32>,
    /// The timestep that the network sees; each row has its own.
    pub t: f32,
    pub context: TextEmbedding,
    /// What the row starts from in a [`Depth::Shallow`] call.
    pub features: Option<Features>,
}

/// How much of the denoiser a call computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    Full,
    /// All of it, and the answers carry features.
    Keeping,
    /// Its shallow branch alone, which takes the rows' features for what the rest would have given.
    Shallow,
}

/// Deep features of one row, (h, w, C) for the U-Net's first number of channels C. A cheap handle of 4 · h · w · C bytes.
#[derive(Clone, Debug)]
pub struct Features(pub Tensor);

/// The answer to one [`DenoiseRow`].
#[derive(Clone, Debug)]
pub struct Denoised {
    /// (C, h, w)
    pub prediction: Vec<f32>,
    /// Of a [`Depth::Keeping`] call.
    pub features: Option<Features>,
}

/// What the autoencoder knows of the latents of a picture: a diagonal Gaussian, scaled for the denoiser; (C, h, w) each.
#[derive(Clone, Debug)]
pub struct Posterior {
    pub mean: Vec<f32>,
    /// The standard deviation.
    pub std: Vec<f32>,
    /// The mean before the scaling, as models take it that are told what to change.
    pub unscaled: Vec<f32>,
}

/// A network refused its input, ran out of something, or panicked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{network} failed: {detail}")]
pub struct NetworkError {
    pub network: &'static str,
    pub detail: String,
}

/// The networks of one model. Row i of every answer depends on row i of the input alone, to the bit.
pub trait Networks: Send + Sync {
    fn spec(&self) -> Spec;
    /// Token ids padded or truncated to the text encoder's length.
    fn tokenize(&self, prompt: &str) -> Vec<u32>;
    fn encode_text(&self, ids: &[Vec<u32>], clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError>;
    /// All rows have the shape (C, h, w).
    fn denoise(&self, shape: [usize; 3], depth: Depth, rows: &[DenoiseRow]) -> Result<Vec<Denoised>, NetworkError>;
    /// Pixels (3, H, W) in [-1, 1] → the distribution of their latents.
    fn encode(&self, shape: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError>;
    /// The pieces that latents of (h, w) are decoded in.
    fn tiles(&self, size: [usize; 2]) -> Tiles;
    /// Into how many calls of [`Networks::decode`] the decoding of latents (C, h, w) falls, one or more, and which share of
    /// the work each of them does; the shares add up to 1.
    fn decode_stages(&self, shape: [usize; 3]) -> Vec<f64>;
    /// One stage, counted from 0, of decoding latents (C, h, w). The first takes them as (1, C, h, w), each later stage
    /// takes what the one before it made, and the last gives pixels (1, H, W, 3), roughly in [-1, 1].
    fn decode(&self, shape: [usize; 3], stage: usize, rows: &[Activation]) -> Result<Vec<Activation>, NetworkError>;
    /// Rows of latents of the shape (C, h, w) to pictures, by a smaller network which only models have whose
    /// [`Spec::tiny_decoder`] says so.
    fn decode_tiny(&self, shape: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<RgbImage>, NetworkError>;
}

impl Networks for StableDiffusion {
    fn spec(&self) -> Spec {
        StableDiffusion::spec(self)
    }

    fn tokenize(&self, prompt: &str) -> Vec<u32> {
        StableDiffusion::tokenize(self, prompt)
    }

    fn encode_text(&self, ids: &[Vec<u32>], clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        let encode = || -> candle_core::Result<Vec<TextEmbedding>> {
            let states = StableDiffusion::encode_text(self, ids, clip_skip as usize)?; // (B, L, D)
            // Copied out, since a view would keep the whole batch alive for as long as the cache keeps the embedding.
            (0..ids.len()).map(|row| Ok(TextEmbedding(states.get(row)?.force_contiguous()?))).collect()
        };
        encode().map_err(|error| NetworkError { network: "text_encoder", detail: error.to_string() })
    }

    fn denoise(&self, [c, h, w]: [usize; 3], depth: Depth, rows: &[DenoiseRow]) -> Result<Vec<Denoised>, NetworkError> {
        let denoise = || -> candle_core::Result<Vec<Denoised>> {
            let sample = batch_of(rows.iter().map(|row| row.sample.as_slice()), [c, h, w])?;
            let t: Vec<f32> = rows.iter().map(|row| row.t).collect();
            let contexts: Vec<&Tensor> = rows.iter().map(|row| &row.context.0).collect();
            let context = Tensor::stack(&contexts, 0)?; // (B, L, D)
            let (predictions, kept) = match depth {
                Depth::Full => (StableDiffusion::denoise(self, &sample, &t, &context)?, None),
                Depth::Keeping => {
                    let (predictions, kept) = self.denoise_keeping(&sample, &t, &context)?;
                    (predictions, Some(kept))
                }
                Depth::Shallow => {
                    let features = rows.iter().map(|row| row.features.as_ref().map(|features| &features.0));
                    let Some(features) = features.collect::<Option<Vec<&Tensor>>>() else {
                        candle_core::bail!("a row has no features to start from")
                    };
                    (self.denoise_shallow(&sample, &t, &context, &Tensor::stack(&features, 0)?)?, None)
                }
            };
            let answer = |(row, prediction)| {
                // Copied, since a view would hold the features of the whole batch for as long as this row's.
                let features = kept.as_ref().map(|kept| kept.get(row)?.force_contiguous()).transpose()?;
                Ok(Denoised { prediction, features: features.map(Features) })
            };
            rows_of(&predictions)?.into_iter().enumerate().map(answer).collect()
        };
        denoise().map_err(|error| NetworkError { network: "unet", detail: error.to_string() })
    }

    fn encode(&self, [height, width]: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        let (scale, shift) = self.latent_scale();
        let encode = || -> candle_core::Result<Vec<Posterior>> {
            let pixels = batch_of(rows.iter().map(Vec::as_slice), [3, height, width])?;
            let Moments { mean, logvar } = StableDiffusion::encode(self, &pixels)?;
            let posterior = |(mean, logvar): (Vec<f32>, Vec<f32>)| Posterior {
                std: logvar.into_iter().map(|logvar| libm::expf(0.5 * logvar) * scale as f32).collect(),
                mean: mean.iter().map(|mean| (mean - shift as f32) * scale as f32).collect(),
                unscaled: mean,
            };
            Ok(rows_of(&mean)?.into_iter().zip(rows_of(&logvar)?).map(posterior).collect())
        };
        encode().map_err(|error| NetworkError { network: "vae_encoder", detail: error.to_string() })
    }

    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        StableDiffusion::tiles(self, h, w)
    }

    fn decode_stages(&self, [_, h, w]: [usize; 3]) -> Vec<f64> {
        let work: Vec<f64> = StableDiffusion::decode_stages(self, h, w).iter().map(|stage| stage.work).collect();
        let all: f64 = work.iter().sum();
        work.iter().map(|work| work / all).collect()
    }

    fn decode(
        &self,
        [_, h, w]: [usize; 3],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        let failed = |detail: String| NetworkError { network: "vae", detail };
        let stages = StableDiffusion::decode_stages(self, h, w);
        let of = stages.get(stage).ok_or_else(|| failed(format!("stage {stage} of {}", stages.len())))?;
        let decode = || Activation::split(self.decode_stage(of, &Activation::join(rows)?)?);
        decode().map_err(|error| failed(error.to_string()))
    }

    fn decode_tiny(&self, shape: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<RgbImage>, NetworkError> {
        let decode = || -> candle_core::Result<Vec<RgbImage>> {
            let latents = batch_of(rows.iter().map(Vec::as_slice), shape)?;
            let pictures = StableDiffusion::decode_tiny(self, &latents)?.permute((0, 2, 3, 1))?.contiguous()?;
            let (_, height, width, _) = pictures.dims4()?;
            let picture = |levels: Vec<f32>| RgbImage {
                width: width as u32,
                height: height as u32,
                pixels: levels.into_iter().map(byte).collect(),
            };
            Ok(rows_of(&pictures)?.into_iter().map(picture).collect())
        };
        decode().map_err(|error| NetworkError { network: "vae_tiny", detail: error.to_string() })
    }
}

fn batch_of<'a>(rows: impl Iterator<Item = &'a [f32]>, [c, h, w]: [usize; 3]) -> candle_core::Result<Tensor> {
    let data: Vec<f32> = rows.flatten().copied().collect();
    let b = data.len() / (c * h * w).max(1);
    Tensor::from_vec(data, (b, c, h, w), &Device::Cpu)
}

fn rows_of(tensor: &Tensor) -> candle_core::Result<Vec<Vec<f32>>> {
    tensor.flatten_from(1)?.to_vec2::<f32>()
}
