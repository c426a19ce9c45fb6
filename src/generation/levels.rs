//! Noise levels that a request names one by one, in place of a number of steps.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fields, Limits, table};

/// The fields `sigmas` and `timesteps`, which exclude each other; from noise to picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Levels {
    /// The scheduler's own σ; whether the last is where the last step begins or where it ends is the class's affair.
    Sigmas(Vec<f64>),
    /// Training timesteps, falling strictly.
    Timesteps(Vec<u32>),
}

/// The largest σ that stays a number in every formula.
pub(super) const MAX_SIGMA: f64 = 1e6;
/// No model has been trained on more timesteps.
pub(super) const MAX_TIMESTEP: u64 = 9_999;

impl Levels {
    /// The field that they were given in.
    pub fn name(&self) -> &'static str {
        match self {
            Levels::Sigmas(_) => "sigmas",
            Levels::Timesteps(_) => "timesteps",
        }
    }

    /// Lists of 1 to `max_steps` numbers: σ from 0 to 1e6 that do not rise, whole timesteps from 0 that fall.
    pub(super) fn read(fields: &mut Fields, limits: &Limits) -> Option<Levels> {
        let sigmas = list(fields, table::SIGMAS.name, limits, "numbers", |value| value.as_f64().map(Value::from));
        let timesteps = list(fields, table::TIMESTEPS.name, limits, "integers", |value| {
            let whole = value.as_f64().filter(|t| t.fract() == 0.0 && (0.0..=MAX_TIMESTEP as f64).contains(t));
            whole.map(|t| Value::from(t as u64))
        });
        match (sigmas, timesteps) {
            (Some(_), Some(_)) => {
                fields.error("timesteps", "conflict", "excludes sigmas");
                None
            }
            (Some(sigmas), None) => sigmas_of(fields, &sigmas),
            (None, Some(timesteps)) => timesteps_of(fields, &timesteps),
            (None, None) => None,
        }
    }
}

/// The list in this field, if every entry of it is one of `what`.
fn list(
    fields: &mut Fields,
    name: &str,
    limits: &Limits,
    what: &str,
    entry: impl Fn(&Value) -> Option<Value>,
) -> Option<Vec<Value>> {
    let value = fields.take(name)?;
    let Some(entries) = value.as_array() else {
        return fields.wrong_type(name, &format!("a list of {what}"), &value);
    };
    if entries.is_empty() || entries.len() > limits.max_steps as usize {
        let detail = format!("must have between 1 and {} entries, not {}", limits.max_steps, entries.len());
        fields.error(name, "out_of_range", detail);
        return None;
    }
    let read: Vec<Option<Value>> = entries.iter().map(entry).collect();
    if let Some(i) = read.iter().position(Option::is_none) {
        let bound =
            if name == "timesteps" { format!("an integer from 0 to {MAX_TIMESTEP}") } else { "a number".into() };
        fields.error_below(name, &i.to_string(), "invalid_value", format!("must be {bound}"));
        return None;
    }
    read.into_iter().collect()
}

fn sigmas_of(fields: &mut Fields, entries: &[Value]) -> Option<Levels> {
    let sigmas: Vec<f64> = entries.iter().filter_map(Value::as_f64).collect();
    if let Some(i) = sigmas.iter().position(|sigma| !(0.0..=MAX_SIGMA).contains(sigma)) {
        let detail = format!("must be between 0 and {MAX_SIGMA}, not {}", sigmas[i]);
        fields.error_below("sigmas", &i.to_string(), "out_of_range", detail);
        return None;
    }
    if let Some(i) = sigmas.windows(2).position(|pair| pair[1] > pair[0]) {
        let detail = format!("must not be above the {} before it", sigmas[i]);
        fields.error_below("sigmas", &(i + 1).to_string(), "out_of_range", detail);
        return None;
    }
    Some(Levels::Sigmas(sigmas))
}

fn timesteps_of(fields: &mut Fields, entries: &[Value]) -> Option<Levels> {
    let timesteps: Vec<u32> = entries.iter().filter_map(Value::as_u64).filter_map(|t| u32::try_from(t).ok()).collect();
    if let Some(i) = timesteps.windows(2).position(|pair| pair[1] >= pair[0]) {
        let detail = format!("must be below the {} before it", timesteps[i]);
        fields.error_below("timesteps", &(i + 1).to_string(), "out_of_range", detail);
        return None;
    }
    Some(Levels::Timesteps(timesteps))
}
