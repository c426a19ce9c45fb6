//! Stable Diffusion 1 and 2 as one thing: a folder of diffusers' `StableDiffusionPipeline`, loaded.

use candle_core::{Device, Result, Tensor};
use serde_json::{Map, Value};

use super::{
    AutoencoderKl, AutoencoderTiny, ClipTextModel, ClipTokenizer, UNet2DConditionModel,
    autoencoder_kl::{AutoencoderKlConfig, Moments, Stage, Tiles, current_name},
    autoencoder_tiny::AutoencoderTinyConfig,
    clip_text::ClipTextConfig,
    legacy,
    unet2d_condition::UNet2DConditionConfig,
};
use crate::{
    kernels::winograd,
    weights::{LoadError, ModelFolder, Weights},
};

/// Multiplications for one row in a stage of decoding: tens of milliseconds on a few cores, so that the steps of others
/// do not wait long, and far more than it takes to end one call and begin another.
const STAGE_WORK: f64 = 1e9;

/// The networks of a text-to-image pipeline on one device. Nothing in it changes: share it between threads.
#[derive(Debug)]
pub struct StableDiffusion {
    tokenizer: ClipTokenizer,
    text_encoder: ClipTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKl,
    vae_config: AutoencoderKlConfig,
    vae_tiny: Option<(AutoencoderTiny, AutoencoderTinyConfig)>,
    scheduler_config: Map<String, Value>,
    spec: Spec,
    device: Device,
}

/// The sizes of a model, as the callers of its networks need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// C of the latents.
    pub latent_channels: usize,
    /// Pixels per latent pixel and side.
    pub vae_scale_factor: usize,
    /// (h, w) of the latents the U-Net was trained on; times `vae_scale_factor` the size of a picture nobody gave one for.
    pub sample_size: (usize, usize),
    /// L: tokens of a prompt.
    pub context_length: usize,
    /// D: width of a token's hidden state.
    pub context_width: usize,
    /// Layers of the text encoder, the most that `clip_skip` can be.
    pub text_layers: usize,
    /// Height and width of a picture are multiples of this many pixels.
    pub size_multiple: usize,
    /// Whether the folder has a `vae_tiny`.
    pub tiny_decoder: bool,
    /// What the U-Net sees.
    pub input: Input,
}

/// What stands in the channels of the U-Net's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The noisy latents.
    Latents,
    /// These, the mask, and the latents of the picture without what the mask covers.
    MaskedPicture,
    /// These, and the latents of the picture that is to be changed.
    Picture,
}

impl Input {
    /// By the number of the U-Net's channels and of the latents'.
    fn of(unet: usize, latents: usize) -> Option<Input> {
        match unet {
            _ if unet == latents => Some(Input::Latents),
            _ if unet == 2 * latents => Some(Input::Picture),
            _ if unet == 2 * latents + 1 => Some(Input::MaskedPicture),
            _ => None,
        }
    }
}

impl StableDiffusion {
    /// Loads a folder, refusing configurations that cannot be honoured and tensors that do not fit. The networks are read
    /// and packed at the same time, on rayon's threads.
    pub fn load(
        folder: &ModelFolder,
        device: &Device,
        winograd: winograd::Use,
    ) -> std::result::Result<Self, LoadError> {
        let Description { tokenizer, text_config, unet_config, vae_config, vae_tiny_config, scheduler_config, spec } =
            Description::read(folder)?;
        let as_it_is = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
        let weights = "diffusion_pytorch_model";
        let (text_encoder, (unet, vae)) = rayon::join(
            || {
                network(folder, ("text_encoder", "model"), (device, winograd), as_it_is, |w| {
                    ClipTextModel::new(&text_config, w)
                })
            },
            || {
                rayon::join(
                    || {
                        network(folder, ("unet", weights), (device, winograd), as_it_is, |w| {
                            UNet2DConditionModel::new(&unet_config, w)
                        })
                    },
                    || {
                        network(folder, ("vae", weights), (device, winograd), current_name, |w| {
                            AutoencoderKl::new(&vae_config, w)
                        })
                    },
                )
            },
        );
        let (text_encoder, unet, vae) = (text_encoder?, unet?, vae?);
        let vae_tiny = match vae_tiny_config {
            Some(config) => {
                let build = |w: &Weights| AutoencoderTiny::new(&config, w);
                let tiny = network(folder, (VAE_TINY, weights), (device, winograd), as_it_is, build)?;
                Some((tiny, config))
            }
            None => None,
        };
        let device = device.clone();
        Ok(Self { tokenizer, text_encoder, unet, vae, vae_config, vae_tiny, scheduler_config, spec, device })
    }

