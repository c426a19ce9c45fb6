//! Whole numbers: the loader rounds a number with a fraction where a setting is a whole one, and cuts one that is too large.

use config::ValueKind;
use serde_json::Value;

use super::{Config, ConfigError, environment};

/// # Errors
/// A setting that is a whole number was given as another number than was read.
pub(super) fn check(given: &config::Config, read: &Config) -> Result<(), ConfigError> {
    let read = serde_json::to_value(read).unwrap_or_default();
    for key in environment::keys() {
        let Ok(value) = given.get::<config::Value>(&key) else { continue };
        let read = read.pointer(&format!("/{}", key.replace('.', "/"))).unwrap_or(&Value::Null);
        if let Some(number) = changed(&value.kind, read) {
            return Err(ConfigError::Bound { key, detail: format!("must be a whole number, not {number}") });
        }
    }
    Ok(())
}

/// The number, or the number in a list, that was read as another one.
fn changed(given: &ValueKind, read: &Value) -> Option<f64> {
    match (given, read) {
        (ValueKind::Float(given), Value::Number(read)) if read.as_f64() != Some(*given) && !read.is_f64() => {
            Some(*given)
        }
        (ValueKind::Array(given), Value::Array(read)) => {
            given.iter().zip(read).find_map(|(given, read)| changed(&given.kind, read))
        }
        _ => None,
    }
}
