//! The networks of Stable Diffusion 3. They compute the rows of calls in batches.

use std::sync::Arc;

use async_trait::async_trait;
use candle_core::Tensor;

use super::{
    SEQUENCE_LENGTHS,
    description::{CLIP, Configurations, Sizes, T5, TEXT_WEIGHTS, WEIGHTS},
    text::{Text, Tokenizers},
};
use crate::{
    device::{Device, Precision},
    families::autoencoder::{Autoencoder, RGB, rows_of},
    models::{
        ClipTextModel, Sd3Transformer2DModel,
        adapters::{Adapter, RowAdapters},
        autoencoder_kl::Tiles,
        demand::Demand,
        latent_diffusion::{Part, Spec},
        sd3_transformer2d::Sd3Conditions,
        t5_encoder::T5EncoderModel,
        text_encoders::{LearnedTokens, TextEncoders, Tokens},
    },
    pipelines::{Activation, DenoiseRow, Denoised, Depth, NetworkError, Networks, Posterior, TextEmbedding},
    weights::{
        LoadError, ModelFolder, Weights, as_stored,
        lora::{Lora, Modules},
    },
};

/// The networks of a folder, in memory.
#[derive(Debug)]
pub(super) struct Sd3Networks {
    text: Text,
    transformer: Sd3Transformer2DModel,
    vae: Autoencoder,
    sizes: Sizes,
    /// The modules that adapters can change.
    modules: Modules,
    device: Device,
}

impl Sd3Networks {
    /// Reads the weights. The networks are read and packed in parallel, on rayon's threads.
    pub fn load(folder: &ModelFolder, device: &Device) -> Result<Self, LoadError> {
        let Configurations { sizes, tokenizers, .. } = Configurations::read(folder)?;
        let precision = device.precision();
        let (text, (transformer, vae)) = rayon::join(
            || text(folder, &sizes, tokenizers, device),
            || {
                rayon::join(
                    || {
                        network(folder, ("transformer", WEIGHTS), device, |w| {
                            Ok(Sd3Transformer2DModel::new(&sizes.transformer, w))
                        })
                    },
                    || Autoencoder::load(folder, &sizes.vae, device, sizes.vae_precision(precision)),
                )
            },
        );
        let (text, transformer, vae) = (text?, transformer?, vae?);
        let modules = modules(&sizes);
        Ok(Self { text, transformer, vae, sizes, modules, device: device.clone() })
    }

    /// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes
    /// about the files.
    pub fn check(folder: &ModelFolder, sizes: &Sizes) -> Result<Vec<String>, LoadError> {
        let mut notes: Vec<String> = Autoencoder::check(folder, &sizes.vae, RGB)?.into_iter().collect();
        let mut open = |part: &str, stem: &str| {
            let weights = Weights::open(folder, part, stem, &Device::host(), as_stored)?;
            notes.extend(weights.note());
            Ok::<_, LoadError>(weights)
        };
        for (part, config) in CLIP.into_iter().zip(&sizes.clip) {
            open(part, TEXT_WEIGHTS)?.check(|w| drop(ClipTextModel::new(config, w)))?;
        }
        if let Some(config) = &sizes.t5 {
            open(T5, TEXT_WEIGHTS)?.check(|w| drop(T5EncoderModel::new(config, w)))?;
        }
        open("transformer", WEIGHTS)?.check(|w| drop(Sd3Transformer2DModel::new(&sizes.transformer, w)))?;
        Ok(notes)
    }

    /// The predictions for rows that leave out the same blocks.
    async fn predict(
        &self,
        [c, h, w]: [usize; 3],
        rows: &[&DenoiseRow],
        skipped: &[u32],
    ) -> candle_core::Result<Vec<Vec<f32>>> {
        let device = self.device.candle();
        let samples: Vec<f32> = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
        let samples = Tensor::from_vec(samples, (rows.len(), c, h, w), device)?;
        let stacked = |of: &dyn Fn(&DenoiseRow) -> candle_core::Result<Tensor>| {
            let all: Vec<Tensor> = rows.iter().map(|row| of(row)).collect::<candle_core::Result<_>>()?;
            Tensor::stack(&all, 0)?.contiguous()
        };
        let text = stacked(&|row| row.context.hidden.to_device(device))?;
        let pooled = stacked(&|row| match &row.context.pooled {
            Some(pooled) => pooled.to_device(device),
            None => candle_core::bail!("a row has no vector of its prompt"),
        })?;
        let t: Vec<f32> = rows.iter().map(|row| row.t).collect();
        let adapters = RowAdapters::of(rows.iter().map(|row| &row.adapters));
        let conditions = Sd3Conditions { t: &t, text: &text, pooled: &pooled, adapters: &adapters, skipped };
        rows_of(&self.transformer.forward(&samples, &conditions).await?)
    }
}

