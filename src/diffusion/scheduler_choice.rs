//! What a request says about the scheduler: a name or a partial `scheduler_config.json`, laid over the model's own.

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::InvalidScheduler;
use super::scheduler_config::keys::{Keys, RESPACING};
use super::scheduler_config::{Class, SchedulerConfig};
use crate::generation::SchedulerChoice;

/// One line of `GET /v1/schedulers`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SchedulerName {
    pub name: String,
    pub description: String,
}

/// Every name that a request may give, with what it stands for.
pub fn names() -> impl Iterator<Item = SchedulerName> {
    NAMES.iter().flat_map(|base| {
        let plain = SchedulerName { name: base.name.to_owned(), description: base.description.to_owned() };
        let with_suffix = |suffix: &Suffix| SchedulerName {
            name: format!("{}{}", base.name, suffix.text),
            description: format!("{}, {}", base.description, suffix.description),
        };
        let suffixes = if base.class.has(RESPACING[0]) { &SUFFIXES[..] } else { &[] };
        std::iter::once(plain).chain(suffixes.iter().map(with_suffix))
    })
}

impl SchedulerConfig {
    /// The name whose overlay on a model of this class changes nothing, if there is one.
    pub fn name(&self) -> Option<&'static str> {
        NAMES.iter().find(|named| named.class.name() == self.class_name()).map(|named| named.name)
    }

    /// `Cls.from_config(model, **request)` of diffusers: the model's keys, the request's over them, the rest as the
    /// class has it.  Only the request's keys must be known to the class.  Unlike diffusers' class, `SASolverScheduler` takes
    /// its default where the model names an algorithm of another class.
    pub fn overlay(model: &Map<String, Value>, request: &SchedulerChoice) -> Result<SchedulerConfig, InvalidScheduler> {
        let overrides = match request {
            SchedulerChoice::Name(name) => overrides_of(name)?,
            SchedulerChoice::Object(overrides) => overrides.clone(),
        };
        let mut merged = model.clone();
        merged.extend(overrides.clone());
        let class = Class::of(&merged)?;
        // The algorithms of other classes, which this one has not: the model speaks of its own scheduler.
        if class == Class::SaSolver && !overrides.contains_key("algorithm_type") && !Keys(&merged).is_of_sa_solver() {
            merged.remove("algorithm_type");
        }
        // Keys with an underscore are diffusers' notes about the file.
        match overrides.keys().find(|key| !key.starts_with('_') && !class.has(key)) {
            Some(key) => Err(InvalidScheduler::UnknownKey { class: class.name(), key: key.chars().take(80).collect() }),
            None => SchedulerConfig::of_class(class, Keys(&merged)),
        }
    }
}

/// The keys that a name stands for.
fn overrides_of(name: &str) -> Result<Map<String, Value>, InvalidScheduler> {
    let unknown = || InvalidScheduler::UnknownName { name: name.chars().take(80).collect() };
    let suffix = SUFFIXES.iter().find(|suffix| name.ends_with(suffix.text));
    let base = suffix.and_then(|suffix| name.strip_suffix(suffix.text)).unwrap_or(name);
    let named = NAMES.iter().find(|named| named.name == base).ok_or_else(unknown)?;
    let mut keys = Map::new();
    keys.insert("_class_name".to_owned(), named.class.name().into());
    if let Some((key, value)) = named.preset {
        keys.insert(key.to_owned(), value.into());
    }
    if let Some(suffix) = suffix {
        if !named.class.has(suffix.key) {
            return Err(unknown());
        }
        let others = RESPACING.into_iter().chain(["use_lu_lambdas", "use_flow_sigmas"]);
        for key in others.filter(|key| named.class.has(key)) {
            keys.insert(key.to_owned(), (key == suffix.key).into());
        }
    }
    Ok(keys)
}

struct Named {
    name: &'static str,
    class: Class,
    preset: Option<(&'static str, Preset)>,
    description: &'static str,
}

#[derive(Clone, Copy)]
enum Preset {
    Word(&'static str),
    Number(u64),
}

impl From<Preset> for Value {
    fn from(preset: Preset) -> Value {
        match preset {
            Preset::Word(word) => word.into(),
            Preset::Number(number) => number.into(),
        }
    }
}

const fn named(name: &'static str, class: Class, description: &'static str) -> Named {
    Named { name, class, preset: None, description }
}

const NAMES: [Named; 23] = [
    named("ddpm", Class::Ddpm, "Ancestral sampling of Ho et al. (2020), noise in every step"),
    named("ddim", Class::Ddim, "Implicit sampling of Song et al. (2021), deterministic unless eta is given"),
    named("pndm", Class::Pndm, "Pseudo numerical method of Liu et al. (2022)"),
    named("euler", Class::Euler, "First-order solver of Karras et al. (2022)"),
    named("euler_a", Class::EulerAncestral, "Euler steps with ancestral noise"),
    named("heun", Class::Heun, "Second-order solver of Karras et al. (2022), two network calls a step"),
    named("lms", Class::Lms, "Linear multistep method of up to four steps"),
    named("dpm2", Class::Dpm2, "Midpoint method in the logarithm of the noise, two network calls a step"),
    named("dpm2_a", Class::Dpm2Ancestral, "Midpoint method with ancestral noise, two network calls a step"),
    named("dpmpp_2m", Class::DpmMultistep, "DPM-Solver++ of Lu et al. (2022), multistep, good from 15 steps on"),
    Named {
        preset: Some(("algorithm_type", Preset::Word("sde-dpmsolver++"))),
        ..named("dpmpp_2m_sde", Class::DpmMultistep, "DPM-Solver++ multistep with noise in every step")
    },
    Named {
        preset: Some(("solver_order", Preset::Number(3))),
        ..named("dpmpp_3m", Class::DpmMultistep, "DPM-Solver++ multistep of third order")
    },
    named("dpmpp_2s", Class::DpmSinglestep, "DPM-Solver++ singlestep of second order"),
    named("dpmpp_sde", Class::DpmSde, "DPM-Solver++ singlestep with noise along a path, two network calls a step"),
    named("unipc", Class::UniPc, "Predictor and corrector of Zhao et al. (2023), good from 10 steps on"),
    named("deis", Class::Deis, "Exponential integrator of Zhang and Chen (2023), multistep"),
    named("lcm", Class::Lcm, "Multistep consistency sampling of Luo et al. (2023), for models distilled for it"),
    named("tcd", Class::Tcd, "Trajectory consistency sampling of Zheng et al. (2024), for models distilled for it"),
    named("sa_solver", Class::SaSolver, "Stochastic Adams method of Xue et al. (2023), predictor and corrector"),
    named(
        "ipndm",
        Class::Ipndm,
        "Linear multistep method of up to four steps on a schedule of its own, for models trained on it",
    ),
    named("edm_euler", Class::EdmEuler, "First-order solver for models that were trained as in Karras et al. (2022)"),
    named("flow_euler", Class::FlowEuler, "Euler's method, for models that were trained by flow matching"),
    named(
        "flow_heun",
        Class::FlowHeun,
        "Heun's method, two network calls a step, for models that were trained by flow matching",
    ),
];

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
