//! The description of one field of a request: its name, values, default, and the models that take it.
//!
//! [`table`](super::table) contains all fields. Parsing, errors, forms, `params`, a model's schema and the page use
//! this table.

use std::fmt;

use serde_json::Value;

use super::{Limits, ModelCard};

/// A field of a request, or a key of a field that is an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    /// A description for people: one sentence.
    pub doc: &'static str,
    pub kind: Kind,
    /// The value of an absent field, if this value is the same for every request of a model.
    pub default: fn(&Bounds<'_>) -> Option<Value>,
    /// Whether a request for this model must contain the field.
    pub required: fn(&ModelCard) -> bool,
    pub takers: Takers,
    /// The field that must be present in a request for this model if this field is present.
    pub needs: fn(&ModelCard) -> Option<&'static str>,
    /// The fields that must be absent if this field is present.
    pub excludes: &'static [&'static str],
    /// Whether `params` contains the field, because the field is needed to draw the picture again.
    pub shown: bool,
    /// Whether the picture depends on the field.
    pub shapes_picture: bool,
}

/// The models whose requests may have a field.
#[derive(Clone, Copy, Debug)]
pub struct Takers {
    pub take: fn(&ModelCard) -> bool,
    /// Why other models refuse the field, as the end of the sentence "cannot be used with the model …: ". `None` if the
    /// function that reads the field reports the error.
    pub why: Option<&'static str>,
}

/// The bounds of a request: the model's card and the operator's limits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    pub card: &'a ModelCard,
    pub limits: &'a Limits,
}

/// The values that a field accepts.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string of at most this many characters.
    Text(fn(&Bounds<'_>) -> usize),
    Integer(fn(&Bounds<'_>) -> Integers),
    Number(Numbers),
    /// A number of seconds.
    Seconds(fn(&Bounds<'_>) -> Numbers),
    Flag,
    /// One of these strings.
    Word(fn(&Bounds<'_>) -> Vec<&'static str>),
    /// A list of two integers from `min` to [`Kind::MAX_PAIR`].
    Pair {
        min: u64,
    },
    /// A list of at most `most` integers.
    Integers {
        most: usize,
        each: fn(&Bounds<'_>) -> Integers,
    },
    /// A list of two numbers in `[0, 1]`, the first smaller than the second.
    Interval,
    /// A list of noise levels σ that do not rise.
    Sigmas,
    /// A list of training timesteps that strictly fall.
    Timesteps,
    /// A picture, in a form of [`ImageSource`](super::ImageSource).
    Picture,
    /// A picture. If this number is larger than 1, also a list of at most this many pictures.
    Pictures(fn(&Bounds<'_>) -> usize),
    /// A string `WIDTHxHEIGHT`, in pixels.
    Size,
    /// A scheduler's name, or an object with keys of diffusers' `scheduler_config.json`.
    Scheduler,
    /// A class by number or name, or a list of one class per image.
    Classes,
    /// An object whose keys and values are texts that the client chooses.
    Labels,
    /// A list of at most `most` of these words. Repeated words have no effect.
    Words {
        words: &'static [&'static str],
        most: usize,
    },
    /// An object with these keys.
    Object(&'static [&'static Field]),
    /// A list of at most `most` objects with these keys.
    List {
        most: usize,
        of: &'static [&'static Field],
    },
}

/// Integers from `min` to `max` that are multiples of `multiple_of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integers {
    pub min: u64,
    pub max: u64,
    pub multiple_of: u64,
}

/// Numbers from `min` to `max`. If a bound is open, the bound itself is excluded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers {
    pub min: f64,
    pub max: f64,
    pub min_is_open: bool,
    pub max_is_open: bool,
}

impl Kind {
    pub const MAX_PAIR: u64 = 1 << 16;
    /// Maximum number of pairs in `metadata`, and the maximum lengths of their keys and values in characters.
    pub const MAX_LABELS: usize = 16;
    pub const MAX_LABEL_CHARS: usize = 64;
    pub const MAX_LABEL_VALUE_CHARS: usize = 512;

    pub const fn number(min: f64, max: f64) -> Kind {
        Kind::Number(Numbers { min, max, min_is_open: false, max_is_open: false })
    }

    /// The keys of an object, or of the objects in a list.
    pub fn keys(&self) -> &'static [&'static Field] {
        match self {
            Kind::Object(keys) | Kind::List { of: keys, .. } => keys,
            _ => &[],
        }
    }

    /// Whether a text in a form is used unchanged as the value, instead of being parsed as JSON.
    pub fn is_text(&self) -> bool {
        matches!(self, Kind::Text(_) | Kind::Size)
    }
}

impl Field {
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Field {
        Field {
            name,
            doc,
            kind,
            default: |_| None,
            required: |_| false,
            takers: Takers { take: |_| true, why: None },
            needs: |_| None,
            excludes: &[],
            shown: true,
            shapes_picture: true,
        }
    }

    pub const fn default(self, default: fn(&Bounds<'_>) -> Option<Value>) -> Field {
        Field { default, ..self }
    }

    pub const fn required(self, required: fn(&ModelCard) -> bool) -> Field {
        Field { required, ..self }
    }

    /// Restricts the field to models that `take` it; `why` says why other models do not take the field.
    pub const fn only(self, take: fn(&ModelCard) -> bool, why: Option<&'static str>) -> Field {
        Field { takers: Takers { take, why }, ..self }
    }

    pub const fn needs(self, needs: fn(&ModelCard) -> Option<&'static str>) -> Field {
        Field { needs, ..self }
    }

    pub const fn excludes(self, others: &'static [&'static str]) -> Field {
        Field { excludes: others, ..self }
    }

    /// Excludes the field from `params`.
    pub const fn hidden(self) -> Field {
        Field { shown: false, ..self }
    }

    /// Excludes the field from the metadata of picture files: the picture does not depend on the field.
    pub const fn beside_picture(self) -> Field {
        Field { shapes_picture: false, ..self }
    }

    /// The field with this name.
    pub fn find<'a>(fields: &[&'a Field], name: &str) -> Option<&'a Field> {
        fields.iter().find(|field| field.name == name).copied()
    }

    pub fn is_taken_by(&self, card: &ModelCard) -> bool {
        (self.takers.take)(card)
    }

    /// The bounds of an integer field. Other fields have no bounds.
    pub fn integers(&self, terms: &Bounds<'_>) -> Integers {
        match self.kind {
            Kind::Integer(bounds) => bounds(terms),
            _ => Integers { min: 0, max: u64::MAX, multiple_of: 1 },
        }
    }
}

/// A range as text: "between 64 and 2048", or "64" if both bounds are equal.
pub(super) fn range(min: impl fmt::Display, max: impl fmt::Display) -> String {
    let (min, max) = (min.to_string(), max.to_string());
    if min == max { min } else { format!("between {min} and {max}") }
}
