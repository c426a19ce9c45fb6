//! Explicit noise levels of a request, as an alternative to a number of steps.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fields, Limits, Shown, table};

/// The field `sigmas` or `timesteps`, which exclude each other. Both lists begin with the noisiest level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Levels {
    /// Values of σ as the scheduler defines it. The scheduler's class decides whether the last value is the start or
    /// the end of the last step.
    Sigmas(Vec<f64>),
    /// Training timesteps in strictly falling order.
    Timesteps(Vec<u32>),
}

/// The largest accepted σ. All formulas stay finite up to this value.
pub(super) const MAX_SIGMA: f64 = 1e6;
/// The largest accepted timestep. No known model has more than 10,000 timesteps.
pub(super) const MAX_TIMESTEP: u64 = 9_999;

impl Levels {
    /// The name of the request's field.
    pub fn name(&self) -> &'static str {
        match self {
            Levels::Sigmas(_) => "sigmas",
            Levels::Timesteps(_) => "timesteps",
        }
    }

    /// Reads a list of 1 to `max_steps` entries: values of σ from 0 to 1e6 that do not rise, or whole timesteps from 0
    /// to 9999 that fall.
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

/// Takes the list in the field `name`. `entry` converts one entry, and returns `None` for an invalid entry, which
/// becomes an error; `what` describes the entries in the error message.
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
        let detail = format!("must be between 0 and {MAX_SIGMA}, not {}", Shown(sigmas[i]));
        fields.error_below("sigmas", &i.to_string(), "out_of_range", detail);
        return None;
    }
    if let Some(i) = sigmas.windows(2).position(|pair| pair[1] > pair[0]) {
        let detail = format!("must not be above the previous entry, {}", Shown(sigmas[i]));
        fields.error_below("sigmas", &(i + 1).to_string(), "out_of_range", detail);
        return None;
    }
    Some(Levels::Sigmas(sigmas))
}

fn timesteps_of(fields: &mut Fields, entries: &[Value]) -> Option<Levels> {
    let timesteps: Vec<u32> = entries.iter().filter_map(Value::as_u64).filter_map(|t| u32::try_from(t).ok()).collect();
    if let Some(i) = timesteps.windows(2).position(|pair| pair[1] >= pair[0]) {
        let detail = format!("must be below the previous entry, {}", timesteps[i]);
        fields.error_below("timesteps", &(i + 1).to_string(), "out_of_range", detail);
        return None;
    }
    Some(Levels::Timesteps(timesteps))
}
