//! The networks of PixArt. They compute the rows of calls in batches.

use async_trait::async_trait;
use candle_core::{DType, Result, Tensor};

use super::{Sizes, sizes};
use crate::{
    device::{Device, Precision},
    families::autoencoder::{Autoencoder, RGB},
    kernels::Kernels,
    models::{
        PixArtTransformer2DModel, T5EncoderModel, T5Tokenizer,
        autoencoder_kl::Tiles,
        demand::Demand,
        latent_diffusion::{Part, Spec},
        pixart_transformer2d::Captions,
        text_encoders::{LearnedTokens, Tokens},
    },
    pipelines::{Activation, DenoiseRow, Denoised, Depth, NetworkError, Networks, Posterior, TextEmbedding},
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// A model of PixArt, in memory.
#[derive(Debug)]
pub struct PixArtNetworks {
    tokenizer: T5Tokenizer,
    text_encoder: T5EncoderModel,
    transformer: PixArtTransformer2DModel,
    vae: Autoencoder,
    sizes: Sizes,
    device: Device,
}

impl PixArtNetworks {
    /// Reads the weights. Only the text encoder, by far the largest part, takes the precision of the device; on the
    /// CPU, its matrices stay in memory as the files store them.
    pub fn load(folder: &ModelFolder, device: &Device) -> std::result::Result<Self, LoadError> {
        let sizes = Sizes::read(folder)?;
        let text_encoder = || {
            let weights = Weights::open(folder, "text_encoder", "model", device, as_stored)?;
            let model = T5EncoderModel::new(
                &sizes.text_encoder,
                &weights.in_precision(device.precision()).with_stored_matrices(),
            )?;
            weights.finish().map(|()| model)
        };
        let transformer = || {
            let weights = Weights::open(folder, "transformer", "diffusion_pytorch_model", device, as_stored)?;
            let model = PixArtTransformer2DModel::new(&sizes.transformer, &weights);
            weights.leave(POSITIONS);
            weights.finish().map(|()| model)
        };
        let (text_encoder, transformer) = rayon::join(text_encoder, transformer);
        Ok(Self {
            tokenizer: sizes::tokenizer(folder, &sizes)?,
            text_encoder: text_encoder?,
            transformer: transformer?,
            vae: Autoencoder::load(folder, &sizes.vae, device, Precision::F32)?,
            sizes,
            device: device.clone(),
        })
    }

    /// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes
    /// about the files.
    pub fn check(folder: &ModelFolder, sizes: &Sizes) -> std::result::Result<Vec<String>, LoadError> {
        let open = |part, stem| Weights::open(folder, part, stem, &Device::host(), as_stored);
        let (text, transformer) = (open("text_encoder", "model")?, open("transformer", "diffusion_pytorch_model")?);
        let notes = text.note().into_iter().chain(transformer.note());
        let notes: Vec<String> = notes.chain(Autoencoder::check(folder, &sizes.vae, RGB)?).collect();
        text.check(|weights| drop(T5EncoderModel::new(&sizes.text_encoder, weights)))?;
        transformer.check(|weights| {
            weights.leave(POSITIONS);
            drop(PixArtTransformer2DModel::new(&sizes.transformer, weights));
        })?;
        Ok(notes)
    }

    async fn states(&self, prompts: &[Tokens]) -> Result<Vec<TextEmbedding>> {
        let Some(ids) = prompts.iter().map(|prompt| prompt.ids.first()).collect::<Option<Vec<&Vec<u32>>>>() else {
            candle_core::bail!("no ids for the text encoder")
        };
        let tokens: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();
        let length = self.padded(&tokens);
        let padded = ids.into_iter().map(|ids| {
            let mut ids = ids.clone();
            ids.resize(length, 0);
            ids
        });
        let padded: Vec<Vec<u32>> = padded.collect();
        let rows: Vec<&[u32]> = padded.iter().map(Vec::as_slice).collect();
        let states = self.text_encoder.forward(&rows, Some(&tokens)).await?;
        let row = |(row, tokens): (usize, &usize)| {
            // A copy, because a view in the cache of embeddings would keep the whole batch in memory.
            Ok(TextEmbedding { hidden: states.get(row)?.narrow(0, 0, *tokens)?.force_contiguous()?, pooled: None })
        };
        tokens.iter().enumerate().map(row).collect()
    }

    async fn predict(&self, [c, h, w]: [usize; 3], rows: &[DenoiseRow]) -> Result<Vec<Denoised>> {
        let device = self.device.candle();
        let samples: Vec<f32> = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
        let samples = Tensor::from_vec(samples, (rows.len(), c, h, w), device)?;
        let t: Vec<f32> = rows.iter().map(|row| row.t).collect();
        let tokens: Vec<usize> = rows.iter().map(|row| row.context.dims()[0]).collect();
        let length = self.padded(&tokens);
        let states = rows.iter().map(|row| {
            let hidden = row.context.hidden.to_device(device)?.to_dtype(DType::F32)?;
            hidden.pad_with_zeros(0, 0, length - hidden.dim(0)?)
        });
        let states = Tensor::stack(&states.collect::<Result<Vec<Tensor>>>()?, 0)?.contiguous()?;
        let scale = self.sizes.vae.scale();
        let captions = Captions { states: &states, tokens: &tokens };
        let predictions = self.transformer.forward(&samples, &t, captions, [h * scale, w * scale]).await?;
        // If the network also predicts variances, these are the second half of the outputs. This half is not used.
        let rows: Vec<Vec<f32>> = predictions.narrow(1, 0, c)?.contiguous()?.flatten_from(1)?.to_vec2()?;
        Ok(rows.into_iter().map(|prediction| Denoised { prediction, features: None }).collect())
    }

    /// The number of tokens to which the texts of a batch are padded. The bits of candle's products depend on the
    /// shapes, so with reference kernels this number is the same in every batch.
    fn padded(&self, tokens: &[usize]) -> usize {
        match self.device.kernels() {
            Kernels::Packed(_) => tokens.iter().copied().max().unwrap_or(0),
            Kernels::Reference(_) => sizes::LONGEST,
        }
    }
}

/// The position embeddings, which some files contain. latentd computes them instead of reading them.
const POSITIONS: &str = "pos_embed.pos_embed";

#[async_trait]
impl Networks for PixArtNetworks {
    fn spec(&self) -> Spec {
        self.sizes.spec()
    }

    /// The ids have no padding.
    fn tokenize(&self, prompts: &[&str], max_sequence_length: Option<u32>, _learned: &LearnedTokens) -> Tokens {
        let length = max_sequence_length.map_or(self.sizes.context_length, |length| length as usize);
        let mut of_prompt = self.tokenizer.encode(prompts.first().copied().unwrap_or_default(), length);
        of_prompt.ids.truncate(of_prompt.tokens);
        Tokens { ids: vec![of_prompt.ids], ..Tokens::default() }
    }

    async fn encode_text(
        &self,
        prompts: &[Tokens],
        _clip_skip: u32,
    ) -> std::result::Result<Vec<TextEmbedding>, NetworkError> {
        self.states(prompts).await.map_err(NetworkError::of("text_encoder"))
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

    async fn encode(&self, shape: [usize; 2], rows: &[Vec<f32>]) -> std::result::Result<Vec<Posterior>, NetworkError> {
        self.vae.encode(shape, rows).await
    }

    fn demand(&self, part: Part) -> Demand {
        let precision = if matches!(part, Part::Text { .. }) { self.device.precision() } else { Precision::F32 };
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
    ) -> std::result::Result<Vec<Activation>, NetworkError> {
        self.vae.decode([h, w], stage, rows).await
    }
}
