//! The rules for requests: the operator's limits, the models' cards and the schedulers.

use std::sync::Arc;

use crate::{
    catalogue::Catalogue,
    diffusion::{BaseSchedule, InvalidScheduler, InvalidStage, InvalidSteps, SchedulerConfig, Stages},
    generation::{Draw, Levels, Limits, ModelCard, PromptSyntax, Rules, SchedulerChoice},
};

/// The rules of a server with this catalogue and these limits.
#[derive(Debug)]
pub struct CatalogueRules<'a> {
    pub catalogue: &'a Catalogue,
    pub limits: &'a Limits,
}

impl Rules for CatalogueRules<'_> {
    fn limits(&self) -> &Limits {
        self.limits
    }

    fn default_model(&self) -> &str {
        self.catalogue.default_name()
    }

    fn card(&self, model: &str) -> Option<Arc<ModelCard>> {
        self.catalogue.card(model)
    }

    fn fault(&self, model: &str) -> Option<String> {
        self.catalogue.fault(model)
    }

    fn check_scheduler(
        &self,
        card: &ModelCard,
        choice: &SchedulerChoice,
        steps: u32,
        levels: Option<&Levels>,
    ) -> Result<u32, (String, String)> {
        let config = SchedulerConfig::overlay(&card.scheduler_config, choice).map_err(|error| {
            let key = match &error {
                InvalidScheduler::UnknownKey { key, .. } | InvalidScheduler::Value { key, .. } => key.clone(),
                _ => String::new(),
            };
            let hint = match &error {
                InvalidScheduler::UnknownName { .. } => "; GET /v1/schedulers lists the names",
                InvalidScheduler::UnknownKey { key, .. } if ["name", "type", "class"].contains(&key.as_str()) => {
                    "; the key of the class is _class_name; to choose a scheduler by its name, give a string instead \
                     of an object"
                }
                _ => "",
            };
            (key, format!("cannot be used: {error}{hint}"))
        })?;
        if card.own_scheduler_class_only {
            let own = SchedulerConfig::overlay(&card.scheduler_config, &SchedulerChoice::Object(Default::default()));
            if let Some(own) = own.ok().map(|own| own.class_name()).filter(|own| *own != config.class_name()) {
                return Err((String::new(), format!("cannot be used: the scheduler of this model is always {own}")));
            }
        }
        if config.learns_variance() && !card.predicts_variance {
            let detail = "cannot be learned_range: the network of this model predicts no variance";
            return Err(("variance_type".to_owned(), detail.to_owned()));
        }
        let base = BaseSchedule { config: &config, is_distilled: card.guidance_embedding, flow: card.flow };
        // The range of a request for sounds is not known here, but all ranges that a request may have are valid.
        let of_sound = card.sound.and_then(|sound| sound.log_snr);
        let of_sound = of_sound.map(|range| Levels::Sigmas(range.sigmas(steps as usize)));
        // The size of the request is not known here, but no size makes a difference for the validity of steps.
        let size = [card.default_width, card.default_height];
        let whole = base.whole(steps as usize, levels.or(of_sound.as_ref()), size);
        let schedule = whole.map_err(|error| match (levels, &error) {
            (None, InvalidSteps::NoList { class, .. }) => {
                let reason =
                    format!("this model chooses the noise levels, and {class} with this configuration takes none");
                (String::new(), format!("cannot be used: {reason}"))
            }
            // No number of steps helps.
            (None, InvalidSteps::Degenerate | InvalidSteps::NoSize | InvalidSteps::ZeroSignal { .. }) => {
                (String::new(), format!("cannot be used: {error}"))
            }
            (None, _) => ("steps".to_owned(), format!("cannot be {steps}: {error}")),
            (Some(levels), _) => (levels.name().to_owned(), format!("cannot be used: {error}")),
        })?;
        Ok(if levels.is_some() { schedule.steps().len() as u32 } else { steps })
    }

    fn check_control(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        self.catalogue.control_nets().check(card, name)
    }

    fn check_motion_adapter(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        self.catalogue.control_nets().check_motion(card, name)
    }

    fn check_lora(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        self.catalogue.check_lora(&card.name, name)
    }

    fn check_words(&self, card: &ModelCard, syntax: PromptSyntax, text: &str) -> Vec<(&'static str, String)> {
        self.catalogue.adapters().check_words(card, syntax, text)
    }

    fn check_stages(&self, card: &ModelCard, draw: &Draw) -> Result<(), (Vec<&'static str>, String)> {
        let config = |card: &ModelCard, who: &str| {
            SchedulerConfig::overlay(&card.scheduler_config, &draw.scheduler)
                .map_err(|error| (vec!["scheduler"], format!("cannot be used with {who}: {error}")))
        };
        let refiner = draw.refiner.as_ref().and_then(|refiner| self.catalogue.card(&refiner.model));
        let refiner = refiner.map(|card| config(&card, "the refiner")).transpose()?;
        let config = config(card, "the model")?;
        let base = BaseSchedule { config: &config, is_distilled: card.guidance_embedding, flow: card.flow };
        let stages = Stages::of(draw, base, refiner.as_ref());
        stages.map(drop).map_err(|InvalidStage { field, error }| (field.to_vec(), error.to_string()))
    }

    /// A random seed of 32 bits: torch's generator uses no more, and people can read and type it.
    fn random_seed(&self) -> u64 {
        // If the system has no entropy, the low bits of a new UUID serve as the seed.
        getrandom::u32().map_or_else(|_| uuid::Uuid::now_v7().as_u128() as u64 & 0xffff_ffff, u64::from)
    }
}
