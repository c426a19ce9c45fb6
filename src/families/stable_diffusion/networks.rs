//! The networks of the Stable Diffusion families. They compute the rows of calls in batches.

use std::sync::Arc;

use async_trait::async_trait;
use candle_core::{DType, Device, Tensor};

use crate::{
    families::stages,
    models::{
        StableDiffusion,
        adapters::{Adapter, RowAdapters},
        autoencoder_kl::{Moments, Tiles},
        control_net::Residuals,
        demand::Demand,
        latent_diffusion::{Part, Spec},
        motion_adapter::Motion,
        text_encoders::{Encoded, LearnedToken, LearnedTokens, Tokens},
        unet2d_condition::{Added, Conditions},
    },
    pipelines::{
        Activation, Control, DenoiseRow, Denoised, Depth, Features, Frame, NetworkError, Networks, Posterior,
        TextEmbedding, byte, calls::FramesRow,
    },
    weights::LoadError,
};

#[async_trait]
impl Networks for StableDiffusion {
    fn spec(&self) -> Spec {
        StableDiffusion::spec(self)
    }

    fn tokenize(&self, prompts: &[&str], _: Option<u32>, learned: &LearnedTokens) -> Tokens {
        StableDiffusion::tokenize(self, prompts, learned)
    }

    fn tokenize_weighted(&self, prompts: &[&str], _: Option<u32>, learned: &LearnedTokens) -> Vec<Tokens> {
        StableDiffusion::tokenize_weighted(self, prompts, learned)
    }

    async fn encode_text(&self, prompts: &[Tokens], clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        let encode = async {
            let Encoded { hidden, pooled } = StableDiffusion::encode_text(self, prompts, clip_skip as usize).await?;
            let row = |row| {
                // A copy, because a view in the cache of embeddings would keep the whole batch in memory.
                let pooled = pooled.as_ref().map(|pooled| pooled.get(row)?.force_contiguous()).transpose()?;
                Ok(TextEmbedding { hidden: hidden.get(row)?.force_contiguous()?, pooled })
            };
            (0..prompts.len()).map(row).collect::<candle_core::Result<Vec<TextEmbedding>>>()
        };
        encode.await.map_err(NetworkError::of("text_encoder"))
    }

    async fn denoise(
        &self,
        [c, h, w]: [usize; 3],
        depth: Depth,
        rows: &[DenoiseRow],
    ) -> Result<Vec<Denoised>, NetworkError> {
        let denoise = async {
            let device = self.device().candle();
            let sample = batch_of(rows.iter().map(|row| row.sample.as_slice()), [c, h, w], device)?;
            let batch = BatchConditions::of(rows, device)?;
            let (predictions, kept) = match depth {
                Depth::Full => {
                    let control = batch.control(&sample, rows).await?;
                    (StableDiffusion::denoise(self, &sample, &batch.conditions(), &control).await?, None)
                }
                Depth::Keeping => {
                    let control = batch.control(&sample, rows).await?;
                    let (predictions, kept) = self.denoise_keeping(&sample, &batch.conditions(), &control).await?;
                    (predictions, Some(kept))
                }
                Depth::Shallow => {
                    let features = rows.iter().map(|row| row.features.as_ref().map(|features| &features.0));
                    let Some(features) = features.collect::<Option<Vec<&Tensor>>>() else {
                        candle_core::bail!("a row has no features to start from")
                    };
                    let features = Tensor::stack(&features, 0)?;
                    (self.denoise_shallow(&sample, &batch.conditions(), &features).await?, None)
                }
            };
            let answer = |(row, prediction)| {
                // A copy, because a view of this row would keep the features of the whole batch in memory.
                let features = kept.as_ref().map(|kept| kept.get(row)?.force_contiguous()).transpose()?;
                Ok(Denoised { prediction, features: features.map(Features) })
            };
            let answers = rows_of(&predictions)?.into_iter().enumerate().map(answer);
            answers.collect::<candle_core::Result<Vec<Denoised>>>()
        };
        denoise.await.map_err(NetworkError::of("unet"))
    }

    async fn denoise_frames(&self, shape: [usize; 4], rows: &[FramesRow]) -> Result<Vec<Vec<f32>>, NetworkError> {
        let denoise = async {
            let mut predictions = Vec::with_capacity(rows.len());
            // Rows with the same motion adapter are computed together.
            for rows in rows.chunk_by(|a, b| Arc::ptr_eq(&a.motion, &b.motion)) {
                predictions.extend(denoise_moved(self, shape, rows).await?);
            }
            Ok(predictions)
        };
        denoise.await.map_err(NetworkError::of("unet"))
    }

