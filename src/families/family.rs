//! The traits that a family of models implements.

use std::fmt;

use serde_json::{Map, Value};

use super::{CardError, ControlDemand, Plan};
use crate::{
    device::{Device, Precision},
    generation::{Job, ModelCard},
    models::prompt_tokenizers::PromptTokenizers,
    pipelines::{Compute, Frame, Loaded, PipelineError, Prepared},
    weights::{Checkpoint, LoadError, ModelFolder, WeightSize, lora::Modules},
};

/// A family: models whose folders have the same parts, and with which the same recipe draws.
pub trait Family: Sync {
    /// A unique name, used in messages and in [`Model::family`](crate::pipelines::Model::family).
    fn name(&self) -> &'static str;

    /// The classes of diffusers' pipelines whose folders this family reads.
    fn classes(&self) -> &'static [&'static str];

    /// Whether a folder with this `model_index.json` belongs to this family. The first family of
    /// [`FAMILIES`](super::FAMILIES) that returns true reads the folder.
    fn reads(&self, index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| self.classes().contains(&class))
    }

    /// Describes a folder from its configurations and the headers of its weight files, without reading weights.
    ///
    /// # Errors
    /// A file is missing or broken, or has a value that the family does not support. This method finds every error of
    /// [`Family::load`] that can be found without reading weights.
    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError>;

    /// The sizes of the networks that stay in the memory of the host if the device offloads. Each entry is the sum of a
    /// group of networks. Networks of different groups are never on the device at the same time. Empty if the family
    /// offloads nothing.
    ///
    /// # Errors
    /// The headers of the files are missing or broken.
    fn offloadable(&self, _folder: &ModelFolder) -> Result<Vec<ModelSize>, LoadError> {
        Ok(Vec::new())
    }

    /// Reads the weights. Blocks until they are in memory.
    ///
    /// # Errors
    /// The files are missing or broken, or do not belong to this family.
    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError>;

    /// How to recognize and read the single-file checkpoints of this family. Most families have none.
    fn checkpoints(&self) -> &'static [&'static Checkpoint] {
        &[]
    }

    /// The tokenizers of prompts, without the networks; `None` if the family takes no prompt.
    ///
    /// # Errors
    /// A file is missing or broken.
    fn tokenizers(&self, _folder: &ModelFolder) -> Result<Option<PromptTokenizers>, LoadError> {
        Ok(None)
    }

    /// The layers that LoRAs can change; none if the family supports no LoRAs.
    ///
    /// # Errors
    /// A configuration cannot be read.
    fn modules(&self, _folder: &ModelFolder) -> Result<Modules, LoadError> {
        Ok(Modules::default())
    }
}

/// How a family draws.
pub trait Recipe {
    /// Returns the frames of a generation, one for each of its `n` pictures, sounds or films. Awaits `compute` for
    /// every network call and reports every step to `compute`.
    fn draw(
        &self,
        compute: &impl Compute,
        prepared: &Prepared,
    ) -> impl Future<Output = Result<Vec<Frame>, PipelineError>>;
}

/// The description of a folder, read without its weights.
#[derive(Debug)]
pub struct Description {
    pub card: ModelCard,
    /// The memory of the weights.
    pub size: ModelSize,
    /// What operators should know about how the files are read.
    pub notes: Vec<String>,
    /// The sizes of the model's layers.
    pub outline: Box<dyn Outline>,
}

/// The memory of a model's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelSize {
    /// Networks that take the precision of the device.
    pub adaptable: WeightSize,
    /// Networks in float32 on every device.
    pub float32: WeightSize,
}

impl ModelSize {
    /// The size of a model whose networks are all float32.
    pub fn float32(size: WeightSize) -> ModelSize {
        ModelSize { float32: size, ..ModelSize::default() }
    }

    /// Bytes on this device.
    pub fn bytes(&self, device: &Device) -> u64 {
        let bytes = |size: WeightSize, precision| size.bytes(precision, device.kernels());
        bytes(self.adaptable, device.precision()).saturating_add(bytes(self.float32, Precision::F32))
    }
}

/// The sizes of a model's layers, from which work and memory of generations follow.
pub trait Outline: fmt::Debug + Send + Sync {
    /// The work and the memory of a generation with this model. `controls` is called for the demand of each ControlNet.
    fn plan(&self, job: &Job, card: &ModelCard, controls: &ControlDemand<'_>) -> Plan;
}

/// `model_index.json`: the class of the pipeline and the classes of its parts.
#[derive(Clone, Debug)]
pub struct ModelIndex {
    pub keys: Map<String, Value>,
}

impl ModelIndex {
    pub(super) const PATH: &'static str = "model_index.json";

    /// Reads the file of a folder.
    ///
    /// # Errors
    /// The file is missing or broken.
    pub fn of(folder: &ModelFolder) -> Result<ModelIndex, LoadError> {
        folder.json(ModelIndex::PATH).map(|keys| ModelIndex { keys })
    }

    /// The class of diffusers' pipeline for the folder.
    pub fn class(&self) -> Option<&str> {
        self.keys.get("_class_name")?.as_str()
    }

    /// The class of a part; `None` if the part is absent or null.
    pub fn part(&self, name: &str) -> Option<&str> {
        self.keys.get(name)?.get(1)?.as_str()
    }
}
