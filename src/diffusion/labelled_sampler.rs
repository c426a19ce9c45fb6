//! Finds the scheduler for a sampler and a schedule type of AUTOMATIC1111's web interface. This is the inverse of
//! [`SchedulerConfig::label`], and is computed from that function, so that both directions share one table.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::sampler_label::SamplerLabel;
use super::scheduler_choice::{names, overrides_of};
use super::scheduler_config::SchedulerConfig;
use crate::generation::SchedulerChoice;

/// A scheduler, and the names of its sampler and noise levels in the web interface.
#[derive(Clone, Debug)]
pub struct LabelledSampler {
    pub choice: SchedulerChoice,
    pub label: SamplerLabel,
}

/// A schedule type of the web interface that this program supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleType {
    /// Name in requests, such as `sgm_uniform`.
    pub name: &'static str,
    /// Name that people see, such as `SGM Uniform`.
    pub label: &'static str,
}

/// The schedule types that a request may name. With the first one, the default, each sampler uses the noise levels that
/// the web interface chooses for it.
pub const SCHEDULE_TYPES: [ScheduleType; 6] = [
    ScheduleType { name: "automatic", label: "Automatic" },
    ScheduleType { name: "uniform", label: "Uniform" },
    ScheduleType { name: "karras", label: "Karras" },
    ScheduleType { name: "exponential", label: "Exponential" },
    ScheduleType { name: "sgm_uniform", label: "SGM Uniform" },
    ScheduleType { name: "beta", label: "Beta" },
];

/// Why there is no scheduler for a pair of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownLabel {
    Sampler,
    ScheduleType,
}

/// A scheduler for a pair of names.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub sampler: &'static LabelledSampler,
    /// Whether the requested schedule type has no effect, as in the web interface, because the sampler does not support
    /// it.
    pub ignores_schedule_type: bool,
}

/// All schedulers with their names. Each pair of sampler and schedule type occurs once.
static SAMPLERS: LazyLock<Vec<LabelledSampler>> = LazyLock::new(|| {
    let named = names().map(|named| SchedulerChoice::Name(named.name));
    let objects = objects().into_iter().map(SchedulerChoice::Object);
    let mut samplers: Vec<LabelledSampler> = Vec::new();
    for choice in named.chain(objects) {
        let Ok(config) = SchedulerConfig::overlay(&usual_model(), &choice) else { continue };
        let label = config.label();
        let same = |other: &LabelledSampler| {
            (&other.label.sampler, other.label.schedule_type) == (&label.sampler, label.schedule_type)
        };
        if !samplers.iter().any(same) {
            samplers.push(LabelledSampler { choice, label });
        }
    }
    samplers
});

/// The names of all samplers: the web interface's names, and this program's names of further samplers.
pub fn sampler_labels() -> Vec<&'static str> {
    let mut labels: Vec<&'static str> = Vec::new();
    for sampler in SAMPLERS.iter() {
        if !labels.contains(&sampler.label.sampler.as_str()) {
            labels.push(&sampler.label.sampler);
        }
    }
    labels
}

/// Finds the scheduler for a sampler, such as `DPM++ 2M`, and a schedule type, such as `Karras` or `karras`. The name
/// of the sampler may end with a schedule type (`DPM++ 2M Karras`), which applies if `schedule_type` is automatic or
/// absent. Names of `GET /v1/schedulers` are accepted too. Letter case does not matter.
///
/// # Errors
/// One of the two names is unknown.
pub fn labelled(sampler: &str, schedule_type: Option<&str>) -> Result<Found, UnknownLabel> {
    let automatic = SCHEDULE_TYPES[0];
    let asked = match schedule_type.map(str::trim).filter(|text| !text.is_empty()) {
        None => automatic,
        Some(text) => schedule_type_of(text).ok_or(UnknownLabel::ScheduleType)?,
    };
    let sampler = sampler.trim();
    if let Some(label) = known(sampler) {
        return Ok(find(label, asked));
    }
    let ending = SCHEDULE_TYPES.into_iter().find_map(|kind| Some((known(without_ending(sampler, kind.label)?)?, kind)));
    if let Some((label, kind)) = ending {
        return Ok(find(label, if asked == automatic { kind } else { asked }));
    }
    let own = |other: &&LabelledSampler| matches!(&other.choice, SchedulerChoice::Name(name) if name.eq_ignore_ascii_case(sampler));
    let own = SAMPLERS.iter().find(own).ok_or(UnknownLabel::Sampler)?;
    match asked == automatic {
        true => Ok(Found { sampler: own, ignores_schedule_type: false }),
        false => Ok(find(&own.label.sampler, asked)),
    }
}

