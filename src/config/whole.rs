//! Checks that settings that must be whole numbers were given as whole numbers. Without this check, the loader would
//! round fractions and replace numbers that are too large by the largest possible one.

use config::ValueKind;
use serde_json::Value;

use super::{Config, ConfigError, environment};

/// Compares the given settings with the loaded ones.
///
/// # Errors
/// A setting was loaded as a whole number that differs from the given number.
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

/// The given number, if the loader has changed it. In a list, the first number that the loader has changed. `None` if
/// the loader has changed no number.
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
