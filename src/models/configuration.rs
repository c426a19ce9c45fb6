//! Reads and checks the configurations of networks.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{generation::Shown, weights::LoadError};

/// A key for which the type of the configuration has no field, and the JSON texts of the values that the network
/// supports. If the list of texts is empty, every value is supported.
pub(super) type Fixed = (&'static str, &'static [&'static str]);

/// Reads a component's configuration. If a key is not supported, the error names it.
///
/// Keys that are fields of `C` are read; if absent, they have the defaults of `C`. The values of `fixed` keys are
/// checked. Keys that start with an underscore are notes of the library that wrote the file and are ignored. Any other
/// key is an error.
pub(super) fn read<C>(path: &str, keys: &Map<String, Value>, fixed: &[Fixed]) -> Result<C, LoadError>
where
    C: Default + Serialize + DeserializeOwned,
{
    let bad = |key: &str, reason: String| LoadError::BadKey { path: path.into(), key: key.into(), reason };
    let defaults = serde_json::to_value(C::default()).map_err(|e| bad("defaults", e.to_string()))?;
    let mut fields = Map::new();
    for (key, value) in keys {
        if defaults.get(key).is_some() {
            fields.insert(key.clone(), exact(value));
        } else if let Some((_, supported)) = fixed.iter().find(|(fixed, _)| fixed == key) {
            one_of(path, key, value, supported)?;
        } else if !key.starts_with('_') {
            return Err(LoadError::UnknownKey { path: path.into(), key: key.clone(), value: Box::new(value.clone()) });
        }
    }
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|e| {
        let key = e.path().to_string();
        bad(&key, plain(&e.into_inner().to_string()))
    })
}

/// Replaces floats without a fraction by integers, such as 8.0 by 8: some writers print integers as floats.
fn exact(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(exact).collect(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => Value::from(number as i64),
            _ => value.clone(),
        },
        _ => value.clone(),
    }
}

/// Replaces Rust's type names in an error of the JSON reader by words for JSON values.
fn plain(reason: &str) -> String {
    let reason = reason.replace("usize", "a whole number").replace("u32", "a whole number").replace("f64", "a number");
    reason.replace("string or map", "a text")
}

/// Refuses a value that is not in `supported`, a list of JSON texts. An empty list supports every value.
pub(super) fn one_of(path: &str, key: &str, value: &Value, supported: &[&str]) -> Result<(), LoadError> {
    if supported.is_empty() || supported.iter().any(|s| same(s, value)) {
        return Ok(());
    }
    let (path, key, value, supported) = (path.into(), key.into(), value.clone(), supported.join(", "));
    Err(LoadError::UnsupportedKey { path, key, value: Box::new(value), supported })
}

fn same(supported: &str, value: &Value) -> bool {
    let supported: Option<Value> = serde_json::from_str(supported).ok();
    match (supported.as_ref().and_then(Value::as_f64), value.as_f64()) {
        (Some(a), Some(b)) => a == b, // Python treats 1 and 1.0 as equal.
        _ => supported.as_ref() == Some(value),
    }
}

/// Refuses a value that is not between 1 and `most`. Absurd sizes are refused before memory is allocated for them.
pub(super) fn within(path: &str, key: &str, value: usize, most: usize) -> Result<(), LoadError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    let reason = format!("{value} is not between 1 and {most}");
    Err(LoadError::BadKey { path: path.into(), key: key.into(), reason })
}

/// Refuses a number that is not between `least` and `most`.
pub(super) fn between(path: &str, key: &str, value: f64, least: f64, most: f64) -> Result<(), LoadError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let [value, least, most] = [value, least, most].map(Shown);
    let reason = format!("{value} is not between {least} and {most}");
    Err(LoadError::BadKey { path: path.into(), key: key.into(), reason })
}

/// Refuses a list that does not have between 1 and `most` entries.
pub(super) fn entries(path: &str, key: &str, length: usize, most: usize) -> Result<(), LoadError> {
    if (1..=most).contains(&length) {
        return Ok(());
    }
    let reason = format!("must have 1 to {most} entries, not {length}");
    Err(LoadError::BadKey { path: path.into(), key: key.into(), reason })
}

/// Refuses a `value` that is not a multiple of `divisor`.
pub(super) fn divides(path: &str, key: &str, divisor: usize, value: usize) -> Result<(), LoadError> {
    if divisor > 0 && value.is_multiple_of(divisor) {
        return Ok(());
    }
    Err(LoadError::BadKey { path: path.into(), key: key.into(), reason: format!("{divisor} does not divide {value}") })
}

/// Refuses a list that does not have one entry per block.
pub(super) fn per_block(path: &str, key: &str, length: usize, blocks: usize) -> Result<(), LoadError> {
    if length == blocks {
        return Ok(());
    }
    let reason = format!("{length} entries for {blocks} blocks");
    Err(LoadError::BadKey { path: path.into(), key: key.into(), reason })
}

/// One value for all blocks of a network, or a list with one value per block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be a whole number or a list of whole numbers")]
pub enum PerBlock {
    All(usize),
    Each(Vec<usize>),
}

impl PerBlock {
    /// The value of block `i`, counted from the input of the network.
    pub(super) fn at(&self, i: usize) -> usize {
        match self {
            Self::All(value) => *value,
            Self::Each(values) => values[i],
        }
    }

    /// Refuses a list that does not have one value per block, and values that are not between 1 and `most`.
    pub(super) fn check(&self, path: &str, key: &str, blocks: usize, most: usize) -> Result<(), LoadError> {
        if let Self::Each(values) = self {
            per_block(path, key, values.len(), blocks)?;
        }
        (0..blocks).try_for_each(|i| within(path, key, self.at(i), most))
    }
}

/// The size that a network was trained on, as one side or as height and width: in latent pixels for a U-Net, in pixels
/// for an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be a whole number or a list of two, height and width")]
pub enum SampleSize {
    Square(usize),
    HeightWidth(usize, usize),
}

impl SampleSize {
    /// (h, w)
    pub fn height_width(self) -> (usize, usize) {
        match self {
            Self::Square(side) => (side, side),
            Self::HeightWidth(h, w) => (h, w),
        }
    }

    pub(super) fn check(self, path: &str, most: usize) -> Result<(), LoadError> {
        let (h, w) = self.height_width();
        [h, w].into_iter().try_for_each(|side| within(path, "sample_size", side, most))
    }
}

/// The largest supported width of a layer.
pub(super) const WIDEST: usize = 1 << 14;

/// The longest supported side of the latents that a U-Net was trained on, about thirty times the longest side of
/// published U-Nets.
pub(super) const LARGEST_SAMPLE: usize = 1 << 12;
/// The longest supported side of the pictures that an autoencoder was trained on.
pub(super) const LARGEST_PICTURE: usize = 1 << 16;

/// The bound of a supported `scaling_factor`, of its reciprocal, and of the absolute value of a `shift_factor`.
pub(super) const LARGEST_SCALE: f64 = 1e6;

/// The largest supported epsilon, the number that keeps a norm from dividing by zero.
pub(super) const LARGEST_EPS: f64 = 1.0;