    async fn encode(&self, [height, width]: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        let scale = self.latent_scale();
        let encode = async {
            let pixels = batch_of(rows.iter().map(Vec::as_slice), [3, height, width], self.device().candle())?;
            let Moments { mean, logvar } = StableDiffusion::encode(self, &pixels).await?;
            let posterior = |(mean, logvar): (Vec<f32>, Vec<f32>)| Posterior {
                std: logvar.into_iter().map(|logvar| libm::expf(0.5 * logvar) * scale as f32).collect(),
                mean: mean.iter().map(|mean| mean * scale as f32).collect(),
                unscaled: mean,
            };
            Ok(rows_of(&mean)?.into_iter().zip(rows_of(&logvar)?).map(posterior).collect())
        };
        encode.await.map_err(NetworkError::of("vae_encoder"))
    }

    fn demand(&self, part: Part) -> Demand {
        let precision = self.sizes().precision(part, self.device().precision());
        self.sizes().demand(part).on(self.device(), precision).with_bytes(self.copied_bytes(part))
    }

    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        StableDiffusion::tiles(self, h, w)
    }

    fn decode_stages(&self, [_, h, w]: [usize; 3]) -> Vec<f64> {
        stages::shares(&StableDiffusion::decode_stages(self, h, w))
    }

    async fn decode(
        &self,
        [_, h, w]: [usize; 3],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        let stages = StableDiffusion::decode_stages(self, h, w);
        let of = stages::at(&stages, stage)?;
        let decode = async { Activation::split(self.decode_stage(of, &Activation::join(rows)?).await?) };
        decode.await.map_err(NetworkError::of("vae"))
    }

    fn adapter(&self, path: &str, file: &[u8]) -> Result<Adapter, LoadError> {
        StableDiffusion::adapter(self, path, file)
    }

    fn learned(&self, name: &str, file: &[u8]) -> Result<LearnedToken, LoadError> {
        StableDiffusion::learned(self, name, file)
    }

    async fn decode_tiny(&self, shape: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError> {
        let decode = async {
            let latents = batch_of(rows.iter().map(Vec::as_slice), shape, self.device().candle())?;
            let pictures = StableDiffusion::decode_tiny(self, &latents).await?.permute((0, 2, 3, 1))?.contiguous()?;
            let (_, height, width, _) = pictures.dims4()?;
            let frame = |levels: Vec<f32>| Frame::picture(width, height, levels.into_iter().map(byte).collect());
            Ok(rows_of(&pictures)?.into_iter().map(frame).collect())
        };
        decode.await.map_err(NetworkError::of("vae_tiny"))
    }
}

/// The conditions of all rows of a batch, stacked.
struct BatchConditions {
    t: Vec<f32>,
    /// Hidden states of the prompts, (B, L, D).
    text: Tensor,
    added: Option<Added>,
    guidance: Option<Vec<f32>>,
    adapters: RowAdapters,
}

