//! What is known of one field of a request, in one place: its name, the values it takes, its default, the models that take
//! it. [`table`](super::table) has all of them; parsing, errors, forms, `params`, the schema of a model and the page go by it.

use std::fmt;

use serde_json::Value;

use super::{Limits, ModelCard};

/// A field of a request, or a key of a field that is an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    /// A sentence for people.
    pub doc: &'static str,
    pub kind: Kind,
    /// The value that its absence stands for, where that is one value for every request of a model.
    pub default: fn(&Bounds<'_>) -> Option<Value>,
    /// Whether a request for this model has to have it.
    pub required: fn(&ModelCard) -> bool,
    pub takers: Takers,
    /// The field without which this one means nothing.
    pub needs: Option<&'static str>,
    /// The fields that cannot stand beside it.
    pub excludes: &'static [&'static str],
    /// Whether `params` shows it: what draws the picture again.
    pub shown: bool,
}

/// The models whose requests may have a field.
#[derive(Clone, Copy, Debug)]
pub struct Takers {
    pub take: fn(&ModelCard) -> bool,
    /// Why others refuse it, after "cannot be used with the model …: "; `None` where its reader says it.
    pub why: Option<&'static str>,
}

/// What a request is held against: the model's card and the operator's limits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    pub card: &'a ModelCard,
    pub limits: &'a Limits,
}

/// The values that a field takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string of at most so many characters.
    Text(fn(&Bounds<'_>) -> usize),
    Integer(fn(&Bounds<'_>) -> Integers),
    Number(Numbers),
    Flag,
    /// One of a few strings.
    Word(fn(&Bounds<'_>) -> Vec<&'static str>),
    /// Two integers from `min` to [`Kind::MAX_PAIR`].
    Pair {
        min: u64,
    },
    /// Two numbers in [0, 1], the first below the second.
    Interval,
    /// Numbers that do not rise.
    Sigmas,
    /// Integers that fall.
    Timesteps,
    /// A picture, in one of the forms of [`Given`](super::Given).
    Picture,
    /// `WIDTHxHEIGHT`.
    Size,
    /// A name, or keys of diffusers' `scheduler_config.json`.
    Scheduler,
    /// A class of the model by number or name, or a list of one for each image.
    Classes,
    /// The client's own strings under names of its own.
    Labels,
    /// A list of words, each at most once taken into account.
    Words {
        words: &'static [&'static str],
        most: usize,
    },
    /// An object of these keys.
    Object(&'static [&'static Field]),
    /// A list of at most so many objects of these keys.
    List {
        most: usize,
        of: &'static [&'static Field],
    },
}

/// Integers from `min` to `max` that `multiple_of` divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integers {
    pub min: u64,
    pub max: u64,
    pub multiple_of: u64,
}

/// Numbers from `min` to `max`; a bound that is open is not one of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers {
    pub min: f64,
    pub max: f64,
    pub min_is_open: bool,
    pub max_is_open: bool,
}

impl Kind {
    pub const MAX_PAIR: u64 = 1 << 16;
    /// The most of `metadata`, and the bounds of each pair, in characters.
    pub const MAX_LABELS: usize = 16;
    pub const MAX_LABEL_CHARS: usize = 64;
    pub const MAX_LABEL_VALUE_CHARS: usize = 512;

    pub const fn number(min: f64, max: f64) -> Kind {
        Kind::Number(Numbers { min, max, min_is_open: false, max_is_open: false })
    }

    /// The keys of a field that is an object, or a list of objects.
    pub fn keys(&self) -> &'static [&'static Field] {
        match self {
            Kind::Object(keys) | Kind::List { of: keys, .. } => keys,
            _ => &[],
        }
    }

    /// Whether a form's text is the value as it stands, whatever it looks like.
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
            needs: None,
            excludes: &[],
            shown: true,
        }
    }

    pub const fn default(self, default: fn(&Bounds<'_>) -> Option<Value>) -> Field {
        Field { default, ..self }
    }

    pub const fn required(self, required: fn(&ModelCard) -> bool) -> Field {
        Field { required, ..self }
    }

    /// Only for models that `take` it; `why` says what others lack.
    pub const fn only(self, take: fn(&ModelCard) -> bool, why: Option<&'static str>) -> Field {
        Field { takers: Takers { take, why }, ..self }
    }

    pub const fn needs(self, other: &'static str) -> Field {
        Field { needs: Some(other), ..self }
    }

    pub const fn excludes(self, others: &'static [&'static str]) -> Field {
        Field { excludes: others, ..self }
    }

    /// `params` leaves it out.
    pub const fn hidden(self) -> Field {
        Field { shown: false, ..self }
    }

    /// The one of these fields that has this name.
    pub fn find<'a>(fields: &[&'a Field], name: &str) -> Option<&'a Field> {
        fields.iter().find(|field| field.name == name).copied()
    }

    pub fn is_taken_by(&self, card: &ModelCard) -> bool {
        (self.takers.take)(card)
    }

    /// The bounds of a field of integers.
    pub fn integers(&self, terms: &Bounds<'_>) -> Integers {
        match self.kind {
            Kind::Integer(bounds) => bounds(terms),
            _ => Integers { min: 0, max: u64::MAX, multiple_of: 1 },
        }
    }
}

/// The values from `min` to `max` in words: "between 64 and 2048", or "64" where there is one.
pub(super) fn range(min: impl fmt::Display, max: impl fmt::Display) -> String {
    let (min, max) = (min.to_string(), max.to_string());
    if min == max { min } else { format!("between {min} and {max}") }
}
