//! Which scheduler a request names.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The scheduler of a request: the model folder's own, one by name, or a partial diffusers `scheduler_config.json`
/// laid over the model's. What the names and keys mean is the diffusion floor's affair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SchedulerChoice {
    /// A name such as `euler_a` or `dpmpp_2m_karras`.
    Name(String),
    /// Keys of diffusers' `scheduler_config.json`; absent keys come from the model's own file, also the `_class_name`,
    /// and null takes the default of the class.
    Object(Map<String, Value>),
}

impl Default for SchedulerChoice {
    /// The model folder's own.
    fn default() -> SchedulerChoice {
        SchedulerChoice::Object(Map::new())
    }
}
