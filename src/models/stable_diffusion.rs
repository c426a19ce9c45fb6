//! The networks of Stable Diffusion 1, 2 and XL, loaded from a folder of diffusers' `StableDiffusionPipeline` or of a
//! related class.

mod away;
mod description;
mod sizes;

use candle_core::{Result, Tensor};
use parking_lot::Mutex;
use rayon::prelude::*;
use serde_json::{Map, Value};

use super::{
    AutoencoderKl, AutoencoderTiny, ClipTextModel, ClipTokenizer, UNet2DConditionModel,
    adapters::Adapter,
    autoencoder_kl::{AutoencoderKlConfig, Moments, Stage, Tiles, current_name},
    autoencoder_tiny::AutoencoderTinyConfig,
    clip_text::ClipTextConfig,
    control_net::Residuals,
    latent_diffusion::{Part, Spec},
    offload::OnDevice,
    prompt_tokenizers::{PromptTokenizer, PromptTokenizers},
    text_encoders::{Encoded, LearnedToken, LearnedTokens, TextEncoders, Tokens},
    unet2d_condition::{Conditions, UNet2DConditionConfig},
};
use crate::{
    device::{Device, Precision},
    weights::{
        LoadError, ModelFolder, Weights, as_stored,
        lora::{Lora, Modules},
        textual_inversion::{TextualInversion, Vectors},
    },
};
use away::Away;
pub use description::{CLASSES, XL_CLASSES};
use description::{Description, VAE_TINY};
pub use sizes::Sizes;

/// A decoding stage of several layers does at most this number of multiplications for one row. A layer with more is a
/// stage of its own. These multiplications take tens of milliseconds on a few cores. So the steps of other runs do not
/// wait long, and the overhead of a call is small in comparison.
const STAGE_WORK: f64 = 1e9;

/// The networks of a text-to-image pipeline on one device. They are immutable, so threads can share them.
#[derive(Debug)]
pub struct StableDiffusion {
    /// Without weights if `away` has them.
    text: TextEncoders,
    unet: UNet2DConditionModel,
    /// Without weights if `away` has them.
    vae: AutoencoderKl,
    /// The weights of `text` and `vae`, if the device offloads them.
    away: Option<Away>,
    vae_config: AutoencoderKlConfig,
    vae_tiny: Option<(AutoencoderTiny, AutoencoderTinyConfig)>,
    scheduler_config: Map<String, Value>,
    spec: Spec,
    sizes: Sizes,
    /// The modules that adapters can change.
    modules: Modules,
    device: Device,
}

impl StableDiffusion {
    /// Loads a folder. The networks are read and packed in parallel, on rayon's threads.
    ///
    /// # Errors
    /// A configuration is not supported, or tensors are missing, unused or do not fit.
    pub fn load(folder: &ModelFolder, device: &Device) -> std::result::Result<Self, LoadError> {
        let description = Description::read(folder)?;
        let sizes = Sizes::of(&description);
        let Description { text, way, unet_config, vae_config, vae_tiny_config, scheduler_config, spec, .. } =
            description;
        let weights = "diffusion_pytorch_model";
        let modules = Mutex::new(Modules::default());
        let precision = device.precision();
        let vae_precision = vae_precision(&vae_config, &unet_config, precision);
        let noted = |part: &str, weights: &Weights| {
            modules.lock().add(part, &weights.requested());
        };
        let away = device.offloads().then(|| Away::load(folder, &text, &vae_config, (device, vae_precision), noted));
        let away = away.transpose()?;
        let encoder = |(part, tokenizer, config): (&'static str, ClipTokenizer, ClipTextConfig)| {
            let build = |w: &Weights| {
                let model = ClipTextModel::new(&config, w);
                noted(part, w);
                model
            };
            let model = match &away {
                Some(_) => ClipTextModel::new(&config, &Weights::outline(part)),
                None => network(folder, (part, "model"), (device, precision), as_stored, build)?,
            };
            Ok((tokenizer, model))
        };
        let (encoders, (unet, vae)) = rayon::join(
            || text.into_par_iter().map(encoder).collect::<std::result::Result<Vec<_>, LoadError>>(),
            || {
                rayon::join(
                    || {
                        network(folder, ("unet", weights), (device, precision), as_stored, |w| {
                            let unet = UNet2DConditionModel::new(&unet_config, w);
                            noted("unet", w);
                            unet
                        })
                    },
                    || match &away {
                        Some(_) => Ok(AutoencoderKl::new(&vae_config, &Weights::outline("vae"))),
                        None => {
                            let on = (device, vae_precision);
                            network(folder, ("vae", weights), on, current_name, |w| AutoencoderKl::new(&vae_config, w))
                        }
                    },
                )
            },
        );
        let (text, unet, vae) = (TextEncoders { encoders: encoders?, way }, unet?, vae?);
        let vae_tiny = match vae_tiny_config {
            Some(config) => {
                let build = |w: &Weights| AutoencoderTiny::new(&config, w);
                let tiny = network(folder, (VAE_TINY, weights), (device, Precision::F32), as_stored, build)?;
                Some((tiny, config))
            }
            None => None,
        };
        let device = device.clone();
        let modules = modules.into_inner();
        Ok(Self { modules, text, unet, vae, away, vae_config, vae_tiny, scheduler_config, spec, sizes, device })
    }

