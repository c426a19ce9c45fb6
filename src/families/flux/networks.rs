//! The networks of FLUX.1. They compute the rows of calls in batches.

use async_trait::async_trait;
use candle_core::{Result as Computed, Tensor};

use super::{
    description::Configurations,
    sizes::{PATCH, Sizes},
    text::Text,
};
use crate::{
    device::{Device, Precision},
    families::autoencoder::{Autoencoder, RGB, rows_of},
    models::{
        ClipTextModel, FluxTransformer2DModel,
        adapters::{Adapter, RowAdapters},
        autoencoder_kl::Tiles,
        demand::Demand,
        flux_transformer2d::FluxConditions,
        latent_diffusion::{Part, Spec},
        t5_encoder::T5EncoderModel,
        text_encoders::{LearnedTokens, Tokens},
    },
    pipelines::{Activation, DenoiseRow, Denoised, Depth, NetworkError, Networks, Posterior, TextEmbedding},
    weights::{
        LoadError, ModelFolder, Weights, as_stored,
        lora::{Lora, Modules},
    },
};

/// The networks of a folder, in memory.
#[derive(Debug)]
pub(super) struct FluxNetworks {
    text: Text,
    transformer: FluxTransformer2DModel,
    vae: Autoencoder,
    sizes: Sizes,
    /// The modules that adapters can change.
    modules: Modules,
    device: Device,
}

impl FluxNetworks {
    /// Reads the weights.
    pub fn load(folder: &ModelFolder, device: &Device) -> Result<Self, LoadError> {
        let Configurations { sizes, tokenizers, .. } = Configurations::read(folder)?;
        let precision = device.precision();
        let clip = network(folder, TEXT_ENCODER, device, |w| Ok(ClipTextModel::new(&sizes.clip, w)))?;
        let t5 = network(folder, TEXT_ENCODER_2, device, |w| T5EncoderModel::new(&sizes.t5, w))?;
        let transformer =
            network(folder, TRANSFORMER, device, |w| Ok(FluxTransformer2DModel::new(&sizes.transformer, w)))?;
        let vae = Autoencoder::load(folder, &sizes.vae, device, sizes.vae_precision(precision))?;
        let (text, modules) = (Text { tokenizers, clip, t5 }, modules(&sizes));
        Ok(Self { text, transformer, vae, sizes, modules, device: device.clone() })
    }

    /// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes
    /// about the files.
    pub fn check(folder: &ModelFolder, sizes: &Sizes) -> Result<Vec<String>, LoadError> {
        let mut notes: Vec<String> = Autoencoder::check(folder, &sizes.vae, RGB)?.into_iter().collect();
        let mut open = |(part, stem): (&str, &str)| {
            let weights = Weights::open(folder, part, stem, &Device::host(), as_stored)?;
            notes.extend(weights.note());
            Ok::<_, LoadError>(weights)
        };
        open(TEXT_ENCODER)?.check(|w| drop(ClipTextModel::new(&sizes.clip, w)))?;
        open(TEXT_ENCODER_2)?.check(|w| drop(T5EncoderModel::new(&sizes.t5, w)))?;
        open(TRANSFORMER)?.check(|w| drop(FluxTransformer2DModel::new(&sizes.transformer, w)))?;
        Ok(notes)
    }

    async fn predict(&self, [c, h, w]: [usize; 3], rows: &[DenoiseRow]) -> Computed<Vec<Denoised>> {
        let device = self.device.candle();
        let samples: Vec<f32> = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
        let samples = packed(&Tensor::from_vec(samples, (rows.len(), c, h, w), device)?)?;
        let stacked = |of: &dyn Fn(&DenoiseRow) -> Computed<Tensor>| {
            Tensor::stack(&rows.iter().map(of).collect::<Computed<Vec<Tensor>>>()?, 0)?.contiguous()
        };
        let text = stacked(&|row| row.context.hidden.to_device(device))?;
        let pooled = stacked(&|row| match &row.context.pooled {
            Some(pooled) => pooled.to_device(device),
            None => candle_core::bail!("a row has no vector of its prompt"),
        })?;
        let t: Vec<f32> = rows.iter().map(|row| row.t).collect();
        let guidance: Option<Vec<f32>> = rows.iter().map(|row| row.guidance.map(|scale| scale as f32)).collect();
        let adapters = RowAdapters::of(rows.iter().map(|row| &row.adapters));
        let conditions =
            FluxConditions { t: &t, guidance: guidance.as_deref(), text: &text, pooled: &pooled, adapters: &adapters };
        let grid = [h / PATCH, w / PATCH];
        let predictions = unpacked(&self.transformer.forward(&samples, grid, conditions).await?, grid)?;
        let denoised = |prediction| Denoised { prediction, features: None };
        Ok(rows_of(&predictions)?.into_iter().map(denoised).collect())
    }
}

