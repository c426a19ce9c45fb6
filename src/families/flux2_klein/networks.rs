//! The networks of FLUX.2 Klein. They compute the rows of calls in batches.

use async_trait::async_trait;
use candle_core::Tensor;

use super::sizes::Sizes;
use crate::{
    device::{Device, Precision},
    families::{autoencoder::rows_of, stages},
    models::{
        AutoencoderKlFlux2, Flux2Transformer2DModel, Qwen3Encoder, QwenTokenizer,
        adapters::{Adapter, RowAdapters},
        autoencoder_kl::{Stage, Tiles, current_name},
        demand::Demand,
        flux2_transformer2d::{Position, References},
        latent_diffusion::{Part, Spec},
        qwen3_encoder::Qwen3Row,
        text_encoders::{LearnedTokens, Tokens},
    },
    pipelines::{Activation, DenoiseRow, Denoised, Depth, NetworkError, Networks, Posterior, TextEmbedding},
    weights::{
        LoadError, ModelFolder, Weights, as_stored,
        lora::{Lora, Modules},
    },
};

/// The folders and the stems of the weight files.
pub(super) const TEXT: (&str, &str) = ("text_encoder", "model");
pub(super) const TRANSFORMER: (&str, &str) = ("transformer", "diffusion_pytorch_model");
pub(super) const VAE: (&str, &str) = ("vae", "diffusion_pytorch_model");

/// A decoding stage of several layers does at most this number of multiplications for one row. A layer with more is a
/// stage of its own. These multiplications take tens of milliseconds on a few cores.
const STAGE_WORK: f64 = 1e9;

/// The first coordinate of a position says to which reference picture the token belongs: this number for the first
/// picture, twice this number for the second.
const PICTURES_APART: u32 = 10;

/// A text encoder, a transformer and an autoencoder, in memory.
#[derive(Debug)]
pub(super) struct Flux2KleinNetworks {
    tokenizer: QwenTokenizer,
    text_encoder: Qwen3Encoder,
    transformer: Flux2Transformer2DModel,
    vae: AutoencoderKlFlux2,
    sizes: Sizes,
    /// The modules that adapters can change.
    modules: Modules,
    device: Device,
}

/// The modules that adapters can change: the modules of the transformer.
pub(super) fn modules(sizes: &Sizes) -> Modules {
    let mut modules = Modules::default();
    let outline = Weights::outline(TRANSFORMER.0);
    drop(Flux2Transformer2DModel::new(&sizes.transformer, &outline));
    modules.add(TRANSFORMER.0, &outline.requested());
    modules
}

impl Flux2KleinNetworks {
    /// Reads the weights.
    pub fn load(folder: &ModelFolder, device: &Device) -> Result<Self, LoadError> {
        let sizes = Sizes::read(folder)?;
        let tokenizer = sizes.tokenizer(folder)?;
        let open = |(part, stem)| Weights::open(folder, part, stem, device, as_stored);
        let weights = open(TEXT)?;
        let stored = |weights: &Weights| weights.in_precision(device.precision()).with_stored_matrices();
        let text_encoder = Qwen3Encoder::new(&sizes.text_encoder, &stored(&weights), Sizes::DEPTH);
        weights.finish()?;
        let weights = open(TRANSFORMER)?;
        let transformer = Flux2Transformer2DModel::new(&sizes.transformer, &stored(&weights));
        weights.finish()?;
        let weights = Weights::open(folder, VAE.0, VAE.1, device, current_name)?;
        let vae = AutoencoderKlFlux2::new(&sizes.vae, &weights.in_precision(Precision::F32))?;
        weights.finish()?;
        let modules = modules(&sizes);
        Ok(Self { tokenizer, text_encoder, transformer, vae, sizes, modules, device: device.clone() })
    }

    /// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes
    /// about the files.
    pub fn check(folder: &ModelFolder, sizes: &Sizes) -> Result<Vec<String>, LoadError> {
        sizes.tokenizer(folder)?;
        let host = Device::host();
        let open = |(part, stem)| Weights::open(folder, part, stem, &host, as_stored);
        let (text, transformer) = (open(TEXT)?, open(TRANSFORMER)?);
        let vae = Weights::open(folder, VAE.0, VAE.1, &host, current_name)?;
        let notes = [text.note(), transformer.note(), vae.note()];
        text.check(|weights| drop(Qwen3Encoder::new(&sizes.text_encoder, weights, Sizes::DEPTH)))?;
        transformer.check(|weights| drop(Flux2Transformer2DModel::new(&sizes.transformer, weights)))?;
        vae.check(|weights| drop(AutoencoderKlFlux2::new(&sizes.vae, weights)))?;
        Ok(notes.into_iter().flatten().collect())
    }

    async fn encode_prompt(&self, prompt: &Tokens) -> candle_core::Result<TextEmbedding> {
        let ids = prompt.ids.first().map(Vec::as_slice).unwrap_or_default();
        // The chat template ends every prompt with tokens that are not padding. So all padding at the end of the ids is
        // filling, and does not count in `length`.
        let padding = ids.iter().rev().take_while(|id| **id == self.tokenizer.pad()).count();
        let row = Qwen3Row { ids, length: (ids.len() - padding).max(1) };
        let states = self.text_encoder.forward(row, &Sizes::STATES).await?;
        let adapters = RowAdapters::of([&prompt.adapters]);
        let hidden = self.transformer.text(&Tensor::cat(&states, 2)?, &adapters)?.get(0)?.force_contiguous()?;
        Ok(TextEmbedding { hidden, pooled: None })
    }

