//! Reads models that consist of a U-Net without text, a scheduler and, if the U-Net works on latents, an autoencoder
//! with a codebook: DDPM, unconditional latent diffusion, consistency models and score-based models.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    CardError, ControlDemand, Description, ModelIndex, ModelSize, Outline, Plan, SamplingDemand,
    card::{self, Defaults},
    extras::Extras,
    plan::calls,
};
use crate::{
    device::Device,
    diffusion::SchedulerConfig,
    generation::{Decoder, Job, ModelCard, Task, Work},
    models::{
        UNet2DModel, VqModel, autoencoder_kl::current_name, demand::Demand, unet2d::UNet2DConfig,
        vq_model::VqModelConfig,
    },
    pipelines::{Codes, Loaded, Output, PlainUNet},
    weights::{LoadError, ModelFolder, Weights},
};

/// The properties in which the families of these models differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// The folder of the network that decodes latents into pictures; `None` for models of pixels.
    pub codebook: Option<&'static str>,
    /// Whether the network may have classes.
    pub classes: bool,
    /// Default number of steps.
    pub steps: u32,
}

/// The configurations of a folder's parts.
#[derive(Debug)]
pub(super) struct Parts {
    pub scheduler_config: Map<String, Value>,
    unet: UNet2DConfig,
    /// The folder of the files of the U-Net.
    unet_folder: &'static str,
    codebook: Option<(&'static str, VqModelConfig)>,
    /// (h, w) of the samples that the U-Net was trained on.
    sample_size: (usize, usize),
    /// The names of classes in `model_index.json`, by class number.
    class_names: BTreeMap<usize, String>,
    notes: Vec<String>,
}

/// The stem of all parts' weight files.
const WEIGHTS: &str = "diffusion_pytorch_model";

impl Parts {
    /// Reads the configurations.
    ///
    /// # Errors
    /// A file is missing or broken, or has a value that the family does not support.
    pub fn read(folder: &ModelFolder, kind: Kind) -> Result<Parts, LoadError> {
        let index = ModelIndex::of(folder)?;
        // The first published models have the files of their only network next to `model_index.json`.
        let unet_folder = if folder.has("unet/config.json") { "unet" } else { "." };
        let path = in_folder(unet_folder, "config.json");
        let unet = UNet2DConfig::read(&path, &folder.json(&path)?)?;
        let codebook = match kind.codebook {
            Some(part) => {
                let path = in_folder(part, "config.json");
                Some((part, VqModelConfig::read(&path, &folder.json(&path)?)?))
            }
            None => None,
        };
        check_unet(&path, &unet, codebook.as_ref().map(|(_, config)| config), kind)?;
        let sample_size = unet.sample_size.ok_or_else(|| LoadError::UnsupportedKey {
            path: path.clone(),
            key: "sample_size".into(),
            value: Box::new(Value::Null),
            supported: "a size".into(),
        })?;
        let scheduler = ["scheduler/scheduler_config.json", "scheduler_config.json"];
        let scheduler = scheduler.into_iter().find(|path| folder.has(path)).unwrap_or(scheduler[0]);
        let mut scheduler_config = SchedulerConfig::given(folder.json(scheduler)?);
        let mut notes = folder.notes();
        notes.extend(SchedulerConfig::take_class(&index.keys, &mut scheduler_config));
        let sample_size = sample_size.height_width();
        let class_names = class_names(&index);
        Ok(Parts { scheduler_config, unet, unet_folder, codebook, sample_size, class_names, notes })
    }

    /// Pixels per element of the U-Net's samples, along each side: 1 without a codebook.
    fn scale(&self) -> usize {
        self.codebook.as_ref().map_or(1, |(_, config)| config.scale())
    }

    fn unet_weights(&self, folder: &ModelFolder, device: &Device) -> Result<Weights, LoadError> {
        Weights::open(folder, self.unet_folder, WEIGHTS, device, current_name)
    }

