//! What a generation uses in addition to its model: LoRAs, textual inversions, ControlNets, a motion
//! adapter and a refiner.

use std::sync::Arc;

use super::Model;
use crate::{
    diffusion::SchedulerConfig,
    models::{MotionAdapter, adapters::AdapterSet, control_net::ControlNet, text_encoders::LearnedTokens},
};

/// Everything loaded that a request names in addition to its model.
#[derive(Clone, Debug, Default)]
pub struct Auxiliary {
    /// LoRA weights that apply to the layers of the model.
    pub adapters: AdapterSet,
    /// The textual inversions whose words the prompts contain.
    pub learned: LearnedTokens,
    /// One ControlNet per item of the generation's `controls`, in the same order.
    pub control_nets: Vec<Arc<ControlNet>>,
    /// The motion adapter of films.
    pub motion: Option<Arc<MotionAdapter>>,
    /// The model that denoises the last steps, and its scheduler.
    pub refiner: Option<(Arc<Model>, SchedulerConfig)>,
}