    async fn predict(&self, [c, h, w]: [usize; 3], rows: &[DenoiseRow]) -> candle_core::Result<Vec<Denoised>> {
        let device = self.device.candle();
        let samples = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
        let samples = Tensor::from_vec(samples, (rows.len(), c, h, w), device)?;
        let texts = rows.iter().map(|row| row.context.hidden.to_device(device));
        let texts = Tensor::stack(&texts.collect::<candle_core::Result<Vec<Tensor>>>()?, 0)?;
        let t: Vec<f32> = rows.iter().map(|row| row.t).collect();
        let references = self.references(c, rows)?;
        let adapters = RowAdapters::of(rows.iter().map(|row| &row.adapters));
        let velocities = self.transformer.forward(&samples, &t, &texts, references.as_ref(), &adapters).await?;
        let rows = rows_of(&velocities)?;
        Ok(rows.into_iter().map(|prediction| Denoised { prediction, features: None }).collect())
    }

    /// The tokens of the rows' reference pictures; `None` without such pictures.
    fn references(&self, c: usize, rows: &[DenoiseRow]) -> candle_core::Result<Option<References>> {
        let count = rows.first().map_or(0, |row| row.references.iter().map(|of| of.tokens()).sum());
        if count == 0 {
            return Ok(None);
        }
        let mut tokens: Vec<f32> = Vec::with_capacity(rows.len() * count * c);
        let mut positions = Vec::with_capacity(rows.len());
        for row in rows {
            let mut of_row: Vec<Position> = Vec::with_capacity(count);
            for (picture, reference) in (1..).zip(row.references.iter()) {
                let ([h, w], places) = (reference.size, reference.tokens());
                for at in 0..places {
                    tokens.extend((0..c).map(|channel| reference.latents[channel * places + at]));
                }
                let places = (0..h as u32).flat_map(|row| (0..w as u32).map(move |column| (row, column)));
                of_row.extend(places.map(|(row, column)| [PICTURES_APART * picture, row, column, 0]));
            }
            positions.push(of_row);
        }
        let tokens = Tensor::from_vec(tokens, (rows.len(), count, c), self.device.candle())?;
        Ok(Some(References { tokens, positions }))
    }

    fn stages(&self, h: usize, w: usize) -> Vec<Stage> {
        self.vae.decode_stages(h, w, STAGE_WORK)
    }
}

#[async_trait]
impl Networks for Flux2KleinNetworks {
    fn spec(&self) -> Spec {
        self.sizes.spec()
    }

    /// The ids are padded: the denoiser reads the states of the padding too.
    fn tokenize(&self, prompts: &[&str], max_sequence_length: Option<u32>, _learned: &LearnedTokens) -> Tokens {
        let mut ids = self.tokenizer.encode(prompts.first().copied().unwrap_or_default());
        ids.resize(max_sequence_length.map_or(Sizes::SEQUENCE, |length| length as usize), self.tokenizer.pad());
        Tokens { ids: vec![ids], ..Tokens::default() }
    }

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
        self.predict(shape, rows).await.map_err(NetworkError::of("transformer"))
    }

    /// The most probable latents, without a deviation: pictures are references, not states of the sampler.
    async fn encode(&self, [height, width]: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        let encode = async {
            let pixels: Vec<f32> = rows.iter().flatten().copied().collect();
            let pixels = Tensor::from_vec(pixels, (rows.len(), 3, height, width), self.device.candle())?;
            let rows = rows_of(&self.vae.encode(&pixels).await?)?;
            let posterior = |mean: Vec<f32>| Posterior { std: vec![0.0; mean.len()], unscaled: Vec::new(), mean };
            Ok(rows.into_iter().map(posterior).collect())
        };
        encode.await.map_err(NetworkError::of("vae_encoder"))
    }

    fn demand(&self, part: Part) -> Demand {
        // Activations between the layers are float32 on every device.
        self.sizes.demand(part).on(&self.device, Precision::F32)
    }

    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        self.sizes.vae.tiles(h, w)
    }

    fn decode_stages(&self, [_, h, w]: [usize; 3]) -> Vec<f64> {
        stages::shares(&self.stages(h, w))
    }

    async fn decode(
        &self,
        [_, h, w]: [usize; 3],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        let stages = self.stages(h, w);
        let layers = stages::at(&stages, stage)?.layers.clone();
        let decode = async {
            let mut x = Activation::join(rows)?.to_device(self.device.candle())?;
            if stage == 0 {
                x = self.vae.unfolded(&x)?;
            }
            Activation::split(self.vae.decode_layers(layers, x).await?)
        };
        decode.await.map_err(NetworkError::of("vae"))
    }

    fn adapter(&self, path: &str, file: &[u8]) -> Result<Adapter, LoadError> {
        let lora = Lora::read(path, file, &self.modules)?;
        Ok(Adapter::of(Flux2Transformer2DModel::divide(&self.sizes.transformer, lora), &self.device)?)
    }
}
