//! The networks of a diffusion transformer. They compute the rows of calls in batches.

use async_trait::async_trait;
use candle_core::Tensor;

use crate::{
    device::{Device, Precision},
    families::autoencoder::{Autoencoder, RGB},
    models::{
        DiTTransformer2DModel,
        autoencoder_kl::{AutoencoderKlConfig, Tiles},
        demand::Demand,
        dit_transformer2d::DiTTransformer2DConfig,
        latent_diffusion::{Part, Spec},
        text_encoders::{LearnedTokens, Tokens},
    },
    pipelines::{Activation, DenoiseRow, Denoised, Depth, NetworkError, Networks, Posterior, TextEmbedding},
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// The configurations of a folder's networks.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub transformer: DiTTransformer2DConfig,
    pub vae: AutoencoderKlConfig,
}

const WEIGHTS: &str = "diffusion_pytorch_model";

impl Sizes {
    /// Reads the configurations. Fails if the networks do not fit together.
    pub fn read(folder: &ModelFolder) -> Result<Sizes, LoadError> {
        let (transformer, vae) = ("transformer/config.json", "vae/config.json");
        let sizes = Sizes {
            transformer: DiTTransformer2DConfig::read(transformer, &folder.json(transformer)?)?,
            vae: AutoencoderKlConfig::read(vae, &folder.json(vae)?)?,
        };
        let (channels, latents) = (sizes.transformer.in_channels, sizes.vae.latent_channels);
        let outputs = sizes.transformer.outputs();
        let bad =
            |key: &str, reason: String| Err(LoadError::BadKey { path: transformer.into(), key: key.into(), reason });
        if channels != latents {
            return bad("in_channels", format!("must be {latents}, the latent_channels of the vae, not {channels}"));
        }
        if outputs != channels && outputs != 2 * channels {
            return bad("out_channels", format!("must be {channels} or {}, not {outputs}", 2 * channels));
        }
        Ok(sizes)
    }

    /// The work and memory of one row of a call; zero for kinds of calls that this family does not have.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Denoise { .. } => self.transformer.demand(),
            Part::Decode { size: [h, w] } => self.vae.decode_demand(h, w),
            Part::Text { .. } | Part::Encode { .. } | Part::DecodeTiny { .. } => Demand::default(),
        }
    }

    /// The sizes of the model.
    pub fn spec(&self) -> Spec {
        let (side, scale) = (self.transformer.sample_size, self.vae.scale());
        Spec {
            latent_channels: self.transformer.in_channels,
            vae_scale_factor: scale,
            sample_size: (side, side),
            size_multiple: side * scale,
            classes: self.transformer.num_embeds_ada_norm,
            ..Spec::default()
        }
    }
}

/// A diffusion transformer and its autoencoder, in memory.
#[derive(Debug)]
pub(super) struct DiTNetworks {
    transformer: DiTTransformer2DModel,
    vae: Autoencoder,
    sizes: Sizes,
    device: Device,
}

impl DiTNetworks {
    /// Reads the weights.
    pub fn load(folder: &ModelFolder, device: &Device) -> Result<Self, LoadError> {
        let sizes = Sizes::read(folder)?;
        let weights = Weights::open(folder, "transformer", WEIGHTS, device, as_stored)?;
        let transformer = DiTTransformer2DModel::new(&sizes.transformer, &weights)?;
        weights.finish()?;
        let vae = Autoencoder::load(folder, &sizes.vae, device, Precision::F32)?;
        Ok(Self { transformer, vae, sizes, device: device.clone() })
    }

    /// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes
    /// about the files.
    pub fn check(folder: &ModelFolder, sizes: &Sizes) -> Result<Vec<String>, LoadError> {
        let transformer = Weights::open(folder, "transformer", WEIGHTS, &Device::host(), as_stored)?;
        let notes = transformer.note();
        transformer.check(|w| drop(DiTTransformer2DModel::new(&sizes.transformer, w)))?;
        Ok(notes.into_iter().chain(Autoencoder::check(folder, &sizes.vae, RGB)?).collect())
    }

    async fn predict(&self, shape: [usize; 3], rows: &[DenoiseRow]) -> candle_core::Result<Vec<Denoised>> {
        let [c, h, w] = shape;
        let samples = rows.iter().flat_map(|row| row.sample.iter().copied()).collect();
        let samples = Tensor::from_vec(samples, (rows.len(), c, h, w), self.device.candle())?;
        let t: Vec<f32> = rows.iter().map(|row| row.t).collect();
        let Some(classes) = rows.iter().map(|row| row.class).collect::<Option<Vec<u32>>>() else {
            candle_core::bail!("a row has no class")
        };
        // If the network also predicts variances, these are the second half of the outputs. This half is not used.
        let predictions = self.transformer.forward(&samples, &t, &classes).await?.narrow(1, 0, c)?;
        let rows: Vec<Vec<f32>> = predictions.contiguous()?.flatten_from(1)?.to_vec2()?;
        Ok(rows.into_iter().map(|prediction| Denoised { prediction, features: None }).collect())
    }
}

#[async_trait]
impl Networks for DiTNetworks {
    fn spec(&self) -> Spec {
        self.sizes.spec()
    }

    fn tokenize(&self, _prompts: &[&str], _: Option<u32>, _learned: &LearnedTokens) -> Tokens {
        Tokens::default()
    }

    async fn encode_text(&self, _prompts: &[Tokens], _clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        Err(NetworkError::missing("text_encoder"))
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

    async fn encode(&self, _shape: [usize; 2], _rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        Err(NetworkError::missing("vae_encoder"))
    }

    fn demand(&self, part: Part) -> Demand {
        self.sizes.demand(part)
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
}
