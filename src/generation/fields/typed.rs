//! Reads a field as its entry in the table describes it: type, bounds and default.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Fields, faults::shortened};
use crate::generation::{
    Shown,
    field::{Bounds, Field, Integers, Kind, Numbers, range},
};

impl Fields {
    /// Takes the value of a field. `None` if the value is absent or invalid. For an invalid value, this function adds
    /// an error. Values of the kinds that have their own reader, such as pictures, are returned unchecked.
    pub(in crate::generation) fn get<T: DeserializeOwned>(&mut self, field: &Field, on: &Bounds<'_>) -> Option<T> {
        let name = field.name;
        let value: Value = match field.kind {
            Kind::Text(max_chars) => self.text(name, max_chars(on))?.into(),
            Kind::Integer(bounds) => self.integer_within(name, bounds(on))?.into(),
            Kind::Number(bounds) => self.number_within(name, bounds)?.into(),
            Kind::Seconds(bounds) => self.number_within(name, bounds(on))?.into(),
            Kind::Flag => self.flag(name)?.into(),
            Kind::Word(words) => self.word(name, &words(on))?,
            Kind::Pair { min } => self.pair(name, min)?,
            Kind::Integers { most, each } => self.integers(name, most, each(on))?,
            Kind::Interval => self.interval(name)?,
            Kind::Sigmas
            | Kind::Timesteps
            | Kind::Picture
            | Kind::Pictures(_)
            | Kind::Size
            | Kind::Scheduler
            | Kind::Classes
            | Kind::Labels
            | Kind::Words { .. }
            | Kind::Object(_)
            | Kind::List { .. } => self.take(name)?,
        };
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(_) => {
                self.error(name, "wrong_type", "has a value of another type");
                None
            }
        }
    }

    /// As [`Fields::get`], with the field's default instead of `None`.
    pub(in crate::generation) fn get_or_default<T: DeserializeOwned>(&mut self, field: &Field, on: &Bounds<'_>) -> T {
        self.get(field, on).unwrap_or_else(|| default_of(field, on))
    }

    /// Takes the value of a required field; `what` describes it in the error message.
    pub(in crate::generation) fn required<T: DeserializeOwned>(
        &mut self,
        field: &Field,
        on: &Bounds<'_>,
        what: &str,
    ) -> Option<T> {
        if !self.has(field.name) {
            self.error(field.name, "required", format!("is required: {what}"));
            return None;
        }
        self.get(field, on)
    }

    /// Adds an error for each field that the model does not take, unless the field's own reader reports the error.
    pub(in crate::generation) fn refuse_untaken(&mut self, fields: &[&Field], on: &Bounds<'_>) {
        for field in fields.iter().filter(|field| !field.is_taken_by(on.card)) {
            if let Some(why) = field.takers.why
                && let Some(value) = self.take(field.name)
            {
                // The `params` of a finished generation contain every shown field, even fields that have no meaning for
                // its model. A client may send `params` again, so such a field is allowed to have its default value.
                let may_be_idle = !on.card.takes_prompt || field.name == "guidance_scale";
                let idle = (field.default)(on).filter(|_| may_be_idle);
                if idle.is_some_and(|idle| same(&value, &idle)) {
                    continue;
                }
                let detail = format!("cannot be used with the model {:?}: {why}", on.card.name);
                self.error(field.name, "unsupported_for_model", detail);
            }
        }
    }

    fn integer_within(&mut self, name: &str, Integers { min, max, multiple_of }: Integers) -> Option<u64> {
        let number = self.integer(name, min, max)?;
        if !number.is_multiple_of(multiple_of) {
            self.error(name, "out_of_range", format!("must be a multiple of {multiple_of}, not {number}"));
            return None;
        }
        Some(number)
    }

    fn number_within(&mut self, name: &str, bounds: Numbers) -> Option<f64> {
        let value = self.take(name)?;
        let Some(number) = value.as_f64() else { return self.wrong_type(name, "a number", &value) };
        if !bounds.contain(number) {
            self.error(name, "out_of_range", format!("must be {bounds}, not {value}"));
            return None;
        }
        Some(number)
    }

    fn word(&mut self, name: &str, words: &[&'static str]) -> Option<Value> {
        let value = self.take(name)?;
        if value.as_str().is_some_and(|word| words.contains(&word)) {
            return Some(value);
        }
        self.error(name, "invalid_value", format!("must be one of {}, not {}", words.join(", "), shortened(&value)));
        None
    }

    fn pair(&mut self, name: &str, min: u64) -> Option<Value> {
        const MAX: u64 = Kind::MAX_PAIR;
        let value = self.take(name)?;
        let numbers = value.as_array().filter(|list| list.len() == 2);
        let numbers: Vec<u64> = numbers.into_iter().flatten().filter_map(Value::as_u64).collect();
        match numbers[..] {
            [first, second] if [first, second].iter().all(|number| (min..=MAX).contains(number)) => Some(value),
            [_, _] => {
                self.error(name, "out_of_range", format!("must be two numbers between {min} and {MAX}, not {value}"));
                None
            }
            _ => self.wrong_type(name, "a list of two whole numbers, such as [768, 512]", &value),
        }
    }

    fn integers(&mut self, name: &str, most: usize, Integers { min, max, .. }: Integers) -> Option<Value> {
        let value = self.take(name)?;
        let Some(list) = value.as_array() else { return self.wrong_type(name, "a list of whole numbers", &value) };
        if !(1..=most).contains(&list.len()) {
            let detail = format!("must have between 1 and {most} entries, not {}", list.len());
            self.error(name, "out_of_range", detail);
            return None;
        }
        let is_one = |entry: &Value| entry.as_u64().is_some_and(|number| (min..=max).contains(&number));
        if let Some(i) = list.iter().position(|entry| !is_one(entry)) {
            let detail = format!("must be a whole number, {}, not {}", range(min, max), shortened(&list[i]));
            self.error_below(name, &i.to_string(), "invalid_value", detail);
            return None;
        }
        Some(value)
    }

    /// Takes a list `[a, b]` with `0 ≤ a < b ≤ 1`.
    fn interval(&mut self, name: &str) -> Option<Value> {
        let value = self.take(name)?;
        let bounds = value.as_array().map(|bounds| bounds.iter().map(Value::as_f64).collect::<Vec<_>>());
        let Some([Some(start), Some(end)]) = bounds.as_deref() else {
            return self.wrong_type(name, "two numbers, such as [0.2, 0.8]", &value);
        };
        let (start, end) = (*start, *end);
        for (key, bound) in [("0", start), ("1", end)] {
            if !(0.0..=1.0).contains(&bound) {
                self.error_below(name, key, "out_of_range", format!("must be between 0 and 1, not {}", Shown(bound)));
                return None;
            }
        }
        if start >= end {
            let detail = format!("must be two rising numbers, not {} and {}", Shown(start), Shown(end));
            self.error(name, "invalid_value", detail);
            return None;
        }
        Some(json!([start, end]))
    }
}

/// The value of an absent field.
fn default_of<T: DeserializeOwned>(field: &Field, on: &Bounds<'_>) -> T {
    let default = (field.default)(on).unwrap_or(Value::Null);
    serde_json::from_value(default)
        .expect("every field of `get_or_default` has a default of its own type: tests send requests without the field")
}

impl Numbers {
    fn contain(&self, number: f64) -> bool {
        let above = if self.min_is_open { number > self.min } else { number >= self.min };
        let below = if self.max_is_open { number < self.max } else { number <= self.max };
        above && below
    }
}

impl std::fmt::Display for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Numbers { min, max, .. } = self;
        match (self.min_is_open, self.max_is_open) {
            (false, false) => f.write_str(&range(min, max)),
            (true, false) => write!(f, "above {min} and at most {max}"),
            (false, true) => write!(f, "at least {min} and below {max}"),
            (true, true) => write!(f, "above {min} and below {max}"),
        }
    }
}

/// Whether two values are equal. 1 and 1.0 are equal.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b || a.as_f64().is_some_and(|number| b.as_f64() == Some(number)),
    }
}
