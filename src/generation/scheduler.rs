//! The scheduler of a request.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The scheduler of a request: a name, or keys of diffusers' `scheduler_config.json` that override keys of the model
/// folder's file. The module `diffusion` interprets names and keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SchedulerChoice {
    /// A name such as `euler_a` or `dpmpp_2m_karras`.
    Name(String),
    /// Keys of diffusers' `scheduler_config.json`. Absent keys, even `_class_name`, come from the model's own file; for
    /// a key with the value null, the default of the scheduler's class is used.
    Object(Map<String, Value>),
}

impl SchedulerChoice {
    /// The first key that is too long or whose value contains a text of more than 128 characters. Keys that a
    /// scheduler's class ignores are stored as well, so their length needs a bound, too.
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
    /// The model folder's own scheduler.
    fn default() -> SchedulerChoice {
        SchedulerChoice::Object(Map::new())
    }
}
