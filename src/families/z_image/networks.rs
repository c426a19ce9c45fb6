//! The networks of Z-Image. They compute the rows of calls in batches.

use async_trait::async_trait;
use candle_core::Tensor;

use crate::{
    device::{Device, Precision},
    families::autoencoder::{Autoencoder, RGB, rows_of},
    generation::{FlowLevels, Mu},
    models::{
        Qwen3Encoder, QwenTokenizer, ZImageTransformer2DModel,
        adapters::{Adapter, RowAdapters},
        autoencoder_kl::{AutoencoderKlConfig, Tiles},
        demand::Demand,
        latent_diffusion::{Part, Spec},
        qwen_tokenizer::Answer,
        qwen3_encoder::{Qwen3Config, Qwen3Row},
        text_encoders::{LearnedTokens, Tokens},
        z_image_transformer2d::{MULTIPLE, ZImageTransformer2DConfig},
    },
    pipelines::{Activation, DenoiseRow, Denoised, Depth, NetworkError, Networks, Posterior, TextEmbedding},
    weights::{
        LoadError, ModelFolder, Weights, as_stored,
        lora::{Lora, Modules},
    },
};

/// The configurations of a folder's networks.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub text_encoder: Qwen3Config,
    pub transformer: ZImageTransformer2DConfig,
    pub vae: AutoencoderKlConfig,
}

/// The folders and the stems of the weight files.
pub(super) const TEXT: (&str, &str) = ("text_encoder", "model");
pub(super) const TRANSFORMER: (&str, &str) = ("transformer", "diffusion_pytorch_model");

pub(super) const VAE: (&str, &str) = ("vae", "diffusion_pytorch_model");

/// The number of tokens of a prompt that the model reads, unless a request says otherwise: the default of diffusers'
/// pipelines.
pub(super) const SEQUENCE: usize = 512;

impl Sizes {
    /// Reads the configurations. Fails if the networks do not fit together.
    pub fn read(folder: &ModelFolder) -> Result<Sizes, LoadError> {
        let [text, transformer, vae] = ["text_encoder", "transformer", "vae"].map(|part| format!("{part}/config.json"));
        let sizes = Sizes {
            text_encoder: Qwen3Config::read(&text, &folder.json(&text)?)?,
            transformer: ZImageTransformer2DConfig::read(&transformer, &folder.json(&transformer)?)?,
            vae: AutoencoderKlConfig::read(&vae, &folder.json(&vae)?)?,
        };
        for (key, value, wanted, what) in [
            ("in_channels", sizes.transformer.in_channels, sizes.vae.latent_channels, "the latent_channels of the vae"),
            (
                "cap_feat_dim",
                sizes.transformer.cap_feat_dim,
                sizes.text_encoder.hidden_size,
                "the hidden_size of the text_encoder",
            ),
        ] {
            if value != wanted {
                let reason = format!("must be {wanted}, {what}, not {value}");
                return Err(LoadError::BadKey { path: transformer, key: key.into(), reason });
            }
        }
        Ok(sizes)
    }

    /// The number of layers of the text encoder that are used: all but the last.
    pub fn depth(&self) -> usize {
        self.text_encoder.num_hidden_layers.saturating_sub(1)
    }

    /// The number of tokens of the longest prompt, with padding.
    pub fn tokens(&self, max_sequence_length: Option<u32>) -> usize {
        max_sequence_length.map_or(SEQUENCE, |length| length as usize).next_multiple_of(MULTIPLE)
    }

    /// The longest side of a picture in pixels, for which the transformer has positions.
    pub fn longest_side(&self) -> u32 {
        let [_, rows, columns] = self.transformer.axes_lens;
        (rows.min(columns) * 2 * self.vae.scale()) as u32
    }

    /// The work and memory of one row of a call; zero for kinds of calls that this family does not have.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Text { .. } => {
                let encoder = self.text_encoder.demand(SEQUENCE, self.depth());
                encoder.then(self.transformer.caption_demand(SEQUENCE))
            }
            Part::Denoise { size, tokens, adapted, .. } => self.transformer.demand(size, tokens, adapted),
            Part::Encode { size } => self.vae.encode_demand(size),
            Part::Decode { size: [h, w] } => self.vae.decode_demand(h, w),
            Part::DecodeTiny { .. } => Demand::default(),
        }
    }

    /// The sizes of the model.
    pub fn spec(&self) -> Spec {
        let scale = self.vae.scale();
        Spec {
            latent_channels: self.transformer.in_channels,
            vae_scale_factor: scale,
            sample_size: (1024 / scale, 1024 / scale),
            context_length: SEQUENCE,
            context_width: self.transformer.dim,
            text_encoders: 1,
            size_multiple: 2 * scale,
            flow: Some(FlowLevels { token_side: 2 * scale as u32, is_linear: true, mu: Mu::Tokens }),
            guidance_offset: 1,
            ..Spec::default()
        }
    }
}

/// A text encoder, a transformer and an autoencoder, in memory.
#[derive(Debug)]
pub(super) struct ZImageNetworks {
    tokenizer: QwenTokenizer,
    text_encoder: Qwen3Encoder,
    transformer: ZImageTransformer2DModel,
    vae: Autoencoder,
    sizes: Sizes,
    /// The modules that adapters can change.
    modules: Modules,
    device: Device,
}

