//! What other programs call samplers and noise levels: the words of AUTOMATIC1111's web interface, which the tools that read
//! its lines of text know.

use super::scheduler_config::{DpmSolver, Sampler, SchedulerConfig};
use super::sigmas::Respacing;
use super::spacing::Spacing;

/// A sampler and its noise levels, in those words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SamplerLabel {
    /// `Sampler`: the web interface's name, or, where it has no such sampler, the name of this API.
    pub sampler: String,
    /// `Schedule type`, where it says anything about this sampler.
    pub schedule_type: Option<&'static str>,
    /// What `eta` is called, where the sampler has one.
    pub eta: Option<&'static str>,
}

impl SchedulerConfig {
    /// The words for this configuration.
    pub fn label(&self) -> SamplerLabel {
        let (known, respacing) = match &self.sampler {
            Sampler::Ddim(_) => (Some(("DDIM", Levels::Own)), None),
            Sampler::Pndm { skip_prk_steps: true, .. } => (Some(("PLMS", Levels::Own)), None),
            Sampler::Euler(levels) => (Some(("Euler", Levels::Chosen)), levels.respacing),
            Sampler::EulerAncestral => (Some(("Euler a", Levels::Chosen)), None),
            Sampler::Heun { respacing, .. } => (Some(("Heun", Levels::Chosen)), *respacing),
            Sampler::Lms { respacing } => (Some(("LMS", Levels::Chosen)), *respacing),
            Sampler::Dpm2 { respacing, ancestral: false } => (Some(("DPM2", Levels::Chosen)), *respacing),
            Sampler::Dpm2 { respacing, ancestral: true } => (Some(("DPM2 a", Levels::Chosen)), *respacing),
            Sampler::DpmSde { respacing, .. } => (Some(("DPM++ SDE", Levels::Chosen)), *respacing),
            Sampler::DpmMultistep(options) => {
                (multistep(options.solver).map(|name| (name, Levels::Chosen)), options.respacing)
            }
            Sampler::UniPc(options) => (Some(("UniPC", Levels::Own)), options.respacing),
            Sampler::Lcm { .. } => (Some(("LCM", Levels::Own)), None),
            Sampler::DpmSinglestep(options) => (None, options.respacing),
            Sampler::Deis(options) => (None, options.respacing),
            Sampler::SaSolver(options) => (None, options.respacing),
            Sampler::FlowEuler { respacing, .. } => (None, *respacing),
            Sampler::Ddpm { .. }
            | Sampler::Pndm { skip_prk_steps: false, .. }
            | Sampler::Tcd { .. }
            | Sampler::Ipndm
            | Sampler::EdmEuler(_)
            | Sampler::EdmDpmMultistep(..)
            | Sampler::FlowHeun
            | Sampler::Consistency(_)
            | Sampler::ScoreSdeVe(_)
            | Sampler::ScoreSdeVp(_) => (None, None),
        };
        let schedule_type = match (respacing, known) {
            (Some(Respacing::Karras), _) => Some("Karras"),
            (Some(Respacing::Exponential), _) => Some("Exponential"),
            (Some(Respacing::Beta), _) => Some("Beta"),
            // Without a word the web interface takes what it holds best for the sampler, which is Karras for many.
            (None, Some((_, Levels::Chosen))) if self.spacing == Spacing::Trailing => Some("SGM Uniform"),
            (None, Some((_, Levels::Chosen))) => Some("Uniform"),
            (Some(Respacing::Lu), _) | (None, _) => None,
        };
        let sampler = known.map_or_else(|| self.own_name(), |(name, _)| name.to_owned());
        let eta = match &self.sampler {
            // Eta alone is that of the ancestral samplers, whose default there is 1.
            Sampler::Ddim(_) => Some("Eta DDIM"),
            Sampler::Tcd { .. } => Some("Eta"),
            _ => None,
        };
        SamplerLabel { sampler, schedule_type, eta }
    }