const TEXT_ENCODER: (&str, &str) = ("text_encoder", "model");
const TEXT_ENCODER_2: (&str, &str) = ("text_encoder_2", "model");
const TRANSFORMER: (&str, &str) = ("transformer", "diffusion_pytorch_model");

/// Loads one network of a folder. On the CPU, the network's matrices keep the number format of the files. Fails if a
/// tensor of the files is not used.
fn network<N>(
    folder: &ModelFolder,
    (part, stem): (&str, &str),
    device: &Device,
    build: impl FnOnce(&Weights) -> Computed<N>,
) -> Result<N, LoadError> {
    let weights = Weights::open(folder, part, stem, device, as_stored)?;
    let network = build(&weights.in_precision(device.precision()).with_stored_matrices())?;
    weights.finish()?;
    Ok(network)
}

/// The modules that adapters can change: the modules of CLIP and of the transformer.
pub(super) fn modules(sizes: &Sizes) -> Modules {
    let mut modules = Modules::default();
    let mut add = |part: &str, build: &dyn Fn(&Weights)| {
        let outline = Weights::outline(part);
        build(&outline);
        modules.add(part, &outline.requested());
    };
    add("text_encoder", &|w| drop(ClipTextModel::new(&sizes.clip, w)));
    add("transformer", &|w| drop(FluxTransformer2DModel::new(&sizes.transformer, w)));
    modules
}

/// Latents (B, C, h, w) → patches (B, h/2 · w/2, 4·C), in the order C, row and column within the patch.
fn packed(x: &Tensor) -> Computed<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let (rows, columns) = (h / PATCH, w / PATCH);
    let x = x.reshape(&[b, c, rows, PATCH, columns, PATCH][..])?.permute([0, 2, 4, 1, 3, 5])?;
    x.contiguous()?.reshape((b, rows * columns, c * PATCH * PATCH))
}

/// The inverse of [`packed`] for a grid of (rows, columns).
fn unpacked(x: &Tensor, [rows, columns]: [usize; 2]) -> Computed<Tensor> {
    let (b, _, width) = x.dims3()?;
    let c = width / (PATCH * PATCH);
    let x = x.reshape(&[b, rows, columns, c, PATCH, PATCH][..])?.permute([0, 3, 1, 4, 2, 5])?;
    x.contiguous()?.reshape((b, c, rows * PATCH, columns * PATCH))
}

#[async_trait]
impl Networks for FluxNetworks {
    fn spec(&self) -> Spec {
        self.sizes.spec()
    }

    fn tokenize(&self, prompts: &[&str], max_sequence_length: Option<u32>, _learned: &LearnedTokens) -> Tokens {
        let length = max_sequence_length.map_or(self.sizes.sequence_length(), |length| length as usize);
        self.text.tokenize(prompts, length)
    }

    async fn encode_text(&self, prompts: &[Tokens], _clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        self.text.encode(prompts).await.map_err(NetworkError::of("text_encoder"))
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

    async fn encode(&self, size: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        self.vae.encode(size, rows).await
    }

    fn demand(&self, part: Part) -> Demand {
        let precision = match part {
            Part::Text { .. } | Part::Denoise { .. } => self.device.precision(),
            Part::Encode { .. } | Part::Decode { .. } => self.sizes.vae_precision(self.device.precision()),
            Part::DecodeTiny { .. } => Precision::F32,
        };
        self.sizes.demand(part).on(&self.device, precision)
    }

    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        self.sizes.vae.tiles(h, w)
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

    fn adapter(&self, path: &str, file: &[u8]) -> Result<Adapter, LoadError> {
        Ok(Adapter::of(Lora::read(path, file, &self.modules)?, &self.device)?)
    }
}
