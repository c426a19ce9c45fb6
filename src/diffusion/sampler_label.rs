//! Names of samplers and noise levels in AUTOMATIC1111's web interface, as written into the metadata of pictures for
//! other image tools.

use super::scheduler_config::{Label, SchedulerConfig};
use super::sigmas::Respacing;
use super::spacing::Spacing;

/// A sampler and its noise levels, in the words of AUTOMATIC1111's web interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SamplerLabel {
    /// Value of `Sampler`: the web interface's name. If the web interface has no such sampler: this API's name, or
    /// diffusers' class name if the API has no name for the sampler either.
    pub sampler: String,
    /// Value of `Schedule type`; `None` if the web interface has no word for the noise levels of this sampler.
    pub schedule_type: Option<&'static str>,
    /// The web interface's name of `eta`; `None` if the sampler does not use `eta`.
    pub eta: Option<&'static str>,
}

impl SchedulerConfig {
    /// The label of this configuration.
    pub fn label(&self) -> SamplerLabel {
        let label = self.sampler.label();
        let schedule_type = match (self.sampler.respacing(), label) {
            (Some(Respacing::Karras), _) => Some("Karras"),
            (Some(Respacing::Exponential), _) => Some("Exponential"),
            (Some(Respacing::Beta), _) => Some("Beta"),
            // Uniform levels are also named in the metadata: without a schedule type, the web interface would use its
            // default for the sampler, which is Karras for many samplers.
            (None, Label::WithLevels(_)) if self.spacing == Spacing::Trailing => Some("SGM Uniform"),
            (None, Label::WithLevels(_)) => Some("Uniform"),
            (Some(Respacing::Lu), _) | (None, _) => None,
        };
        let sampler = match label {
            Label::WithLevels(name) | Label::AtOwnLevels(name) | Label::Name(name) => name,
            Label::FirstName => self.name().unwrap_or(self.class_name()),
            Label::Class => self.class_name(),
        };
        SamplerLabel { sampler: sampler.to_owned(), schedule_type, eta: self.class.eta }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{diffusion::names, generation::SchedulerChoice};

    /// The label of a scheduler choice for a Stable Diffusion model.
    fn label(choice: SchedulerChoice) -> (String, Option<&'static str>) {
        let model = json!({"_class_name": "PNDMScheduler", "skip_prk_steps": true, "timestep_spacing": "leading"});
        let Value::Object(model) = model else { unreachable!("an object is written above") };
        let SamplerLabel { sampler, schedule_type, .. } = SchedulerConfig::overlay(&model, &choice).unwrap().label();
        (sampler, schedule_type)
    }

    #[test]
    fn every_scheduler_name_has_its_label() {
        let known = [
            ("ddim", "DDIM"),
            ("pndm", "PLMS"),
            ("euler", "Euler"),
            ("euler_a", "Euler a"),
            ("heun", "Heun"),
            ("lms", "LMS"),
            ("dpm2", "DPM2"),
            ("dpm2_a", "DPM2 a"),
            ("dpmpp_2m", "DPM++ 2M"),
            ("dpmpp_2m_sde", "DPM++ 2M SDE"),
            ("dpmpp_sde", "DPM++ SDE"),
            ("unipc", "UniPC"),
            ("lcm", "LCM"),
            // The web interface has no such samplers.
            ("ddpm", "ddpm"),
            ("dpmpp_3m", "dpmpp_3m"),
            ("dpmpp_2s", "dpmpp_2s"),
            ("deis", "deis"),
            ("tcd", "tcd"),
            ("sa_solver", "sa_solver"),
            ("ipndm", "ipndm"),
            ("edm_euler", "edm_euler"),
            ("flow_euler", "flow_euler"),
            ("flow_heun", "flow_heun"),
        ];
        assert!(known.iter().all(|(own, _)| names().any(|named| named.name == *own)));
        let suffixes = [("_karras", "Karras"), ("_exponential", "Exponential"), ("_beta", "Beta")];
        for named in names() {
            let suffix = suffixes.iter().find(|(suffix, _)| named.name.ends_with(suffix));
            let base = suffix.map_or(named.name.as_str(), |(suffix, _)| &named.name[..named.name.len() - suffix.len()]);
            let (sampler, schedule_type) = label(SchedulerChoice::Name(named.name.clone()));
            match known.iter().find(|(own, _)| *own == base) {
                Some((_, words)) => assert_eq!(sampler, *words, "{}", named.name),
                None => {
                    assert!(!known.iter().any(|(_, words)| sampler == *words), "{} has words of its own", named.name)
                }
            }
            match suffix {
                Some((_, word)) => assert_eq!(schedule_type, Some(*word), "{}", named.name),
                None => assert!(matches!(schedule_type, None | Some("Uniform")), "{}: {schedule_type:?}", named.name),
            }
        }
    }

    #[test]
    fn a_scheduler_object_has_the_label_of_the_configuration_that_results_from_it() {
        let of = |object: Value| {
            let Value::Object(map) = object else { unreachable!("objects are written below") };
            label(SchedulerChoice::Object(map))
        };
        let own = |sampler: &str, schedule_type| (sampler.to_owned(), schedule_type);
        assert_eq!(of(json!({})), own("PLMS", None));
        assert_eq!(of(json!({"skip_prk_steps": false})), own("pndm", None));
        let euler = json!({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true});
        assert_eq!(of(euler), own("Euler", Some("Karras")));
        let trailing = json!({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"});
        assert_eq!(of(trailing), own("Euler", Some("SGM Uniform")));
        let sde = json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++",
            "solver_order": 3, "use_lu_lambdas": true});
        assert_eq!(of(sde), own("DPM++ 3M SDE", None));
        let first = json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver",
            "final_sigmas_type": "sigma_min"});
        assert_eq!(of(first), own("DPMSolverMultistepScheduler", None));
    }
}