    /// The sizes and the scheduler configuration of a folder, whose weights are not read.
    pub fn describe(folder: &ModelFolder) -> std::result::Result<(Spec, Map<String, Value>), LoadError> {
        Description::read(folder).map(|description| (description.spec, description.scheduler_config))
    }

    /// The L ids of a prompt: cut to fit, padded to the length.
    pub fn tokenize(&self, prompt: &str) -> Vec<u32> {
        self.tokenizer.encode(prompt)
    }

    /// B lists of L ids → (B, L, D), without the last `clip_skip` layers.
    pub fn encode_text(&self, ids: &[Vec<u32>], clip_skip: usize) -> Result<Tensor> {
        let length = ids.first().map_or(0, Vec::len);
        let ids = Tensor::from_vec(ids.concat(), (ids.len(), length), &self.device)?;
        self.text_encoder.forward(&ids, clip_skip)
    }

    /// sample (B, C, h, w), t (B), context (B, L, D) → the U-Net's prediction, (B, C, h, w)
    pub fn denoise(&self, sample: &Tensor, t: &[f32], context: &Tensor) -> Result<Tensor> {
        let context = context.to_device(&self.device)?.contiguous()?;
        self.unet.forward(&sample.to_device(&self.device)?, t, &context)
    }

    /// As [`StableDiffusion::denoise`], and the deep features for [`StableDiffusion::denoise_shallow`], (B, h, w, C') for the
    /// U-Net's first number of channels C'.
    pub fn denoise_keeping(&self, sample: &Tensor, t: &[f32], context: &Tensor) -> Result<(Tensor, Tensor)> {
        let context = context.to_device(&self.device)?.contiguous()?;
        self.unet.forward_keeping(&sample.to_device(&self.device)?, t, &context)
    }

    /// As [`StableDiffusion::denoise`] by the U-Net's shallowest branch, on features of an earlier call, row by row.
    pub fn denoise_shallow(&self, sample: &Tensor, t: &[f32], context: &Tensor, features: &Tensor) -> Result<Tensor> {
        let context = context.to_device(&self.device)?.contiguous()?;
        self.unet.forward_shallow(&sample.to_device(&self.device)?, t, &context, features)
    }

    /// Pixels (B, 3, H, W) in [-1, 1] → the moments of their latents (B, C, h, w), not yet scaled for the U-Net.
    pub fn encode(&self, pixels: &Tensor) -> Result<Moments> {
        self.vae.encode(&pixels.to_device(&self.device)?)
    }

    /// What the autoencoder's latents are multiplied by, and what is taken off before, for the U-Net.
    pub fn latent_scale(&self) -> (f64, f64) {
        (self.vae_config.scaling_factor, self.vae_config.shift_factor.unwrap_or(0.0))
    }

    /// Latents (B, C, h, w) as the sampler left them → pixels (B, 3, H, W), roughly in [-1, 1].
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.vae.decode(&self.unscaled(latents)?)
    }

    /// The pieces that latents of (h, w) are decoded in.
    pub fn tiles(&self, h: usize, w: usize) -> Tiles {
        self.vae_config.tiles(h, w)
    }

    /// The stages of a decode of (h, w) latent pixels: calls of [`StableDiffusion::decode_stage`], one after another.
    pub fn decode_stages(&self, h: usize, w: usize) -> Vec<Stage> {
        self.vae.decode_stages(h, w, STAGE_WORK)
    }

    /// One stage. The first takes latents (B, C, h, w) as the sampler left them, each later one what the one before it
    /// made, and the last gives pixels (B, H, W, 3), roughly in [-1, 1].
    pub fn decode_stage(&self, stage: &Stage, x: &Tensor) -> Result<Tensor> {
        let x = if stage.layers.start == 0 { self.unscaled(x)? } else { x.clone() };
        self.vae.decode_layers(stage.layers.clone(), x)
    }

    /// Latents as the sampler left them → as the autoencoder knows them.
    fn unscaled(&self, latents: &Tensor) -> Result<Tensor> {
        let AutoencoderKlConfig { scaling_factor, shift_factor, .. } = self.vae_config;
        latents.to_device(&self.device)?.affine(1.0 / scaling_factor, shift_factor.unwrap_or(0.0))
    }

    /// As [`StableDiffusion::decode`], by the small network of `vae_tiny`; an error where the folder has none.
    pub fn decode_tiny(&self, latents: &Tensor) -> Result<Tensor> {
        let Some((vae_tiny, AutoencoderTinyConfig { scaling_factor, shift_factor, .. })) = &self.vae_tiny else {
            candle_core::bail!("the model has no {VAE_TINY}")
        };
        let latents = latents.to_device(&self.device)?;
        vae_tiny.decode(&latents.affine(1.0 / scaling_factor, *shift_factor)?)
    }

    /// `scheduler/scheduler_config.json` with its `_class_name`, and with what the pipeline changes in old ones.
    pub fn scheduler_config(&self) -> &Map<String, Value> {
        &self.scheduler_config
    }

    /// The sizes of the model.
    pub fn spec(&self) -> Spec {
        self.spec.clone()
    }
}