fn schedule_type_of(text: &str) -> Option<ScheduleType> {
    let is = |name: &str| name.eq_ignore_ascii_case(text);
    SCHEDULE_TYPES.into_iter().find(|kind| is(kind.name) || is(kind.label))
}

/// Finds a sampler's name in the table, whatever its letter case, and returns the spelling of the table.
fn known(name: &str) -> Option<&'static str> {
    SAMPLERS.iter().map(|sampler| sampler.label.sampler.as_str()).find(|label| label.eq_ignore_ascii_case(name))
}

fn without_ending<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let at = name.len().checked_sub(ending.len())?;
    let (start, end) = name.split_at_checked(at)?;
    end.eq_ignore_ascii_case(ending).then(|| start.strip_suffix(' ')).flatten()
}

/// The scheduler for a known sampler at the noise levels of `asked`, or at the sampler's own noise levels if it does
/// not support the noise levels of `asked`.
fn find(sampler: &'static str, asked: ScheduleType) -> Found {
    let all = || SAMPLERS.iter().filter(move |other| other.label.sampler == sampler);
    let at = |word: &str| all().find(|other| other.label.schedule_type == Some(word));
    let own = all().find(|other| matches!(other.label.schedule_type, None | Some("Uniform")));
    let own = own.or_else(|| all().next()).expect("only names of the table are looked up");
    let is_automatic = asked == SCHEDULE_TYPES[0];
    match at(if is_automatic { automatic_type(sampler) } else { asked.label }) {
        Some(sampler) => Found { sampler, ignores_schedule_type: false },
        None => Found { sampler: own, ignores_schedule_type: !is_automatic },
    }
}

/// The schedule type that the web interface uses for a sampler if the request names none.
fn automatic_type(sampler: &str) -> &'static str {
    match sampler {
        "DPM++ 2M" | "DPM++ SDE" | "DPM2" | "DPM2 a" => "Karras",
        "DPM++ 2M SDE" | "DPM++ 2M SDE Heun" | "DPM++ 3M SDE" => "Exponential",
        _ => "Uniform",
    }
}

/// The keys that choose noise levels. In a configuration, at most one of them is true.
const FLAGS: [&str; 3] = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];

/// Configurations that no scheduler name stands for: two samplers of the multistep class, each with every kind of
/// levels, and the named samplers with `trailing` timesteps.
fn objects() -> Vec<Map<String, Value>> {
    let multistep = |keys: Value| {
        let mut object = Map::from_iter([
            ("_class_name".to_owned(), "DPMSolverMultistepScheduler".into()),
            ("algorithm_type".to_owned(), "sde-dpmsolver++".into()),
        ]);
        object.extend(FLAGS.map(|flag| (flag.to_owned(), false.into())));
        object.extend(keys.as_object().cloned().unwrap_or_default());
        object
    };
    let bases = [multistep(json!({"solver_order": 3})), multistep(json!({"solver_order": 2, "solver_type": "heun"}))];
    let with = |object: &Map<String, Value>, key: &str, value: Value| {
        let mut object = object.clone();
        object.insert(key.to_owned(), value);
        object
    };
    let respaced = bases.iter().flat_map(|base| FLAGS.map(|flag| with(base, flag, true.into())));
    let trailing = names().filter_map(|named| {
        let object = overrides_of(&named.name).ok()?;
        let is_respaced = FLAGS.iter().any(|flag| object.get(*flag) == Some(&Value::Bool(true)));
        (!is_respaced).then(|| with(&object, "timestep_spacing", "trailing".into()))
    });
    bases.iter().cloned().chain(respaced).chain(trailing).collect()
}

