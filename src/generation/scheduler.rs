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

impl SchedulerChoice {
    /// A key whose value holds a text longer than any name; keys that a class does not look at would be kept with it.
    pub(super) fn key_of_long_text(map: &Map<String, Value>) -> Option<&str> {
        fn is_long(value: &Value) -> bool {
            match value {
                Value::String(text) => text.chars().nth(128).is_some(),
                Value::Array(entries) => entries.iter().any(is_long),
                Value::Object(map) => map.iter().any(|(key, value)| key.len() > 128 || is_long(value)),
                Value::Null | Value::Bool(_) | Value::Number(_) => false,
            }
        }
        map.iter().find(|(key, value)| key.len() > 128 || is_long(value)).map(|(key, _)| key.as_str())
    }
}

impl Default for SchedulerChoice {
    /// The model folder's own.
    fn default() -> SchedulerChoice {
        SchedulerChoice::Object(Map::new())
    }
}