fn text(
    folder: &ModelFolder,
    sizes: &Sizes,
    Tokenizers { clip, t5 }: Tokenizers,
    device: &Device,
) -> Result<Text, LoadError> {
    let model =
        |i: usize| network(folder, (CLIP[i], TEXT_WEIGHTS), device, |w| Ok(ClipTextModel::new(&sizes.clip[i], w)));
    let encoders = clip.into_iter().enumerate().map(|(i, tokenizer)| Ok((tokenizer, model(i)?)));
    let clip = TextEncoders::joined(encoders.collect::<Result<Vec<_>, LoadError>>()?);
    let t5 = match (t5, &sizes.t5) {
        (Some(tokenizer), Some(config)) => {
            Some((tokenizer, network(folder, (T5, TEXT_WEIGHTS), device, |w| T5EncoderModel::new(config, w))?))
        }
        _ => None,
    };
    Ok(Text { clip, t5, width: sizes.transformer.joint_attention_dim })
}

/// Loads one network of a folder. On the CPU, the network's matrices keep the number format of the files. Fails if a
/// tensor of the files is not used.
fn network<N>(
    folder: &ModelFolder,
    (part, stem): (&str, &str),
    device: &Device,
    build: impl FnOnce(&Weights) -> candle_core::Result<N>,
) -> Result<N, LoadError> {
    let weights = Weights::open(folder, part, stem, device, as_stored)?;
    let network = build(&weights.in_precision(device.precision()).with_stored_matrices())?;
    weights.finish()?;
    Ok(network)
}

/// The modules that adapters can change.
pub(super) fn modules(sizes: &Sizes) -> Modules {
    let mut modules = Modules::default();
    let mut add = |part: &str, build: &dyn Fn(&Weights)| {
        let outline = Weights::outline(part);
        build(&outline);
        modules.add(part, &outline.requested());
    };
    for (part, config) in CLIP.into_iter().zip(&sizes.clip) {
        add(part, &|w| drop(ClipTextModel::new(config, w)));
    }
    add("transformer", &|w| drop(Sd3Transformer2DModel::new(&sizes.transformer, w)));
    modules
}

fn length(max_sequence_length: Option<u32>) -> usize {
    max_sequence_length.unwrap_or(SEQUENCE_LENGTHS.0) as usize
}

#[async_trait]
impl Networks for Sd3Networks {
    fn spec(&self) -> Spec {
        self.sizes.spec()
    }

    fn tokenize(&self, prompts: &[&str], max_sequence_length: Option<u32>, learned: &LearnedTokens) -> Tokens {
        self.text.tokenize(prompts, length(max_sequence_length), learned)
    }

    async fn encode_text(&self, prompts: &[Tokens], clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        self.text.encode(prompts, clip_skip as usize).await.map_err(NetworkError::of("text_encoder"))
    }

    async fn denoise(
        &self,
        shape: [usize; 3],
        depth: Depth,
        rows: &[DenoiseRow],
    ) -> Result<Vec<Denoised>, NetworkError> {
        depth.check_full()?;
        // Rows that leave out the same blocks are computed together.
        let mut groups: Vec<(Arc<[u32]>, Vec<usize>)> = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            match groups.iter_mut().find(|(skipped, _)| *skipped == row.skipped) {
                Some((_, of)) => of.push(i),
                None => groups.push((row.skipped.clone(), vec![i])),
            }
        }
        let mut answers = vec![Vec::new(); rows.len()];
        for (skipped, of) in groups {
            let group: Vec<&DenoiseRow> = of.iter().map(|i| &rows[*i]).collect();
            let predictions = self.predict(shape, &group, &skipped).await.map_err(NetworkError::of("transformer"))?;
            of.into_iter().zip(predictions).for_each(|(i, prediction)| answers[i] = prediction);
        }
        Ok(answers.into_iter().map(|prediction| Denoised { prediction, features: None }).collect())
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