impl ZImageNetworks {
    /// Reads the weights.
    pub fn load(folder: &ModelFolder, device: &Device) -> Result<Self, LoadError> {
        let sizes = Sizes::read(folder)?;
        let tokenizer = sizes.tokenizer(folder)?;
        let open = |(part, stem)| Weights::open(folder, part, stem, device, as_stored);
        let weights = open(TEXT)?;
        let stored = |weights: &Weights| weights.in_precision(device.precision()).with_stored_matrices();
        let text_encoder = Qwen3Encoder::new(&sizes.text_encoder, &stored(&weights), sizes.depth());
        weights.finish()?;
        let weights = open(TRANSFORMER)?;
        let transformer = ZImageTransformer2DModel::new(&sizes.transformer, &stored(&weights));
        weights.finish()?;
        let vae = Autoencoder::load(folder, &sizes.vae, device, Precision::F32)?;
        let modules = sizes.modules();
        Ok(Self { tokenizer, text_encoder, transformer, vae, sizes, modules, device: device.clone() })
    }

    /// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes
    /// about the files.
    pub fn check(folder: &ModelFolder, sizes: &Sizes) -> Result<Vec<String>, LoadError> {
        sizes.tokenizer(folder)?;
        let open = |(part, stem)| Weights::open(folder, part, stem, &Device::host(), as_stored);
        let (text, transformer) = (open(TEXT)?, open(TRANSFORMER)?);
        let notes = [text.note(), transformer.note(), Autoencoder::check(folder, &sizes.vae, RGB)?];
        text.check(|weights| drop(Qwen3Encoder::new(&sizes.text_encoder, weights, sizes.depth())))?;
        transformer.check(|weights| drop(ZImageTransformer2DModel::new(&sizes.transformer, weights)))?;
        Ok(notes.into_iter().flatten().collect())
    }

    async fn encode_prompt(&self, prompt: &Tokens) -> candle_core::Result<TextEmbedding> {
        let ids = prompt.ids.first().map(Vec::as_slice).unwrap_or_default();
        let row = Qwen3Row { ids, length: ids.len() };
        let states = self.text_encoder.forward(row, &[self.sizes.depth()]).await?;
        // The prompt's part of the transformer.
        let adapters = RowAdapters::of([&prompt.adapters]);
        let hidden = self.transformer.caption(&states[0], &adapters).await?.get(0)?.force_contiguous()?;
        Ok(TextEmbedding { hidden, pooled: None })
    }

    async fn predict(&self, [c, h, w]: [usize; 3], rows: &[DenoiseRow]) -> candle_core::Result<Vec<Denoised>> {
        let device = self.device.candle();
        let samples = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
        let samples = Tensor::from_vec(samples, (rows.len(), c, h, w), device)?;
        let captions = rows.iter().map(|row| row.context.hidden.to_device(device));
        let captions = Tensor::stack(&captions.collect::<candle_core::Result<Vec<Tensor>>>()?, 0)?;
        // The network's time runs from 0 for noise to 1 for the picture, and its velocity points from noise to the
        // picture.
        let times: Vec<f32> = rows.iter().map(|row| (1000.0 - row.t) / 1000.0).collect();
        let adapters = RowAdapters::of(rows.iter().map(|row| &row.adapters));
        let velocities = self.transformer.forward(&samples, &times, &captions, &adapters).await?.neg()?;
        let rows = rows_of(&velocities)?;
        Ok(rows.into_iter().map(|prediction| Denoised { prediction, features: None }).collect())
    }
}

impl Sizes {
    /// The modules that adapters can change: the modules of the transformer.
    pub fn modules(&self) -> Modules {
        let mut modules = Modules::default();
        let outline = Weights::outline(TRANSFORMER.0);
        drop(ZImageTransformer2DModel::new(&self.transformer, &outline));
        modules.add(TRANSFORMER.0, &outline.requested());
        modules
    }

    /// Reads the tokenizer. Fails if the text encoder has no vector for one of its tokens.
    pub fn tokenizer(&self, folder: &ModelFolder) -> Result<QwenTokenizer, LoadError> {
        let tokenizer = QwenTokenizer::load(folder, "tokenizer", Answer::Thinking)?;
        let (largest, vocabulary) = (tokenizer.largest_id() as usize, self.text_encoder.vocab_size);
        if largest >= vocabulary {
            let reason = format!("the id {largest} is not in the vocabulary of {vocabulary} tokens of text_encoder");
            return Err(LoadError::Tokenizer { path: "tokenizer".into(), reason });
        }
        Ok(tokenizer)
    }
}

#[async_trait]
impl Networks for ZImageNetworks {
    fn spec(&self) -> Spec {
        self.sizes.spec()
    }

    fn tokenize(&self, prompts: &[&str], max_sequence_length: Option<u32>, _learned: &LearnedTokens) -> Tokens {
        let mut ids = self.tokenizer.encode(prompts.first().copied().unwrap_or_default());
        ids.truncate(max_sequence_length.map_or(SEQUENCE, |length| length as usize));
        Tokens { ids: vec![ids], ..Tokens::default() }
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
        self.predict(shape, rows).await.map_err(NetworkError::of("transformer"))
    }

    async fn encode(&self, shape: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        self.vae.encode(shape, rows).await
    }

    fn demand(&self, part: Part) -> Demand {
        // Activations between the layers are float32 on every device.
        self.sizes.demand(part).on(&self.device, Precision::F32)
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