/// The scheduler configuration of a usual Stable Diffusion model. Merging a choice of the table into this configuration
/// gives the configuration whose label the table has.
fn usual_model() -> Map<String, Value> {
    Map::from_iter([
        ("_class_name".to_owned(), "PNDMScheduler".into()),
        ("skip_prk_steps".to_owned(), true.into()),
        ("timestep_spacing".to_owned(), "leading".into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sampler: &str, schedule_type: &str) -> (String, Option<&'static str>, bool) {
        let found = labelled(sampler, Some(schedule_type)).unwrap_or_else(|error| panic!("{sampler}: {error:?}"));
        let label = &found.sampler.label;
        (label.sampler.clone(), label.schedule_type, found.ignores_schedule_type)
    }

    fn name(sampler: &str, schedule_type: Option<&str>) -> String {
        match &labelled(sampler, schedule_type).unwrap().sampler.choice {
            SchedulerChoice::Name(name) => name.clone(),
            SchedulerChoice::Object(keys) => panic!("{sampler} is {keys:?}"),
        }
    }

    #[test]
    fn names_of_the_web_interface_are_those_of_this_program() {
        for (sampler, schedule_type, expected) in [
            ("Euler a", None, "euler_a"),
            ("Euler a", Some("automatic"), "euler_a"),
            ("euler A", Some("Uniform"), "euler_a"),
            ("Euler_A", None, "euler_a"),
            ("Euler", Some("Karras"), "euler_karras"),
            ("DPM++ 2M", Some("Karras"), "dpmpp_2m_karras"),
            ("DPM++ 2M", Some("karras"), "dpmpp_2m_karras"),
            ("DPM++ 2M", None, "dpmpp_2m_karras"),
            ("DPM++ 2M", Some("Uniform"), "dpmpp_2m"),
            ("DPM++ 2M Karras", None, "dpmpp_2m_karras"),
            ("DPM++ 2M Karras", Some("Automatic"), "dpmpp_2m_karras"),
            ("DPM++ 2M Karras", Some("Beta"), "dpmpp_2m_beta"),
            ("dpm++ sde karras", Some(""), "dpmpp_sde_karras"),
            ("DPM++ 2M SDE", None, "dpmpp_2m_sde_exponential"),
            ("DDIM", None, "ddim"),
            ("PLMS", None, "pndm"),
            ("UniPC", None, "unipc"),
            ("LCM", None, "lcm"),
            ("dpmpp_2m", None, "dpmpp_2m"),
            ("dpmpp_2m", Some("karras"), "dpmpp_2m_karras"),
            ("dpmpp_2m_karras", None, "dpmpp_2m_karras"),
            ("deis", None, "deis"),
        ] {
            assert_eq!(name(sampler, schedule_type), expected, "{sampler} {schedule_type:?}");
        }
    }

    #[test]
    fn every_pair_of_the_table_finds_itself() {
        for sampler in SAMPLERS.iter() {
            let SamplerLabel { sampler: name, schedule_type, .. } = &sampler.label;
            let Some(word) = schedule_type else { continue };
            assert_eq!(found(name, word), (name.clone(), *schedule_type, false), "{name} {word}");
        }
        for kind in SCHEDULE_TYPES.into_iter().skip(1) {
            assert_eq!(found("Euler", kind.label), ("Euler".to_owned(), Some(kind.label), false));
        }
    }

    #[test]
    fn samplers_without_a_name_are_objects() {
        assert_eq!(found("DPM++ 3M SDE", "automatic"), ("DPM++ 3M SDE".to_owned(), Some("Exponential"), false));
        assert_eq!(found("DPM++ 3M SDE Karras", ""), ("DPM++ 3M SDE".to_owned(), Some("Karras"), false));
        assert_eq!(found("DPM++ 2M SDE Heun", "Uniform"), ("DPM++ 2M SDE Heun".to_owned(), Some("Uniform"), false));
        assert_eq!(found("Euler", "SGM Uniform"), ("Euler".to_owned(), Some("SGM Uniform"), false));
    }

    #[test]
    fn samplers_with_their_own_levels_ignore_the_schedule_type() {
        let (_, schedule_type, ignores) = found("LCM", "Karras");
        assert_eq!((schedule_type, ignores), (None, true));
        assert!(!found("LCM", "Automatic").2);
    }

    #[test]
    fn unknown_names_are_told_apart() {
        assert_eq!(labelled("DPM adaptive", None).unwrap_err(), UnknownLabel::Sampler);
        assert_eq!(labelled("Euler", Some("Align Your Steps")).unwrap_err(), UnknownLabel::ScheduleType);
        assert_eq!(labelled("", None).unwrap_err(), UnknownLabel::Sampler);
        assert!(sampler_labels().contains(&"DPM++ 2M") && sampler_labels().contains(&"deis"));
    }
}
