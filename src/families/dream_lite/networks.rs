//! The networks of DreamLite. They compute the rows of calls in batches.

use async_trait::async_trait;
use candle_core::Tensor;

use super::sizes::Sizes;
use crate::{
    device::{Device, Precision},
    families::autoencoder::rows_of,
    models::{
        AutoencoderTiny, DreamLiteUNetModel, Qwen3Vl,
        autoencoder_kl::Tiles,
        demand::Demand,
        dream_lite_unet::DreamLiteConditions,
        latent_diffusion::{Part, Spec},
        qwen3_vl::{Chat, Qwen3VlRow, Qwen3VlTokenizer},
        text_encoders::{LearnedTokens, Tokens},
    },
    pipelines::{
        Activation, DenoiseRow, Denoised, Depth, Frame, NetworkError, Networks, Posterior, PromptRole, TextEmbedding,
        byte,
    },
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// The folders and the stems of the weight files.
pub(super) const TEXT: (&str, &str) = ("text_encoder", "model");
pub(super) const UNET: (&str, &str) = ("unet", "diffusion_pytorch_model");
pub(super) const VAE: (&str, &str) = ("vae", "diffusion_pytorch_model");

/// A text encoder, a U-Net and an autoencoder, in memory.
#[derive(Debug)]
pub(super) struct DreamLiteNetworks {
    tokenizer: Qwen3VlTokenizer,
    text_encoder: Qwen3Vl,
    unet: DreamLiteUNetModel,
    vae: AutoencoderTiny,
    sizes: Sizes,
    device: Device,
}

impl DreamLiteNetworks {
    /// Reads the weights.
    pub fn load(folder: &ModelFolder, device: &Device) -> Result<Self, LoadError> {
        let sizes = Sizes::read(folder)?;
        let tokenizer = sizes.tokenizer(folder)?;
        let open = |(part, stem)| Weights::open(folder, part, stem, device, as_stored);
        let weights = open(TEXT)?;
        let text_encoder =
            Qwen3Vl::new(&sizes.text_encoder, &weights.in_precision(device.precision()).with_stored_matrices());
        weights.finish()?;
        let weights = open(UNET)?;
        let unet = DreamLiteUNetModel::new(&sizes.unet, &weights.in_precision(device.precision()));
        weights.finish()?;
        let weights = open(VAE)?;
        let vae = AutoencoderTiny::with_encoder(&sizes.vae, &weights.in_precision(Precision::F32));
        weights.finish()?;
        Ok(Self { tokenizer, text_encoder, unet, vae, sizes, device: device.clone() })
    }

    /// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes
    /// about the files.
    pub fn check(folder: &ModelFolder, sizes: &Sizes) -> Result<Vec<String>, LoadError> {
        let open = |(part, stem)| Weights::open(folder, part, stem, &Device::host(), as_stored);
        let (text, unet, vae) = (open(TEXT)?, open(UNET)?, open(VAE)?);
        let notes = [text.note(), unet.note(), vae.note()];
        text.check(|weights| drop(Qwen3Vl::new(&sizes.text_encoder, weights)))?;
        unet.check(|weights| drop(DreamLiteUNetModel::new(&sizes.unet, weights)))?;
        vae.check(|weights| drop(AutoencoderTiny::with_encoder(&sizes.vae, weights)))?;
        Ok(notes.into_iter().flatten().collect())
    }

    /// Encodes a chat, drops the states of the chat's fixed beginning, and converts the other states to the form that
    /// the U-Net reads.
    async fn encode_prompt(&self, prompt: &Tokens) -> candle_core::Result<TextEmbedding> {
        let ids = prompt.ids.first().map(Vec::as_slice).unwrap_or_default();
        let (seen, chat) = match &prompt.picture {
            Some(picture) => (Some(self.text_encoder.see(picture.picture()).await?), Chat::Edit),
            None => (None, Chat::Generate),
        };
        let states = self.text_encoder.forward(Qwen3VlRow { ids, seen: seen.as_ref() }).await?;
        let kept = ids.len().checked_sub(chat.dropped()).filter(|kept| *kept > 0);
        let Some(kept) = kept else { candle_core::bail!("a chat of only {} tokens", ids.len()) };
        let states = states.narrow(1, chat.dropped(), kept)?.contiguous()?;
        Ok(TextEmbedding { hidden: self.unet.text(&states)?.get(0)?.force_contiguous()?, pooled: None })
    }

    async fn predict(&self, [c, h, w]: [usize; 3], rows: &[DenoiseRow]) -> candle_core::Result<Vec<Denoised>> {
        let device = self.device.candle();
        let channels = self.sizes.unet.in_channels;
        let samples: Vec<f32> = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
        let both = Tensor::from_vec(samples, (rows.len(), c, h, w), device)?;
        let samples = both.narrow(1, 0, channels)?.contiguous()?;
        let pictures =
            if c > channels { both.narrow(1, channels, channels)?.contiguous()? } else { samples.zeros_like()? };
        let (texts, lengths) = self.texts(rows)?;
        let times: Vec<f32> = rows.iter().map(|row| row.t).collect();
        let conditions = DreamLiteConditions {
            pictures: &pictures,
            t: &times,
            texts: &texts,
            lengths: &lengths,
            size: [w, h].map(|side| (side * self.sizes.vae.scale()) as f32),
        };
        let rows = rows_of(&self.unet.forward(&samples, conditions).await?)?;
        Ok(rows.into_iter().map(|prediction| Denoised { prediction, features: None }).collect())
    }

    /// The texts of the rows, (B, L, D), each with its number of tokens. Shorter texts end in zeros.
    fn texts(&self, rows: &[DenoiseRow]) -> candle_core::Result<(Tensor, Vec<usize>)> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.context.dims()[0]).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let text = |(row, length): (&DenoiseRow, &usize)| {
            row.context.hidden.to_device(self.device.candle())?.pad_with_zeros(0, 0, longest - length)
        };
        let texts = rows.iter().zip(&lengths).map(text).collect::<candle_core::Result<Vec<Tensor>>>()?;
        Ok((Tensor::stack(&texts, 0)?, lengths))
    }

    /// latents (B, C, h, w) of the denoiser → pixels (B, H, W, 3) in [-1, 1]
    async fn pixels(&self, latents: &Tensor) -> candle_core::Result<Tensor> {
        let vae = &self.sizes.vae;
        let latents = latents.affine(1.0 / vae.scaling_factor, vae.shift_factor)?;
        self.vae.decode(&latents).await?.permute((0, 2, 3, 1))?.contiguous()
    }
}