    /// Describes the folder after checking the names and shapes of its tensors.
    ///
    /// # Errors
    /// As [`Family::describe`](super::Family::describe).
    pub fn describe(self, name: &str, folder: &ModelFolder, kind: Kind) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let unet = self.unet_weights(folder, &Device::host())?;
        let mut notes = self.notes.clone();
        notes.extend(unet.note());
        unet.check(|weights| drop(UNet2DModel::new(&self.unet, weights)))?;
        let mut parts = vec![(self.unet_folder, WEIGHTS)];
        if let Some((part, config)) = &self.codebook {
            let weights = Weights::open(folder, part, WEIGHTS, &Device::host(), current_name)?;
            notes.extend(weights.note());
            weights.check(|weights| drop(VqModel::new(config, weights)))?;
            parts.push((part, WEIGHTS));
        }
        let size = ModelSize::float32(card::size(folder, &parts)?);
        let scale = self.scale();
        let native = |side: usize| (side * scale) as u32;
        let (height, width) = self.sample_size;
        let defaults =
            Defaults { width: native(width), height: native(height), steps: kind.steps, guidance_scale: 1.0 };
        let base = card::base(name, &extras, self.scheduler_config.clone(), defaults)?;
        let multiple = native(self.unet.unit());
        let classes = self.unet.num_class_embeds.unwrap_or(0);
        let class_name = |class| self.class_names.get(&class).cloned().unwrap_or_default();
        let card = ModelCard {
            min_side_pixels: extras.min_size.unwrap_or(multiple).max(multiple),
            size_multiple: multiple,
            latents: (self.unet.in_channels, scale),
            tasks: vec![if classes > 0 { Task::ClassConditional } else { Task::Unconditional }],
            takes_prompt: false,
            classes: (0..classes).map(class_name).collect(),
            decoders: vec![Decoder::Full],
            ..base
        };
        Ok(Description { card, size, notes, outline: Box::new(self) })
    }

    /// Reads the weights. `output` is the format of the samples if the model has no codebook.
    ///
    /// # Errors
    /// As [`Family::load`](super::Family::load).
    pub fn load(self, folder: &ModelFolder, device: &Device, output: Output) -> Result<Box<dyn Loaded>, LoadError> {
        let weights = self.unet_weights(folder, device)?;
        let unet = UNet2DModel::new(&self.unet, &weights);
        weights.finish()?;
        let output = match self.codebook {
            None => output,
            Some((part, config)) => {
                let weights = Weights::open(folder, part, WEIGHTS, device, current_name)?;
                let network = VqModel::new(&config, &weights);
                weights.finish()?;
                // Errors are ignored here, because a broken `latentd.json` was already rejected when the card was read.
                let preview = Extras::read(folder).ok().and_then(|extras| extras.preview);
                let codes = Codes::new(network, config, preview, device);
                Output::Codes(codes.map_err(|error| LoadError::Preview(error.to_string()))?)
            }
        };
        Ok(Box::new(PlainUNet { unet, config: self.unet, output, classifier: None, device: device.clone() }))
    }
}

/// The names of classes by number, from `id2label` of the index. If a class has several names, commas separate them.
fn class_names(index: &ModelIndex) -> BTreeMap<usize, String> {
    let labels = index.keys.get("id2label").and_then(Value::as_object).into_iter().flatten();
    labels.filter_map(|(number, name)| Some((number.parse().ok()?, name.as_str()?.to_owned()))).collect()
}

/// Rejects configurations that diffusers' pipelines of these families do not support.
fn check_unet(path: &str, unet: &UNet2DConfig, codebook: Option<&VqModelConfig>, kind: Kind) -> Result<(), LoadError> {
    let refused = |key: &str, value: Value, supported: String| {
        Err(LoadError::UnsupportedKey { path: path.into(), key: key.into(), value: Box::new(value), supported })
    };
    let channels = codebook.map_or(3, VqModelConfig::embedding_width);
    for (key, value) in [("in_channels", unet.in_channels), ("out_channels", unet.out_channels)] {
        if value != channels {
            return refused(key, value.into(), channels.to_string());
        }
    }
    match (unet.class_embed_type, unet.num_class_embeds) {
        (_, Some(classes)) if !kind.classes => refused("num_class_embeds", classes.into(), "null".into()),
        (Some(_), None) => refused("num_class_embeds", Value::Null, "a number, because class_embed_type is set".into()),
        _ => Ok(()),
    }
}

fn in_folder(folder: &str, file: &str) -> String {
    match folder {
        "." => file.to_owned(),
        folder => format!("{folder}/{file}"),
    }
}

impl Outline for Parts {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let scale = self.scale();
        let [h, w] = [draw.height as usize / scale, draw.width as usize / scale];
        let after = self.codebook.as_ref().map_or(Demand::default(), |(_, config)| config.decode_demand(h, w));
        Plan::of(
            draw,
            SamplingDemand {
                state: self.unet.in_channels * h * w,
                branches: 1,
                calls: calls(draw, card),
                call: self.unet.demand([h, w]),
                before: Demand::default(),
                after,
            },
        )
    }
}
