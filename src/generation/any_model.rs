//! What is wrong with a request whatever its model: what a request is held against whose model cannot be used.

use std::sync::Arc;

use super::{
    Decoder, Draw, Fields, Levels, Limits, ModelCard, PromptSyntax, Rules, SchedulerChoice, Task, field::Bounds, table,
};

/// The card of a model that allows whatever some model allows.
pub(super) fn card() -> ModelCard {
    ModelCard {
        default_width: 1,
        default_height: 1,
        min_side_pixels: 1,
        size_multiple: 1,
        default_steps: 1,
        max_clip_skip: 4,
        takes_prompt: true,
        // Not a name, which would be looked up.
        default_scheduler: SchedulerChoice::Object(Default::default()),
        time_ids: TIME_IDS,
        tasks: vec![Task::TextToImage, Task::ImageToImage, Task::Inpaint],
        decoders: vec![Decoder::Full, Decoder::Tiny],
        ..ModelCard::default()
    }
}

/// As models of SDXL's kind have them, whose fields others refuse.
const TIME_IDS: usize = 6;

/// Takes the fields that some models refuse together with others that the card allows; their bounds are checked.
pub(super) fn take_exclusive(fields: &mut Fields, on: &Bounds<'_>) {
    fields.get::<f64>(&table::IMAGE_GUIDANCE_SCALE, on);
    fields.take(table::CLASS_LABEL.name);
}

/// Rules without what depends on the model.
pub(super) struct AnyModel<'a>(pub &'a dyn Rules);

impl Rules for AnyModel<'_> {
    fn limits(&self) -> &Limits {
        self.0.limits()
    }

    fn default_model(&self) -> &str {
        self.0.default_model()
    }

    /// Of another model that the request names: one that fits any.
    fn card(&self, model: &str) -> Option<Arc<ModelCard>> {
        self.0.card(model).map(|_| Arc::new(card()))
    }

    fn fault(&self, model: &str) -> Option<String> {
        self.0.fault(model)
    }

    /// Of names, whether there is such a scheduler.
    fn check_scheduler(
        &self,
        card: &ModelCard,
        choice: &SchedulerChoice,
        steps: u32,
        _: Option<&Levels>,
    ) -> Result<u32, (String, String)> {
        match choice {
            SchedulerChoice::Name(_) => match self.0.check_scheduler(card, choice, steps, None) {
                Err((key, detail)) if key.is_empty() => Err((key, detail)),
                Ok(_) | Err(_) => Ok(steps),
            },
            SchedulerChoice::Object(_) => Ok(steps),
        }
    }

    fn check_control(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        unknown(self.0.check_control(card, name))
    }

    fn check_lora(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        unknown(self.0.check_lora(card, name))
    }

    fn check_words(&self, _: &ModelCard, _: PromptSyntax, _: &str) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn check_stages(&self, _: &ModelCard, _: &Draw) -> Result<(), (Vec<&'static str>, String)> {
        Ok(())
    }

    fn random_seed(&self) -> u64 {
        0
    }
}

/// Whether there is something of the name; whether a model can use it is not known.
fn unknown(checked: Result<(), (&'static str, String)>) -> Result<(), (&'static str, String)> {
    checked.or_else(|(code, detail)| match code {
        "unknown_lora" | "unknown_controlnet" => Err((code, detail)),
        _ => Ok(()),
    })
}
