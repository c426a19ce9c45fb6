//! Checks that settings that are whole numbers were given as such: the loader rounds fractions and cuts numbers that
//! are too large.

use config::ValueKind;
use serde_json::Value;

use super::{Config, ConfigError, environment};

/// Compares the given settings with the loaded ones.
///
/// # Errors
/// A whole number differs from the number that was given.
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

/// The number, or the first number in a list, that was loaded as another number.
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
