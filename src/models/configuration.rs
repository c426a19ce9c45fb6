use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::weights::LoadError;

/// A key that a network cannot vary, and the JSON values for which that makes no difference; none means any value.
pub(super) type Fixed = (&'static str, &'static [&'static str]);

/// Reads a component's configuration so that every key is honoured or refused by name.
///
/// The fields of `C` are honoured and default to diffusers' defaults; the `fixed` keys are checked; keys that start with
/// an underscore are notes of the library that wrote the file; any other key is an error.
pub(super) fn read<C>(path: &str, keys: &Map<String, Value>, fixed: &[Fixed]) -> Result<C, LoadError>
where
    C: Default + Serialize + DeserializeOwned,
{
    let bad = |key: &str, reason: String| LoadError::BadKey { path: path.into(), key: key.into(), reason };
    let defaults = serde_json::to_value(C::default()).map_err(|e| bad("defaults", e.to_string()))?;
    let mut honoured = Map::new();
    for (key, value) in keys {
        if defaults.get(key).is_some() {
            honoured.insert(key.clone(), exact(value));
        } else if let Some((_, supported)) = fixed.iter().find(|(fixed, _)| fixed == key) {
            one_of(path, key, value, supported)?;
        } else if !key.starts_with('_') {
            return Err(LoadError::UnknownKey { path: path.into(), key: key.clone(), value: value.clone() });
        }
    }
    serde_path_to_error::deserialize(Value::Object(honoured)).map_err(|e| {
        let key = e.path().to_string();
        bad(&key, plain(&e.into_inner().to_string()))
    })
}

/// The value with 8 in place of 8.0, which some writers print and which no network takes for another number.
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

/// What the reader of JSON says, in words of JSON.
fn plain(reason: &str) -> String {
    let reason = reason.replace("usize", "a whole number").replace("u32", "a whole number").replace("f64", "a number");
    reason.replace("string or map", "a text")
}

/// Refuses a value that is none of `supported`, JSON all of them; an empty list supports every value.
pub(super) fn one_of(path: &str, key: &str, value: &Value, supported: &[&str]) -> Result<(), LoadError> {
    if supported.is_empty() || supported.iter().any(|s| same(s, value)) {
        return Ok(());
    }
    let (path, key, value, supported) = (path.into(), key.into(), value.clone(), supported.join(", "));
    Err(LoadError::UnsupportedKey { path, key, value, supported })
}

fn same(supported: &str, value: &Value) -> bool {
    let supported: Option<Value> = serde_json::from_str(supported).ok();
    match (supported.as_ref().and_then(Value::as_f64), value.as_f64()) {
        (Some(a), Some(b)) => a == b, // 1 and 1.0 are the same to Python.
        _ => supported.as_ref() == Some(value),
    }
}

/// Refuses a value that is not between 1 and `most`: nonsense is caught before memory is asked for it.
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

/// Refuses `value` = what is not a multiple of `divisor`.
pub(super) fn divides(path: &str, key: &str, divisor: usize, value: usize) -> Result<(), LoadError> {
    if divisor > 0 && value.is_multiple_of(divisor) {
        return Ok(());
    }
    Err(LoadError::BadKey { path: path.into(), key: key.into(), reason: format!("{divisor} does not divide {value}") })
}

/// Refuses a list of another length than the blocks have.
pub(super) fn per_block(path: &str, key: &str, length: usize, blocks: usize) -> Result<(), LoadError> {
    if length == blocks {
        return Ok(());
    }
    let reason = format!("{length} entries for {blocks} blocks");
    Err(LoadError::BadKey { path: path.into(), key: key.into(), reason })
}

/// A value for all blocks of a network, or one for each.
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

    pub(super) fn check(&self, path: &str, key: &str, blocks: usize, most: usize) -> Result<(), LoadError> {
        if let Self::Each(values) = self {
            per_block(path, key, values.len(), blocks)?;
        }
        (0..blocks).try_for_each(|i| within(path, key, self.at(i), most))
    }
}

/// Side of what the network was trained on, or height and width: of latents for a U-Net, of pictures for an autoencoder.
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

/// The widest layer that is taken for sane.
pub(super) const WIDEST: usize = 1 << 14;

/// The longest side of the latents that a U-Net was trained on, thirty times that of the largest, and of an autoencoder's
/// pictures.
pub(super) const LARGEST_SAMPLE: usize = 1 << 12;
pub(super) const LARGEST_PICTURE: usize = 1 << 16;

/// What latents are divided by, with its reciprocal, and what is added to them.
pub(super) const LARGEST_SCALE: f64 = 1e6;

/// The largest number that keeps a norm from dividing by zero.
pub(super) const LARGEST_EPS: f64 = 1.0;
