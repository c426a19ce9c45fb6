//! What a family of models must answer.

use std::fmt;

use serde_json::{Map, Value};

use super::{CardError, ControlDemand, Plan};
use crate::{
    device::Device,
    generation::{Job, ModelCard},
    pipelines::{Compute, Frame, Loaded, PipelineError, Prepared},
    weights::{Checkpoint, LoadError, ModelFolder, lora::Modules},
};

/// A kind of models: those whose folders have the same parts, and which the same recipe draws with.
pub trait Family: Sync {
    /// Its name in messages and in [`Model::family`](crate::pipelines::Model::family); no other family has it.
    fn name(&self) -> &'static str;

    /// The classes of diffusers' pipelines whose folders it reads.
    fn classes(&self) -> &'static [&'static str];

    /// Whether a folder with this `model_index.json` is of this family. The first of the table that says yes reads it.
    fn reads(&self, index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| self.classes().contains(&class))
    }

    /// What the configurations and the heads of the files tell; no weight is read.
    ///
    /// # Errors
    /// A file is missing or broken, or asks for what the family cannot do: everything that [`Family::load`] would fail for and
    /// that can be told without reading weights.
    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError>;

    /// Reads the weights. Blocks for as long as that takes.
    ///
    /// # Errors
    /// The files are missing or broken, or not of this family.
    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError>;

    /// The kinds of its checkpoints in one file, by which such a file is known; none in a family that has no such files.
    fn checkpoints(&self) -> &'static [&'static Checkpoint] {
        &[]
    }

    /// What LoRAs can stand beside; nothing in a family that takes none.
    ///
    /// # Errors
    /// A configuration cannot be read.
    fn modules(&self, _folder: &ModelFolder) -> Result<Modules, LoadError> {
        Ok(Modules::default())
    }
}

/// How a family draws.
pub trait Recipe {
    /// The frames of a generation, one for each of its `n` results. Awaits `compute` for every network call, and tells it of
    /// every step.
    fn draw(
        &self,
        compute: &impl Compute,
        prepared: &Prepared,
    ) -> impl Future<Output = Result<Vec<Frame>, PipelineError>>;
}

/// What a folder is, without its weights.
#[derive(Debug)]
pub struct Description {
    pub card: ModelCard,
    /// Memory that the weights take.
    pub bytes: u64,
    /// What people should know of how the files are read.
    pub notes: Vec<String>,
    pub outline: Box<dyn Outline>,
}

/// The sizes of a model's layers.
pub trait Outline: fmt::Debug + Send + Sync {
    /// The work and the memory of a generation with this model. `controls` knows what ControlNets take besides.
    fn plan(&self, job: &Job, card: &ModelCard, controls: &ControlDemand<'_>) -> Plan;
}

/// `model_index.json`: the class of the pipeline, and the classes of its parts.
#[derive(Clone, Debug)]
pub struct ModelIndex {
    pub keys: Map<String, Value>,
}

impl ModelIndex {
    pub(super) const PATH: &'static str = "model_index.json";

    /// # Errors
    /// The file is missing or broken.
    pub fn of(folder: &ModelFolder) -> Result<ModelIndex, LoadError> {
        folder.json(ModelIndex::PATH).map(|keys| ModelIndex { keys })
    }

    /// The class of diffusers' pipelines that the folder is for.
    pub fn class(&self) -> Option<&str> {
        self.keys.get("_class_name")?.as_str()
    }

    /// The class of a part; `None` for one that is not there or null.
    pub fn part(&self, name: &str) -> Option<&str> {
        self.keys.get(name)?.get(1)?.as_str()
    }
}
