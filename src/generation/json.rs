//! Parses the JSON of a request: unique keys and a bounded number of values.

use std::{cell::Cell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Maximum number of values in one request, counting every entry of objects and lists at every depth. A parsed value
/// takes many times the bytes of its text (the 3 bytes of `[],` become 32), so a limit on the body's length alone does
/// not bound the memory. The longest list that a request can need has 10,000 timesteps.
pub const MAX_VALUES: usize = 16_384;

/// Why a text is not valid JSON for a request.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Invalid JSON, more than 127 levels of nesting, or a repeated key. The error's text contains line and column.
    #[error("{0}")]
    Malformed(serde_json::Error),
    #[error("must have at most {MAX_VALUES} values, counting every entry of its objects and lists")]
    TooManyValues,
}

/// The number of values that the JSON texts of one request may still contain together.
#[derive(Debug)]
pub struct ValueBudget {
    left: Cell<usize>,
    exceeded: Cell<bool>,
}

impl Default for ValueBudget {
    fn default() -> ValueBudget {
        ValueBudget { left: Cell::new(MAX_VALUES), exceeded: Cell::new(false) }
    }
}

impl ValueBudget {
    /// Parses one JSON value and subtracts its number of values from the budget. Parsing stops when the budget is
    /// exhausted.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn parse(&self, text: &str) -> Result<Value, JsonError> {
        let mut parser = serde_json::Deserializer::from_str(text);
        let parsed = Strict(self).deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
        match parsed {
            Ok(value) => Ok(value),
            Err(_) if self.exceeded.get() => Err(JsonError::TooManyValues),
            Err(error) => Err(JsonError::Malformed(error)),
        }
    }

    fn charge<E: Error>(&self) -> Result<(), E> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.exceeded.set(true);
                Err(E::custom("too many values"))
            }
        }
    }
}

/// Reads a value and refuses repeated keys in its objects. Other parsers may take the first, the last or both of two
/// equal keys, so the value that was checked might not be the value that is used.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a ValueBudget);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.charge()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("the number is not finite"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                let key: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format!("the key {key:?} is given twice")));
            }
            let value = entries.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_values_is_bounded_in_all_texts_of_a_request_together() {
        let list = |entries: usize| format!("[{}]", vec!["[]"; entries].join(","));
        let budget = ValueBudget::default();
        assert!(budget.parse(&list(MAX_VALUES - 1)).is_ok());
        assert!(matches!(budget.parse("1"), Err(JsonError::TooManyValues)));
        assert!(matches!(ValueBudget::default().parse(&list(MAX_VALUES)), Err(JsonError::TooManyValues)));
        let object: Vec<String> = (0..MAX_VALUES).map(|i| format!("\"{i}\":0")).collect();
        let object = format!("{{{}}}", object.join(","));
        assert!(matches!(ValueBudget::default().parse(&object), Err(JsonError::TooManyValues)));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(ValueBudget::default().parse(&nested(126)).is_ok());
        for depth in [129, 100_000] {
            let error = ValueBudget::default().parse(&nested(depth)).unwrap_err().to_string();
            assert!(error.contains("recursion limit"), "{depth}: {error}");
        }
    }
}