#[async_trait]
impl Networks for DreamLiteNetworks {
    fn spec(&self) -> Spec {
        self.sizes.spec()
    }

    fn tokenize(&self, prompts: &[&str], max_sequence_length: Option<u32>, learned: &LearnedTokens) -> Tokens {
        self.tokenize_as(PromptRole::default(), prompts, max_sequence_length, learned)
    }

    fn tokenize_as(
        &self,
        PromptRole { is_negative, picture }: PromptRole<'_>,
        prompts: &[&str],
        _max_sequence_length: Option<u32>,
        _learned: &LearnedTokens,
    ) -> Tokens {
        let prompt = prompts.first().copied().unwrap_or_default();
        let chat = if picture.is_some() { Chat::Edit } else { Chat::Generate };
        let mut ids = match is_negative {
            true => self.tokenizer.encode(chat, prompt),
            false => self.tokenizer.encode(chat, &chat.instruction(prompt)),
        };
        ids.truncate(chat.dropped() + self.sizes.tokens(picture.is_some()));
        Tokens { ids: vec![ids], picture: picture.cloned(), ..Tokens::default() }
    }

    /// Prompts have different lengths, so each is encoded on its own.
    async fn encode_text(&self, prompts: &[Tokens], _clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
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
    ) -> Result<Vec<Denoised>, NetworkError> {
        depth.check_full()?;
        self.predict(shape, rows).await.map_err(NetworkError::of("unet"))
    }

    /// The encoder gives the latents themselves: their deviation is 0, and they are not scaled or shifted as the
    /// denoiser's latents are.
    async fn encode(&self, [height, width]: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        let encode = async {
            let pixels = Tensor::from_vec(rows.concat(), (rows.len(), 3, height, width), self.device.candle())?;
            let posterior = |mean: Vec<f32>| Posterior { std: vec![0.0; mean.len()], unscaled: mean.clone(), mean };
            Ok(rows_of(&self.vae.encode(&pixels).await?)?.into_iter().map(posterior).collect())
        };
        encode.await.map_err(NetworkError::of("vae_encoder"))
    }

    fn demand(&self, part: Part) -> Demand {
        // Activations between the layers of the text encoder are float32 on every device.
        let precision = match part {
            Part::Denoise { .. } => self.device.precision(),
            _ => Precision::F32,
        };
        self.sizes.demand(part).on(&self.device, precision)
    }

    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        Tiles::whole(h, w)
    }

    fn decode_stages(&self, _shape: [usize; 3]) -> Vec<f64> {
        vec![1.0]
    }

    async fn decode(
        &self,
        _shape: [usize; 3],
        _stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        let decode = async {
            let latents = Activation::join(rows)?.to_device(self.device.candle())?;
            Activation::split(self.pixels(&latents).await?)
        };
        decode.await.map_err(NetworkError::of("vae"))
    }

    async fn decode_tiny(&self, [c, h, w]: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError> {
        let decode = async {
            let latents = Tensor::from_vec(rows.concat(), (rows.len(), c, h, w), self.device.candle())?;
            let pixels = self.pixels(&latents).await?;
            let (_, height, width, _) = pixels.dims4()?;
            let frame = |levels: Vec<f32>| Frame::picture(width, height, levels.into_iter().map(byte).collect());
            Ok(rows_of(&pixels)?.into_iter().map(frame).collect())
        };
        decode.await.map_err(NetworkError::of("vae"))
    }
}
