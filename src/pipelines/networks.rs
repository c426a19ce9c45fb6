//! The networks of one model, row by row: what the engine runs.

use candle_core::{Device, Tensor};

use crate::{
    imaging::RgbImage,
    models::stable_diffusion::{Spec, StableDiffusion},
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
    /// All rows are latents of the shape (C, h, w).
    fn decode(&self, shape: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<RgbImage>, NetworkError>;
    /// The same by a smaller network, which only models have whose [`Spec::tiny_decoder`] says so.
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
            (0..ids.len()).map(|row| Ok(TextEmbedding(states.get(row)?.contiguous()?))).collect()
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

    fn decode(&self, shape: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<RgbImage>, NetworkError> {
        pictures("vae", shape, rows, |latents| StableDiffusion::decode(self, latents))
    }

    fn decode_tiny(&self, shape: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<RgbImage>, NetworkError> {
        pictures("vae_tiny", shape, rows, |latents| StableDiffusion::decode_tiny(self, latents))
    }
}

/// Rows of latents through a decoder, (B, C, h, w) -> (B, 3, H, W).
fn pictures(
    network: &'static str,
    [c, h, w]: [usize; 3],
    rows: &[Vec<f32>],
    decoder: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<Vec<RgbImage>, NetworkError> {
    let decode = || -> candle_core::Result<Vec<RgbImage>> {
        let pictures = decoder(&batch_of(rows.iter().map(Vec::as_slice), [c, h, w])?)?;
        let (_, _, height, width) = pictures.dims4()?;
        Ok(rows_of(&pictures)?.iter().map(|picture| to_rgb(picture, width, height)).collect())
    };
    decode().map_err(|error| NetworkError { network, detail: error.to_string() })
}

fn batch_of<'a>(rows: impl Iterator<Item = &'a [f32]>, [c, h, w]: [usize; 3]) -> candle_core::Result<Tensor> {
    let data: Vec<f32> = rows.flatten().copied().collect();
    let b = data.len() / (c * h * w).max(1);
    Tensor::from_vec(data, (b, c, h, w), &Device::Cpu)
}

fn rows_of(tensor: &Tensor) -> candle_core::Result<Vec<Vec<f32>>> {
    tensor.flatten_from(1)?.to_vec2::<f32>()
}

/// (3, H, W) in [-1, 1] -> bytes, as diffusers' image processor rounds: `round(255 · clamp(x / 2 + 0.5))`, halves to even.
fn to_rgb(picture: &[f32], width: usize, height: usize) -> RgbImage {
    let plane = width * height;
    let mut pixels = Vec::with_capacity(3 * plane);
    for i in 0..plane {
        for channel in 0..3 {
            let level = (picture[channel * plane + i] / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0;
            pixels.push(level.round_ties_even() as u8);
        }
    }
    RgbImage { width: width as u32, height: height as u32, pixels }
}
