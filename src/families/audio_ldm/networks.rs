//! The networks of AudioLDM. They compute the rows of calls in batches.

use async_trait::async_trait;
use candle_core::Tensor;

use super::Sizes;
use crate::{
    device::{Device, Precision},
    families::autoencoder::{Autoencoder, rows_of},
    models::{
        ClapTextModel, HifiGan, RobertaTokenizer, UNet2DConditionModel,
        autoencoder_kl::Tiles,
        control_net::Residuals,
        demand::Demand,
        latent_diffusion::{Part, Spec},
        text_encoders::{LearnedTokens, Tokens},
        unet2d_condition::Conditions,
    },
    pipelines::{
        Activation, DenoiseRow, Denoised, Depth, NetworkError, Networks, Posterior, PromptRole, TextEmbedding,
    },
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// The networks of AudioLDM, in memory.
#[derive(Debug)]
pub(super) struct AudioLdmNetworks {
    tokenizer: RobertaTokenizer,
    text_encoder: ClapTextModel,
    unet: UNet2DConditionModel,
    vae: Autoencoder,
    vocoder: HifiGan,
    sizes: Sizes,
    device: Device,
}

const WEIGHTS: &str = "diffusion_pytorch_model";

/// The channels of a spectrogram.
const CHANNELS: usize = 1;

impl AudioLdmNetworks {
    /// Reads the weights.
    pub fn load(folder: &ModelFolder, device: &Device) -> Result<Self, LoadError> {
        let sizes = Sizes::read(folder)?;
        let weights = Weights::open(folder, "text_encoder", "model", device, as_stored)?;
        let text_encoder = ClapTextModel::new(&sizes.text_encoder, &weights);
        weights.finish()?;
        let weights = Weights::open(folder, "unet", WEIGHTS, device, as_stored)?;
        let unet = UNet2DConditionModel::new(&sizes.unet, &weights);
        weights.finish()?;
        let weights = Weights::open(folder, "vocoder", "model", device, as_stored)?;
        let vocoder = HifiGan::new(&sizes.vocoder, &weights);
        weights.finish()?;
        let vae = Autoencoder::load(folder, &sizes.vae, device, Precision::F32)?;
        let tokenizer = tokenizer(folder, &sizes)?;
        Ok(Self { tokenizer, text_encoder, unet, vae, vocoder, sizes, device: device.clone() })
    }

    /// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes
    /// about the files.
    pub fn check(folder: &ModelFolder, sizes: &Sizes) -> Result<Vec<String>, LoadError> {
        let open = |part, stem| Weights::open(folder, part, stem, &Device::host(), as_stored);
        let mut notes = Vec::new();
        let weights = open("text_encoder", "model")?;
        notes.extend(weights.note());
        weights.check(|w| drop(ClapTextModel::new(&sizes.text_encoder, w)))?;
        let weights = open("unet", WEIGHTS)?;
        notes.extend(weights.note());
        weights.check(|w| drop(UNet2DConditionModel::new(&sizes.unet, w)))?;
        let weights = open("vocoder", "model")?;
        notes.extend(weights.note());
        weights.check(|w| drop(HifiGan::new(&sizes.vocoder, w)))?;
        notes.extend(Autoencoder::check(folder, &sizes.vae, CHANNELS)?);
        tokenizer(folder, sizes)?;
        Ok(notes)
    }

    async fn predict(&self, shape: [usize; 3], rows: &[DenoiseRow]) -> candle_core::Result<Vec<Denoised>> {
        let ([c, h, w], device) = (shape, self.device.candle());
        let samples = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
        let samples = Tensor::from_vec(samples, (rows.len(), c, h, w), device)?;
        let t: Vec<f32> = rows.iter().map(|row| row.t).collect();
        let vectors = rows.iter().map(|row| row.context.hidden.to_device(device));
        let vectors = Tensor::cat(&vectors.collect::<candle_core::Result<Vec<Tensor>>>()?, 0)?; // (B, P)
        let predictions = self.unet.forward(&samples, &Conditions::of_vector(&t, &vectors), Residuals::NONE).await?;
        let rows = rows_of(&predictions)?;
        Ok(rows.into_iter().map(|prediction| Denoised { prediction, features: None }).collect())
    }
}

/// The tokenizer, whose ids must be ids of the text encoder.
pub(super) fn tokenizer(folder: &ModelFolder, sizes: &Sizes) -> Result<RobertaTokenizer, LoadError> {
    let tokenizer = RobertaTokenizer::load(folder, "tokenizer", sizes.text_encoder.longest())?;
    let (largest, known) = (tokenizer.largest_id(), sizes.text_encoder.vocab_size);
    if largest as usize >= known {
        let reason = format!("the vocabulary has the id {largest}, and the text encoder has {known} ids");
        return Err(LoadError::Tokenizer { path: "tokenizer".into(), reason });
    }
    Ok(tokenizer)
}

#[async_trait]
impl Networks for AudioLdmNetworks {
    fn spec(&self) -> Spec {
        self.sizes.spec()
    }

    fn tokenize(&self, prompts: &[&str], length: Option<u32>, learned: &LearnedTokens) -> Tokens {
        self.tokenize_as(PromptRole::default(), prompts, length, learned)
    }

    /// In diffusers' pipeline, the maximum number of tokens of a negative prompt is the number of numbers in the vector
    /// of a text.
    fn tokenize_as(&self, role: PromptRole<'_>, prompts: &[&str], _: Option<u32>, _: &LearnedTokens) -> Tokens {
        let longest = if role.is_negative { self.sizes.text_encoder.projection_dim } else { usize::MAX };
        let prompt = prompts.first().copied().unwrap_or_default();
        Tokens { ids: vec![self.tokenizer.encode(prompt, longest)], ..Tokens::default() }
    }

    async fn encode_text(&self, prompts: &[Tokens], _clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        let encode = async {
            let rows: Vec<&[u32]> =
                prompts.iter().map(|tokens| tokens.ids.first().map_or(&[][..], Vec::as_slice)).collect();
            let vectors = self.text_encoder.forward(&rows).await?;
            let row = |row| Ok(TextEmbedding { hidden: vectors.narrow(0, row, 1)?.force_contiguous()?, pooled: None });
            (0..rows.len()).map(row).collect::<candle_core::Result<Vec<_>>>()
        };
        encode.await.map_err(NetworkError::of("text_encoder"))
    }

    async fn denoise(
        &self,
        shape: [usize; 3],
        depth: Depth,
        rows: &[DenoiseRow],
    ) -> Result<Vec<Denoised>, NetworkError> {
        depth.check_full()?;
        self.predict(shape, rows).await.map_err(NetworkError::of("unet"))
    }

    async fn encode(&self, _shape: [usize; 2], _rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        Err(NetworkError::missing("vae_encoder"))
    }

    fn demand(&self, part: Part) -> Demand {
        self.sizes.demand(part)
    }

    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        Tiles::new(h, w, h.max(w))
    }

    fn decode_stages(&self, [_, h, w]: [usize; 3]) -> Vec<f64> {
        self.vae.decode_stages([h, w])
    }

    async fn decode(
        &self,
        [_, h, w]: [usize; 3],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        self.vae.decode([h, w], stage, rows).await
    }

    fn vocode_demand(&self, frames: usize) -> Demand {
        self.sizes.vocoder.demand(frames)
    }

    async fn vocode(&self, rows: &[Activation]) -> Result<Vec<Vec<f32>>, NetworkError> {
        let vocode = async {
            let spectrograms = Activation::join(rows)?.to_device(self.device.candle())?.squeeze(3)?; // (B, T, M)
            self.vocoder.forward(&spectrograms).await
        };
        vocode.await.map_err(NetworkError::of("vocoder"))
    }
}