    /// Whether the autoencoder stays in float32 if the other networks have 16 bits.
    ///
    /// # Errors
    /// Those of [`StableDiffusion::describe`].
    pub fn upcasts_vae(folder: &ModelFolder) -> std::result::Result<bool, LoadError> {
        let Description { vae_config, unet_config, .. } = Description::read(folder)?;
        Ok(vae_precision(&vae_config, &unet_config, Precision::F16) == Precision::F32)
    }

    /// The properties of a folder's model, the configuration of its scheduler, and the sizes of its layers. No weights
    /// are read.
    ///
    /// # Errors
    /// A file is missing or broken, a key is not supported, or the parts do not fit each other.
    pub fn describe(folder: &ModelFolder) -> std::result::Result<(Spec, Map<String, Value>, Sizes), LoadError> {
        let description = Description::read(folder)?;
        let sizes = Sizes::of(&description);
        Ok((description.spec, description.scheduler_config, sizes))
    }

    /// Checks that the headers of a folder's files have exactly the tensors that the networks need, with the right
    /// shapes and types. No weights are read. Returns notes for users on how the files are read.
    ///
    /// # Errors
    /// A file is missing or broken, or its tensors do not fit.
    pub fn check(folder: &ModelFolder) -> std::result::Result<Vec<String>, LoadError> {
        let Description { text, unet_config, vae_config, vae_tiny_config, mut notes, .. } = Description::read(folder)?;
        let mut open = |part: &str, stem: &str, rename: fn(&str, &[usize]) -> (String, Vec<usize>)| {
            let weights = Weights::open(folder, part, stem, &Device::host(), rename)?;
            notes.extend(weights.note());
            Ok::<_, LoadError>(weights)
        };
        let weights = "diffusion_pytorch_model";
        for (part, _, config) in &text {
            open(part, "model", as_stored)?.check(|w| drop(ClipTextModel::new(config, w)))?;
        }
        open("unet", weights, as_stored)?.check(|w| drop(UNet2DConditionModel::new(&unet_config, w)))?;
        open("vae", weights, current_name)?.check(|w| drop(AutoencoderKl::new(&vae_config, w)))?;
        if let Some(config) = &vae_tiny_config {
            open(VAE_TINY, weights, as_stored)?.check(|w| drop(AutoencoderTiny::new(config, w)))?;
        }
        Ok(notes)
    }

    /// The tokenizers of a folder.
    ///
    /// # Errors
    /// Those of [`StableDiffusion::describe`].
    pub fn tokenizers(folder: &ModelFolder) -> std::result::Result<PromptTokenizers, LoadError> {
        let Description { text, .. } = Description::read(folder)?;
        Ok(PromptTokenizers(text.into_iter().map(|(_, tokenizer, _)| PromptTokenizer::Clip(tokenizer)).collect()))
    }

    /// The modules of a folder's model that adapters can change. No weights are read.
    ///
    /// # Errors
    /// Those of [`StableDiffusion::describe`].
    pub fn modules(folder: &ModelFolder) -> std::result::Result<Modules, LoadError> {
        let Description { text, unet_config, .. } = Description::read(folder)?;
        let mut modules = Modules::default();
        for (part, _, config) in &text {
            let outline = Weights::outline(part);
            drop(ClipTextModel::new(config, &outline));
            modules.add(part, &outline.requested());
        }
        let outline = Weights::outline("unet");
        drop(UNet2DConditionModel::new(&unet_config, &outline));
        modules.add("unet", &outline.requested());
        Ok(modules)
    }

