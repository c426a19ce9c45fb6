//! Combines the scheduler configuration of a model with the choice of a request: a name, or a partial
//! `scheduler_config.json` that overrides keys.

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::InvalidScheduler;
use super::samplers::CLASSES;
use super::scheduler_config::keys::{self, Keys, RESPACING};
use super::scheduler_config::{Class, Name, SchedulerConfig};
use crate::generation::SchedulerChoice;

/// One entry of `GET /v1/schedulers`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SchedulerName {
    pub name: String,
    pub description: String,
}

/// All scheduler names that a request may use, with their descriptions.
pub fn names() -> impl Iterator<Item = SchedulerName> {
    named().flat_map(|(class, base)| {
        let plain = SchedulerName { name: base.name.to_owned(), description: base.description.to_owned() };
        let with_suffix = |suffix: &Suffix| SchedulerName {
            name: format!("{}{}", base.name, suffix.text),
            description: format!("{}, {}", base.description, suffix.description),
        };
        let suffixes = if class.has(RESPACING[0]) { &SUFFIXES[..] } else { &[] };
        std::iter::once(plain).chain(suffixes.iter().map(with_suffix))
    })
}

/// The names without suffixes, each with its class.
fn named() -> impl Iterator<Item = (&'static Class, &'static Name)> {
    CLASSES.iter().flat_map(|class| class.names.iter().map(|name| (*class, name)))
}

/// The class that `_class_name` names.
fn class_of(map: &Map<String, Value>) -> Result<&'static Class, InvalidScheduler> {
    let named = map.get("_class_name").filter(|named| !named.is_null()).ok_or(InvalidScheduler::NoClass)?;
    let unsupported = || InvalidScheduler::UnsupportedClass { class: keys::beginning(named) };
    let name = named.as_str().ok_or_else(unsupported)?;
    let is_named = |class: &&&Class| class.name == name || class.aliases.contains(&name);
    CLASSES.iter().find(is_named).copied().ok_or_else(unsupported)
}

impl SchedulerConfig {
    /// The first scheduler name of this configuration's class. If a model's scheduler is of this class, a request with
    /// this name gets the same scheduler as a request without a name. `None` if the class has no name.
    pub fn name(&self) -> Option<&'static str> {
        self.class.names.first().map(|named| named.name)
    }

    /// Reads the [given](Self::given) keys of a model's `scheduler_config.json`. Ignores keys that the class does not
    /// have. A key that is missing or null has the default of the class; a flag that is null is false.
    ///
    /// # Errors
    /// The class is missing or unsupported, or a value is invalid.
    pub fn from_model(model: &Map<String, Value>) -> Result<SchedulerConfig, InvalidScheduler> {
        SchedulerConfig::of_class(class_of(model)?, Keys(model))
    }

    /// diffusers' `Cls.from_config(model, **request)`: the request's keys override the model's keys, and the class
    /// gives the remaining defaults. Only the request's keys must be known to the class. One difference from diffusers:
    /// `Class::exclusive_values` names a key, and the values that the class knows for it. If the request does not set
    /// this key, and the model's file has a value that the class does not know, the class's default applies.
    ///
    /// # Errors
    /// A name, key, class or value is unknown or invalid, or the keys conflict.
    pub fn overlay(model: &Map<String, Value>, request: &SchedulerChoice) -> Result<SchedulerConfig, InvalidScheduler> {
        let overrides = match request {
            SchedulerChoice::Name(name) => overrides_of(name)?,
            SchedulerChoice::Object(overrides) => overrides.clone(),
        };
        let mut merged = model.clone();
        merged.extend(overrides.clone());
        let class = class_of(&merged)?;
        if let Some((key, words)) = class.exclusive_values {
            let is_own = |value: &Value| value.is_null() || value.as_str().is_some_and(|word| words.contains(&word));
            if !overrides.contains_key(key) && !merged.get(key).is_none_or(is_own) {
                merged.remove(key);
            }
        }
        // Keys that start with an underscore are diffusers' notes about the file.
        match overrides.keys().find(|key| !key.starts_with('_') && !class.has(key)) {
            Some(key) => Err(InvalidScheduler::UnknownKey { class: class.name, key: key.chars().take(80).collect() }),
            None => SchedulerConfig::of_class(class, Keys(&merged)),
        }
    }
}

/// The keys that a scheduler name sets.
pub(super) fn overrides_of(name: &str) -> Result<Map<String, Value>, InvalidScheduler> {
    let unknown = || InvalidScheduler::UnknownName { name: name.chars().take(80).collect() };
    let suffix = SUFFIXES.iter().find(|suffix| name.ends_with(suffix.text));
    let base = suffix.and_then(|suffix| name.strip_suffix(suffix.text)).unwrap_or(name);
    let (class, named) = named().find(|(_, named)| named.name == base).ok_or_else(unknown)?;
    let mut keys = Map::new();
    keys.insert("_class_name".to_owned(), class.name.into());
    if let Some((key, value)) = named.preset {
        keys.insert(key.to_owned(), value.into());
    }
    if let Some(suffix) = suffix {
        if !class.has(suffix.key) {
            return Err(unknown());
        }
        let others = RESPACING.into_iter().chain(["use_lu_lambdas", "use_flow_sigmas"]);
        for key in others.filter(|key| class.has(key)) {
            keys.insert(key.to_owned(), (key == suffix.key).into());
        }
    }
    Ok(keys)
}

/// A suffix of a scheduler name, which chooses the noise levels.
struct Suffix {
    text: &'static str,
    key: &'static str,
    description: &'static str,
}

const SUFFIXES: [Suffix; 3] = [
    Suffix { text: "_karras", key: RESPACING[0], description: "at the noise levels of Karras et al. (2022)" },
    Suffix { text: "_exponential", key: RESPACING[1], description: "at noise levels that fall exponentially" },
    Suffix { text: "_beta", key: RESPACING[2], description: "at noise levels spread by a beta distribution" },
];