/// One network of a folder, all tensors of its files used.
fn network<N>(
    folder: &ModelFolder,
    (component, stem): (&str, &str),
    (device, winograd): (&Device, winograd::Use),
    rename: impl Fn(&str, &[usize]) -> (String, Vec<usize>),
    build: impl FnOnce(&Weights) -> N,
) -> std::result::Result<N, LoadError> {
    let weights = Weights::open(folder, component, stem, device, rename)?.for_winograd(winograd);
    let network = build(&weights);
    weights.finish()?;
    Ok(network)
}
/// The part of a folder with diffusers' `AutoencoderTiny`, which diffusers' own layout has no name for: its pipelines take
/// one in place of the `vae`.
const VAE_TINY: &str = "vae_tiny";

/// Everything a folder says but its weights: configurations that can be honoured and that fit each other.
struct Description {
    tokenizer: ClipTokenizer,
    text_config: ClipTextConfig,
    unet_config: UNet2DConditionConfig,
    vae_config: AutoencoderKlConfig,
    vae_tiny_config: Option<AutoencoderTinyConfig>,
    scheduler_config: Map<String, Value>,
    spec: Spec,
}

impl Description {
    fn read(folder: &ModelFolder) -> std::result::Result<Description, LoadError> {
        check_parts("model_index.json", &folder.json("model_index.json")?)?;
        let text_config = ClipTextConfig::read("text_encoder/config.json", &folder.json("text_encoder/config.json")?)?;
        let unet_keys = folder.json("unet/config.json")?;
        let unet_config = UNet2DConditionConfig::read("unet/config.json", &unet_keys)?;
        let vae_config = AutoencoderKlConfig::read("vae/config.json", &folder.json("vae/config.json")?)?;
        let tiny_path = format!("{VAE_TINY}/config.json");
        let vae_tiny_config = match folder.has(&tiny_path) {
            true => Some(AutoencoderTinyConfig::read(&tiny_path, &folder.json(&tiny_path)?)?),
            false => None,
        };
        let tokenizer = ClipTokenizer::load(folder, "tokenizer", text_config.max_position_embeddings)?;
        let sample_size = unet_config.sample_size.ok_or_else(|| LoadError::UnsupportedKey {
            path: "unet/config.json".into(),
            key: "sample_size".into(),
            value: Value::Null,
            supported: "a size".into(),
        })?;
        agree(&tokenizer, &text_config, &unet_config, &vae_config)?;
        let channels = (unet_config.in_channels, vae_config.latent_channels);
        let input = Input::of(channels.0, channels.1).ok_or_else(|| LoadError::BadKey {
            path: "unet/config.json".into(),
            key: "in_channels".into(),
            reason: format!(
                "{} is neither once nor twice the vae's latent_channels, {}, nor that and 1",
                channels.0, channels.1
            ),
        })?;
        if let Some(tiny) = &vae_tiny_config {
            agree_on_latents(tiny, &vae_config)?;
        }
        let spec = Spec {
            latent_channels: vae_config.latent_channels,
            vae_scale_factor: vae_config.scale(),
            sample_size: legacy::sample_size(&unet_keys, sample_size.height_width()),
            context_length: tokenizer.length(),
            context_width: text_config.hidden_size,
            text_layers: text_config.num_hidden_layers,
            size_multiple: vae_config.scale(),
            tiny_decoder: vae_tiny_config.is_some(),
            input,
        };
        let scheduler_config = legacy::scheduler_config(folder.json("scheduler/scheduler_config.json")?);
        Ok(Description { tokenizer, text_config, unet_config, vae_config, vae_tiny_config, scheduler_config, spec })
    }
}