    /// The ids of a prompt for each text encoder, truncated or padded to the context length. `prompts` has one text per
    /// encoder. If there are fewer texts, the last text is for all remaining encoders.
    pub fn tokenize(&self, prompts: &[&str], learned: &LearnedTokens) -> Tokens {
        self.text.tokenize(prompts, learned)
    }

    /// The chunks of a prompt in A1111's syntax. `prompts` is as for [`StableDiffusion::tokenize`].
    pub fn tokenize_weighted(&self, prompts: &[&str], learned: &LearnedTokens) -> Vec<Tokens> {
        self.text.tokenize_weighted(prompts, learned)
    }

    /// B prompts → hidden states (B, L, D) and, if the U-Net takes them, vectors of whole prompts (B, P). The hidden
    /// states skip the last `clip_skip` layers of each encoder.
    pub async fn encode_text(&self, prompts: &[Tokens], clip_skip: usize) -> Result<Encoded> {
        let Some(away) = &self.away else { return self.text.encode(prompts, clip_skip).await };
        let models = away.text()?;
        let models: Vec<&ClipTextModel> = models.iter().map(|model| &**model).collect();
        self.text.encode_with(&models, prompts, clip_skip).await
    }

    /// Removes the copies of offloaded networks from the device.
    pub fn send_back(&self) {
        self.away.iter().for_each(Away::send_back);
    }

    /// Bytes of the weights that a call copies to the device, because they are offloaded.
    pub fn copied_bytes(&self, part: Part) -> u64 {
        self.away.as_ref().map_or(0, |away| away.bytes(part))
    }

