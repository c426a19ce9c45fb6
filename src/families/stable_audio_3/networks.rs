//! The networks of Stable Audio 3. They compute the rows of calls in batches.

use async_trait::async_trait;
use candle_core::{Result, Tensor};

use super::Sizes;
use crate::{
    device::Device,
    families::autoencoder::rows_of,
    models::{
        AutoencoderSame, DurationEmbedder, GemmaTokenizer, StableAudio3DiTModel, T5GemmaEncoder,
        autoencoder_kl::Tiles,
        demand::Demand,
        latent_diffusion::{Part, Spec},
        stable_audio_3_dit::StableAudio3Conditions,
        text_encoders::{LearnedTokens, Tokens},
    },
    pipelines::{Activation, DenoiseRow, Denoised, Depth, NetworkError, Networks, Posterior, TextEmbedding},
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// The networks of Stable Audio 3, in memory.
#[derive(Debug)]
pub(super) struct StableAudio3Networks {
    tokenizer: GemmaTokenizer,
    text_encoder: T5GemmaEncoder,
    duration_embedder: DurationEmbedder,
    transformer: StableAudio3DiTModel,
    vae: AutoencoderSame,
    sizes: Sizes,
    device: Device,
}

/// The stem of the weight files of diffusers' networks.
pub(super) const WEIGHTS: &str = "diffusion_pytorch_model";

impl StableAudio3Networks {
    /// Reads the weights.
    pub fn load(folder: &ModelFolder, device: &Device) -> std::result::Result<Self, LoadError> {
        let sizes = Sizes::read(folder)?;
        let weights = Weights::open(folder, "text_encoder", "model", device, as_stored)?;
        let text_encoder = T5GemmaEncoder::new(&sizes.text_encoder, &weights);
        weights.finish()?;
        let weights = Weights::open(folder, "duration_embedder", WEIGHTS, device, as_stored)?;
        let duration_embedder = DurationEmbedder::new(&sizes.duration_embedder, &weights);
        weights.finish()?;
        let weights = Weights::open(folder, "transformer", WEIGHTS, device, as_stored)?;
        let transformer = StableAudio3DiTModel::new(&sizes.transformer, &weights);
        weights.finish()?;
        let weights = Weights::open(folder, "vae", WEIGHTS, device, as_stored)?;
        let vae = AutoencoderSame::new(&sizes.vae, &weights);
        weights.finish()?;
        let tokenizer = sizes.tokenizer(folder)?;
        Ok(Self { tokenizer, text_encoder, duration_embedder, transformer, vae, sizes, device: device.clone() })
    }

    /// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes
    /// about the files.
    pub fn check(folder: &ModelFolder, sizes: &Sizes) -> std::result::Result<Vec<String>, LoadError> {
        let open = |part, stem| Weights::open(folder, part, stem, &Device::host(), as_stored);
        let mut notes = Vec::new();
        let weights = open("text_encoder", "model")?;
        notes.extend(weights.note());
        weights.check(|w| drop(T5GemmaEncoder::new(&sizes.text_encoder, w)))?;
        let weights = open("duration_embedder", WEIGHTS)?;
        notes.extend(weights.note());
        weights.check(|w| drop(DurationEmbedder::new(&sizes.duration_embedder, w)))?;
        let weights = open("transformer", WEIGHTS)?;
        notes.extend(weights.note());
        weights.check(|w| drop(StableAudio3DiTModel::new(&sizes.transformer, w)))?;
        let weights = open("vae", WEIGHTS)?;
        notes.extend(weights.note());
        weights.check(|w| drop(AutoencoderSame::new(&sizes.vae, w)))?;
        sizes.tokenizer(folder)?;
        Ok(notes)
    }

    /// The states of a prompt's tokens after padding, (L, D) for the same L for all prompts.
    async fn encode_prompt(&self, prompt: &Tokens) -> Result<TextEmbedding> {
        let ids = prompt.ids.first().map(Vec::as_slice).unwrap_or_default();
        let states = self.text_encoder.forward(ids).await?;
        let (tokens, width) = states.dims2()?;
        let padding = self.tokenizer.longest().saturating_sub(tokens);
        if padding == 0 {
            return Ok(TextEmbedding { hidden: states, pooled: None });
        }
        let padding = self.transformer.padding().unsqueeze(0)?.broadcast_as((padding, width))?.contiguous()?;
        Ok(TextEmbedding { hidden: Tensor::cat(&[padding, states], 0)?, pooled: None })
    }

    async fn predict(&self, [c, length, _]: [usize; 3], rows: &[DenoiseRow]) -> Result<Vec<Denoised>> {
        let device = self.device.candle();
        let samples = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
        let samples = Tensor::from_vec(samples, (rows.len(), c, length), device)?;
        let t: Vec<f32> = rows.iter().map(|row| row.t).collect();
        let texts = rows.iter().map(|row| row.context.hidden.to_device(device)).collect::<Result<Vec<Tensor>>>()?;
        let seconds: Vec<f32> = rows.iter().flat_map(|row| row.time_ids.first().copied()).collect();
        let global = self.duration_embedder.forward(&seconds, device)?; // (B, G)
        let context = Tensor::cat(&[Tensor::stack(&texts, 0)?, global.unsqueeze(1)?], 1)?; // (B, L + 1, D)
        let conditions = StableAudio3Conditions { t: &t, context: &context, global: &global };
        let rows = rows_of(&self.transformer.forward(&samples, &conditions).await?)?;
        Ok(rows.into_iter().map(|prediction| Denoised { prediction, features: None }).collect())
    }

    /// Latents (1, C, T, 1) → samples (1, N, channels, 1)
    async fn decode_rows(&self, rows: &[Activation]) -> Result<Vec<Activation>> {
        let latents = Activation::join(rows)?.to_device(self.device.candle())?.squeeze(3)?;
        Activation::split(self.vae.decode(&latents).await?.unsqueeze(3)?)
    }
}

#[async_trait]
impl Networks for StableAudio3Networks {
    fn spec(&self) -> Spec {
        self.sizes.spec()
    }

    fn tokenize(&self, prompts: &[&str], _length: Option<u32>, _learned: &LearnedTokens) -> Tokens {
        Tokens { ids: vec![self.tokenizer.encode(prompts.first().copied().unwrap_or_default())], ..Tokens::default() }
    }

    /// Prompts have different lengths, so each is encoded on its own.
    async fn encode_text(
        &self,
        prompts: &[Tokens],
        _clip_skip: u32,
    ) -> std::result::Result<Vec<TextEmbedding>, NetworkError> {
        let mut embeddings = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            embeddings.push(self.encode_prompt(prompt).await.map_err(NetworkError::of("text_encoder"))?);
        }
        Ok(embeddings)
    }

    async fn denoise(
        &self,
        shape: [usize; 3],
        depth: Depth,
        rows: &[DenoiseRow],
    ) -> std::result::Result<Vec<Denoised>, NetworkError> {
        depth.check_full()?;
        self.predict(shape, rows).await.map_err(NetworkError::of("transformer"))
    }

    async fn encode(
        &self,
        _shape: [usize; 2],
        _rows: &[Vec<f32>],
    ) -> std::result::Result<Vec<Posterior>, NetworkError> {
        Err(NetworkError::missing("vae_encoder"))
    }

    fn demand(&self, part: Part) -> Demand {
        self.sizes.demand(part)
    }

    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        Tiles::new(h, w, h.max(w))
    }

    /// The decoder pauses between its layers.
    fn decode_stages(&self, _shape: [usize; 3]) -> Vec<f64> {
        vec![1.0]
    }

    async fn decode(
        &self,
        _shape: [usize; 3],
        _stage: usize,
        rows: &[Activation],
    ) -> std::result::Result<Vec<Activation>, NetworkError> {
        self.decode_rows(rows).await.map_err(NetworkError::of("vae"))
    }
}