impl BatchConditions {
    /// Stacks the conditions of the rows on a device. The text encoders have computed their embeddings on this device.
    /// Only the zeros that some models use for an empty prompt are copied to the device here.
    fn of(rows: &[DenoiseRow], device: &Device) -> candle_core::Result<BatchConditions> {
        let contexts = rows.iter().map(|row| row.context.hidden.to_device(device));
        let contexts = contexts.collect::<candle_core::Result<Vec<Tensor>>>()?;
        let pooled = rows.iter().map(|row| row.context.pooled.as_ref().map(|pooled| pooled.to_device(device)));
        let added = match pooled.collect::<Option<candle_core::Result<Vec<Tensor>>>>().transpose()? {
            Some(pooled) if !pooled.is_empty() => Some(Added {
                text_embeds: Some(Tensor::stack(&pooled, 0)?),
                time_ids: rows.iter().flat_map(|row| row.time_ids.iter().copied()).collect(),
            }),
            _ => None,
        };
        Ok(BatchConditions {
            t: rows.iter().map(|row| row.t).collect(),
            text: Tensor::stack(&contexts, 0)?.contiguous()?,
            added,
            // Latent consistency models take the scale minus 1.
            guidance: rows.iter().map(|row| row.guidance.map(|scale| (scale - 1.0) as f32)).collect(),
            adapters: RowAdapters::of(rows.iter().map(|row| &row.adapters)),
        })
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            added: self.added.as_ref(),
            guidance: self.guidance.as_deref(),
            adapters: &self.adapters,
            ..Conditions::plain(&self.t, &self.text)
        }
    }

    /// The residuals of the ControlNets for the rows that have ControlNets. Rows with the same ControlNet and guess
    /// mode go through the ControlNet together, but a row that uses a ControlNet twice takes part in two batches.
    async fn control(&self, sample: &Tensor, rows: &[DenoiseRow]) -> candle_core::Result<Residuals> {
        let mut calls: Vec<(&Control, Vec<(usize, &Control)>)> = Vec::new();
        for (i, control) in rows.iter().enumerate().flat_map(|(i, row)| row.controls.iter().map(move |of| (i, of))) {
            let same = |first: &Control| Arc::ptr_eq(&first.net, &control.net) && first.guess == control.guess;
            match calls.iter_mut().find(|(first, of)| same(first) && of.last().is_some_and(|(last, _)| *last < i)) {
                Some((_, of)) => of.push((i, control)),
                None => calls.push((control, vec![(i, control)])),
            }
        }
        let mut residuals = Residuals::default();
        for (Control { net, guess, .. }, of) in calls {
            let (indices, uses): (Vec<usize>, Vec<&Control>) = of.into_iter().unzip();
            let some: Vec<DenoiseRow> = indices.iter().map(|i| rows[*i].clone()).collect();
            let selected = Tensor::from_iter(indices.iter().map(|i| *i as u32), sample.device())?;
            // If the U-Net also receives a mask or a picture, its ControlNets receive only the latents.
            let sample = sample.index_select(&selected, 0)?.narrow(1, 0, net.in_channels())?.contiguous()?;
            let hints: Vec<_> = uses.iter().map(|of| (of.hint.as_ref(), of.scale)).collect();
            let batch = BatchConditions::of(&some, sample.device())?;
            residuals.push(indices, net.forward(&sample, &batch.conditions(), &hints, *guess).await?);
        }
        Ok(residuals)
    }
}

/// The predictions (C, F, h, w) for films that all have the same motion adapter.
async fn denoise_moved(
    networks: &StableDiffusion,
    [c, f, h, w]: [usize; 4],
    rows: &[FramesRow],
) -> candle_core::Result<Vec<Vec<f32>>> {
    let Some(motion) = rows.first().map(|row| row.motion.as_ref()) else { return Ok(Vec::new()) };
    let (b, device) = (rows.len(), networks.device().candle());
    let latents: Vec<f32> = rows.iter().flat_map(|row| &row.latents).copied().collect();
    let sample = Tensor::from_vec(latents, (b, c, f, h * w), device)?.transpose(1, 2)?.contiguous()?;
    let sample = sample.reshape((b * f, c, h, w))?;
    // Every frame is a row of the U-Net, with the time, the text and the LoRAs of its film.
    let frames = |row: &FramesRow| (0..f).map(|_| row.context.hidden.to_device(device)).collect::<Vec<_>>();
    let texts = rows.iter().flat_map(frames).collect::<candle_core::Result<Vec<Tensor>>>()?;
    let text = Tensor::stack(&texts, 0)?.contiguous()?;
    let t: Vec<f32> = rows.iter().flat_map(|row| std::iter::repeat_n(row.t, f)).collect();
    let adapters = RowAdapters::of(rows.iter().flat_map(|row| std::iter::repeat_n(&row.adapters, f)));
    let motion = Some(Motion { adapter: motion, frames: f });
    let conditions = Conditions { adapters: &adapters, motion, ..Conditions::plain(&t, &text) };
    let predictions = StableDiffusion::denoise(networks, &sample, &conditions, &Residuals::default()).await?;
    rows_of(&predictions.reshape((b, f, c, h * w))?.transpose(1, 2)?.contiguous()?)
}

/// Joins rows of (C, h, w) to a batch (B, C, h, w) on a device.
fn batch_of<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    [c, h, w]: [usize; 3],
    device: &Device,
) -> candle_core::Result<Tensor> {
    let data: Vec<f32> = rows.flatten().copied().collect();
    let b = data.len() / (c * h * w).max(1);
    Tensor::from_vec(data, (b, c, h, w), device)
}

fn rows_of(tensor: &Tensor) -> candle_core::Result<Vec<Vec<f32>>> {
    tensor.flatten_from(1)?.to_dtype(DType::F32)?.to_vec2::<f32>()
}