/// The pipelines whose folders hold these networks. What a model can do follows from its U-Net, not from its name.
const CLASSES: [&str; 4] = [
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
];

/// The parts that a folder may have: their names, and the classes that can be loaded, none meaning that it is left aside.
const PARTS: [(&str, &[&str]); 9] = [
    ("scheduler", &[]), // its class is for those who sample to refuse
    ("text_encoder", &["CLIPTextModel"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
    ("feature_extractor", &[]),
    ("image_encoder", &[]),
    ("safety_checker", &[]),
    ("requires_safety_checker", &[]),
];

fn check_parts(path: &str, index: &Map<String, Value>) -> std::result::Result<(), LoadError> {
    let unsupported = |key: &str, value: &Value, supported: &str| {
        let (path, key, value, supported) = (path.into(), key.into(), value.clone(), supported.into());
        LoadError::UnsupportedKey { path, key, value, supported }
    };
    let class = index.get("_class_name").unwrap_or(&Value::Null);
    if !CLASSES.iter().any(|supported| class == supported) {
        return Err(unsupported("_class_name", class, &CLASSES.join(", ")));
    }
    for (key, value) in index.iter().filter(|(key, _)| !key.starts_with('_')) {
        let Some((_, classes)) = PARTS.iter().find(|(part, _)| part == key) else {
            return Err(LoadError::UnknownKey { path: path.into(), key: key.clone(), value: value.clone() });
        };
        let class = value.get(1).and_then(Value::as_str).unwrap_or_default();
        if !classes.is_empty() && !classes.contains(&class) {
            return Err(unsupported(key, value, &classes.join(", ")));
        }
    }
    Ok(())
}

/// The parts must fit each other.
fn agree(
    tokenizer: &ClipTokenizer,
    text: &ClipTextConfig,
    unet: &UNet2DConditionConfig,
    vae: &AutoencoderKlConfig,
) -> std::result::Result<(), LoadError> {
    for (fits, left, left_value, right, right_value) in [
        (
            (tokenizer.largest_id() as usize) < text.vocab_size,
            "the tokenizer's largest id",
            tokenizer.largest_id() as usize,
            "text_encoder vocab_size",
            text.vocab_size,
        ),
        (
            unet.text_width() == text.hidden_size,
            "unet cross_attention_dim",
            unet.text_width(),
            "text_encoder hidden_size",
            text.hidden_size,
        ),
        (
            unet.out_channels == vae.latent_channels,
            "unet out_channels",
            unet.out_channels,
            "vae latent_channels",
            vae.latent_channels,
        ),
        (vae.out_channels == 3, "vae out_channels", vae.out_channels, "the channels of a picture", 3),
    ] {
        agreed(fits, left, left_value, right, right_value)?;
    }
    Ok(())
}

/// Both decoders must take the same latents to pictures of the same size.
fn agree_on_latents(tiny: &AutoencoderTinyConfig, vae: &AutoencoderKlConfig) -> std::result::Result<(), LoadError> {
    for (tiny_key, tiny_value, key, value) in [
        ("vae_tiny latent_channels", tiny.latent_channels, "vae latent_channels", vae.latent_channels),
        ("vae_tiny out_channels", tiny.out_channels, "vae out_channels", vae.out_channels),
        ("vae_tiny pixels per latent pixel", tiny.scale(), "vae pixels per latent pixel", vae.scale()),
    ] {
        agreed(tiny_value == value, tiny_key, tiny_value, key, value)?;
    }
    Ok(())
}

fn agreed(
    fits: bool,
    left: &'static str,
    left_value: usize,
    right: &'static str,
    right_value: usize,
) -> std::result::Result<(), LoadError> {
    let (left_value, right_value) = (left_value.to_string(), right_value.to_string());
    if fits { Ok(()) } else { Err(LoadError::Disagree { left, left_value, right, right_value }) }
}
