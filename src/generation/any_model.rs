//! Checks of a request whose model is unknown or unavailable: the rules that do not depend on the model.

use std::sync::Arc;

use super::{
    Decoder, Draw, Fields, FilmCard, Levels, Limits, LogSnr, ModelCard, Motion, MotionAdapterCard, PromptSyntax, Rules,
    SchedulerChoice, SoundCard, Task, WorkKind, field::Bounds, table,
};

/// A permissive card: it allows the values and fields that at least one model of this kind allows.
pub(super) fn card(kind: WorkKind) -> ModelCard {
    let log_snr = Some(LogSnr { min: 0.0, max: 0.0 });
    // A rate that every file format allows.
    let sound = SoundCard { sample_rate: 48_000, channels: 1, default_seconds: 1.0, least_seconds: 0.0, log_snr };
    let film = FilmCard {
        // A number that every file format allows.
        default_frames: 2,
        frames_multiple: 1,
        default_fps: 1,
        motion: Some(Motion { min_guidance_scale: 1.0, motion_bucket_id: 0, noise_aug_strength: 0.0 }),
        decodes_in_chunks: true,
        has_second_guidance: true,
    };
    // A motion adapter may have any name.
    let motion_adapter = MotionAdapterCard { name: String::new(), max_frames: u32::MAX };
    let of_films = kind == WorkKind::Film;
    ModelCard {
        motion_adapters: of_films.then_some(motion_adapter).into_iter().collect(),
        default_motion_adapter: of_films.then(String::new),
        sound: (kind == WorkKind::Sound).then_some(sound),
        film: of_films.then_some(film),
        // A size that every file format allows.
        default_width: 64,
        default_height: 64,
        min_side_pixels: 1,
        size_multiple: 1,
        default_steps: 1,
        max_clip_skip: 4,
        takes_prompt: true,
        weighted_prompts: true,
        maps: vec![1],
        classifier_guidance: true,
        // The rules would look up the name of a scheduler; they accept an empty object without a search.
        default_scheduler: SchedulerChoice::Object(Default::default()),
        time_id_count: TIME_IDS,
        true_guidance: true,
        text_encoders: 3,
        sequence_lengths: Some((1, MAX_SEQUENCE)),
        skippable_layers: MAX_LAYERS,
        limits_guidance: true,
        tasks: vec![Task::TextToImage, Task::ImageToImage, Task::Inpaint, Task::ImageToVideo],
        decoders: vec![Decoder::Full, Decoder::Tiny],
        ..ModelCard::default()
    }
}

/// The number of time ids of SDXL, so that the fields of micro-conditioning are accepted.
const TIME_IDS: usize = 6;

/// The longest sequence of a text encoder, and the largest number of layers, that any model may have.
const MAX_SEQUENCE: u32 = 512;
const MAX_LAYERS: u32 = 256;

/// Takes the two fields that some models allow but [`card`] does not, because no model allows them together with all
/// fields of the card. `image_guidance_scale` is checked against its bounds; `class_label` is not checked.
pub(super) fn take_exclusive(fields: &mut Fields, on: &Bounds<'_>) {
    fields.get::<f64>(&table::IMAGE_GUIDANCE_SCALE, on);
    fields.take(table::CLASS_LABEL.name);
}

/// The server's rules, except for the checks that depend on the model.
pub(super) struct AnyModel<'a>(pub &'a dyn Rules, pub WorkKind);

impl Rules for AnyModel<'_> {
    fn limits(&self) -> &Limits {
        self.0.limits()
    }

    fn default_model(&self) -> &str {
        self.0.default_model()
    }

    /// The permissive card, if a model of this name exists. The request may name such a model as its refiner.
    fn card(&self, model: &str) -> Option<Arc<ModelCard>> {
        self.0.card(model).map(|_| Arc::new(card(self.1)))
    }

    fn fault(&self, model: &str) -> Option<String> {
        self.0.fault(model)
    }

    /// Checks only whether a scheduler of this name exists. Objects are not checked.
    fn check_scheduler(
        &self,
        card: &ModelCard,
        choice: &SchedulerChoice,
        steps: u32,
        _: Option<&Levels>,
    ) -> Result<u32, (String, String)> {
        match choice {
            SchedulerChoice::Name(_) => {
                // Not all schedulers take the levels of flow matching.
                let card = ModelCard { sound: None, ..card.clone() };
                match self.0.check_scheduler(&card, choice, steps, None) {
                    Err((key, detail)) if key.is_empty() => Err((key, detail)),
                    Ok(_) | Err(_) => Ok(steps),
                }
            }
            SchedulerChoice::Object(_) => Ok(steps),
        }
    }

    fn check_control(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        unknown(self.0.check_control(card, name))
    }

    fn check_lora(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        unknown(self.0.check_lora(card, name))
    }

    fn check_motion_adapter(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        unknown(self.0.check_motion_adapter(card, name))
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

/// Keeps an error about an unknown name, and drops an error about compatibility with the model.
fn unknown(checked: Result<(), (&'static str, String)>) -> Result<(), (&'static str, String)> {
    checked.or_else(|(code, detail)| match code {
        "unknown_lora" | "unknown_controlnet" | "unknown_motion_adapter" => Err((code, detail)),
        _ => Ok(()),
    })
}