    fn vae(&self) -> Result<OnDevice<'_, AutoencoderKl>> {
        self.away.as_ref().map_or_else(|| Ok(OnDevice::Own(&self.vae)), Away::vae)
    }

    /// sample (B, C, h, w) → the prediction of the U-Net, (B, C_out, h, w)
    pub async fn denoise(&self, sample: &Tensor, conditions: &Conditions<'_>, control: &Residuals) -> Result<Tensor> {
        self.send_back();
        self.unet.forward(&sample.to_device(self.device.candle())?, conditions, control).await
    }

    /// As [`StableDiffusion::denoise`], and also the deep features for [`StableDiffusion::denoise_shallow`],
    /// (B, h, w, C') with C' the first of the U-Net's `block_out_channels`.
    pub async fn denoise_keeping(
        &self,
        sample: &Tensor,
        conditions: &Conditions<'_>,
        control: &Residuals,
    ) -> Result<(Tensor, Tensor)> {
        self.send_back();
        self.unet.forward_keeping(&sample.to_device(self.device.candle())?, conditions, control).await
    }

    /// As [`StableDiffusion::denoise`], with only the U-Net's shallowest branch. `features` has the features of an
    /// earlier call for each row of `sample`.
    pub async fn denoise_shallow(
        &self,
        sample: &Tensor,
        conditions: &Conditions<'_>,
        features: &Tensor,
    ) -> Result<Tensor> {
        self.send_back();
        self.unet.forward_shallow(&sample.to_device(self.device.candle())?, conditions, features).await
    }

    /// pixels (B, 3, H, W) in [-1, 1] → moments of latents (B, C, h, w), not yet scaled for the U-Net
    pub async fn encode(&self, pixels: &Tensor) -> Result<Moments> {
        self.vae()?.encode(&pixels.to_device(self.device.candle())?).await
    }

    /// Latents for the U-Net are the autoencoder's latents times this factor.
    pub fn latent_scale(&self) -> f64 {
        self.vae_config.scaling_factor
    }

    /// latents (B, C, h, w) as the sampler returns them → pixels (B, 3, H, W), roughly in [-1, 1]
    pub async fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.vae()?.decode(&self.unscaled(latents)?).await
    }

    /// The tiles in which latents of (h, w) are decoded.
    pub fn tiles(&self, h: usize, w: usize) -> Tiles {
        self.vae_config.tiles(h, w)
    }

    /// The stages of decoding (h, w) latent pixels: calls of [`StableDiffusion::decode_stage`], one after another.
    pub fn decode_stages(&self, h: usize, w: usize) -> Vec<Stage> {
        self.vae.decode_stages(h, w, STAGE_WORK)
    }

    /// Runs one stage. The first stage takes latents (B, C, h, w) as the sampler returns them, each later stage takes
    /// the output of the stage before it, and the last stage returns pixels (B, H, W, 3), roughly in [-1, 1].
    pub async fn decode_stage(&self, stage: &Stage, x: &Tensor) -> Result<Tensor> {
        let x = if stage.layers.start == 0 { self.unscaled(x)? } else { x.clone() };
        self.vae()?.decode_layers(stage.layers.clone(), x).await
    }

    /// Converts the U-Net's latents to the autoencoder's latents.
    fn unscaled(&self, latents: &Tensor) -> Result<Tensor> {
        latents.to_device(self.device.candle())?.affine(1.0 / self.vae_config.scaling_factor, 0.0)
    }

    /// As [`StableDiffusion::decode`], with the small decoder of `vae_tiny`.
    ///
    /// # Errors
    /// The folder has no `vae_tiny`.
    pub async fn decode_tiny(&self, latents: &Tensor) -> Result<Tensor> {
        let Some((vae_tiny, AutoencoderTinyConfig { scaling_factor, .. })) = &self.vae_tiny else {
            candle_core::bail!("the model has no {VAE_TINY}")
        };
        let latents = latents.to_device(self.device.candle())?;
        vae_tiny.decode(&latents.affine(1.0 / scaling_factor, 0.0)?).await
    }

    /// Reads an adapter file for the layers of this model. `path` names the file in errors.
    ///
    /// # Errors
    /// The file is broken, or is not for this model.
    pub fn adapter(&self, path: &str, file: &[u8]) -> std::result::Result<Adapter, LoadError> {
        Ok(Adapter::of(Lora::read(path, file, &self.modules)?, &self.device)?)
    }

    /// Reads a textual inversion file for this model's text encoders. The trigger is `<name>`, whatever word the file
    /// has.
    ///
    /// # Errors
    /// The file is broken, or is not for this model's text encoders.
    pub fn learned(&self, name: &str, file: &[u8]) -> std::result::Result<LearnedToken, LoadError> {
        let widths = self.spec.text_widths;
        let TextualInversion { text_encoder, text_encoder_2, .. } = TextualInversion::read(name, file, widths)?;
        let present = [text_encoder, text_encoder_2].into_iter().zip(widths).filter(|(_, width)| width.is_some());
        let vectors = present.map(|(vectors, _)| vectors.as_ref().map(rows).unwrap_or_default()).collect();
        Ok(LearnedToken { trigger: format!("<{name}>"), vectors })
    }

    /// `scheduler/scheduler_config.json` with its `_class_name`, after the pipeline's corrections of old files.
    pub fn scheduler_config(&self) -> &Map<String, Value> {
        &self.scheduler_config
    }

    /// The device on which the networks compute.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The sizes of the model's layers.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The sizes and properties of the model.
    pub fn spec(&self) -> Spec {
        self.spec.clone()
    }
}

/// Splits the values into one list for each vector.
fn rows(Vectors { width, values, .. }: &Vectors) -> Vec<Vec<f32>> {
    values.chunks_exact((*width).max(1)).map(<[f32]>::to_vec).collect()
}

/// The precision of the autoencoder if the other networks have `precision`. Some autoencoders exceed the numbers of
/// float16, such as the autoencoders of Stable Diffusion XL unless their configuration says otherwise.
fn vae_precision(vae: &AutoencoderKlConfig, unet: &UNet2DConditionConfig, precision: Precision) -> Precision {
    let upcast = vae.force_upcast.unwrap_or(unet.added().is_some());
    if upcast { Precision::F32 } else { precision }
}

/// Loads one network of a folder. Fails if a tensor of its files is not used.
fn network<N>(
    folder: &ModelFolder,
    (component, stem): (&str, &str),
    (device, precision): (&Device, Precision),
    rename: impl Fn(&str, &[usize]) -> (String, Vec<usize>),
    build: impl FnOnce(&Weights) -> N,
) -> std::result::Result<N, LoadError> {
    let weights = Weights::open(folder, component, stem, device, rename)?;
    let network = build(&weights.in_precision(precision));
    weights.finish()?;
    Ok(network)
}