    /// The name of this API, or the class where no name stands for the configuration.
    fn own_name(&self) -> String {
        let order = match &self.sampler {
            Sampler::DpmMultistep(options) if options.solver.plus_plus && !options.solver.sde => options.solver.order,
            Sampler::DpmMultistep(_) => return self.class_name().to_owned(),
            _ => return self.name().unwrap_or(self.class_name()).to_owned(),
        };
        if order == 3 { "dpmpp_3m".to_owned() } else { self.class_name().to_owned() }
    }
}

/// Whether the web interface lets the noise levels of a sampler be chosen.
#[derive(Clone, Copy)]
enum Levels {
    Chosen,
    Own,
}

fn multistep(solver: DpmSolver) -> Option<&'static str> {
    match solver {
        DpmSolver { plus_plus: true, sde: false, order: 2, heun: false, .. } => Some("DPM++ 2M"),
        DpmSolver { plus_plus: true, sde: true, order: 2, heun: false, .. } => Some("DPM++ 2M SDE"),
        DpmSolver { plus_plus: true, sde: true, order: 2, heun: true, .. } => Some("DPM++ 2M SDE Heun"),
        DpmSolver { plus_plus: true, sde: true, order: 3, .. } => Some("DPM++ 3M SDE"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{diffusion::names, generation::SchedulerChoice};

    /// The words for a choice on a model of Stable Diffusion's kind.
    fn label(choice: SchedulerChoice) -> (String, Option<&'static str>) {
        let model = json!({"_class_name": "PNDMScheduler", "skip_prk_steps": true, "timestep_spacing": "leading"});
        let Value::Object(model) = model else { unreachable!("an object is written above") };
        let SamplerLabel { sampler, schedule_type, .. } = SchedulerConfig::overlay(&model, &choice).unwrap().label();
        (sampler, schedule_type)
    }

    #[test]
    fn every_name_has_its_words() {
        let expected = |name: &str| match name {
            "ddim" => "DDIM",
            "pndm" => "PLMS",
            "euler" => "Euler",
            "euler_a" => "Euler a",
            "heun" => "Heun",
            "lms" => "LMS",
            "dpm2" => "DPM2",
            "dpm2_a" => "DPM2 a",
            "dpmpp_2m" => "DPM++ 2M",
            "dpmpp_2m_sde" => "DPM++ 2M SDE",
            "dpmpp_sde" => "DPM++ SDE",
            "unipc" => "UniPC",
            "lcm" => "LCM",
            // The web interface has no such samplers.
            "ddpm" => "ddpm",
            "dpmpp_3m" => "dpmpp_3m",
            "dpmpp_2s" => "dpmpp_2s",
            "deis" => "deis",
            "tcd" => "tcd",
            "sa_solver" => "sa_solver",
            "ipndm" => "ipndm",
            "edm_euler" => "edm_euler",
            "flow_euler" => "flow_euler",
            "flow_heun" => "flow_heun",
            other => panic!("{other} has no words here"),
        };
        let suffixes = [("_karras", "Karras"), ("_exponential", "Exponential"), ("_beta", "Beta")];
        for named in names() {
            let suffix = suffixes.iter().find(|(suffix, _)| named.name.ends_with(suffix));
            let base = suffix.map_or(named.name.as_str(), |(suffix, _)| &named.name[..named.name.len() - suffix.len()]);
            let (sampler, schedule_type) = label(SchedulerChoice::Name(named.name.clone()));
            assert_eq!(sampler, expected(base), "{}", named.name);
            match suffix {
                Some((_, word)) => assert_eq!(schedule_type, Some(*word), "{}", named.name),
                None => assert!(matches!(schedule_type, None | Some("Uniform")), "{}: {schedule_type:?}", named.name),
            }
        }
    }

    #[test]
    fn objects_have_the_words_of_what_they_come_to() {
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
