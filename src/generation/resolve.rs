//! From the fields of a request to a valid generation, or to everything that is wrong with it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{
    Control, Decoder, Encoding, FeatureCache, FieldError, Fields, Generation, GuidanceInterval, Levels, Limits,
    LoraUse, ModelCard, OnDisconnect, PromptSyntax, Refiner, SchedulerChoice, Sdxl, SeedMode, Source, Webhook,
    any_model::{self, AnyModel},
    size,
};

/// Every error of a request, at least one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} of the request's fields are invalid", FieldError::count(errors))]
pub struct Invalid {
    pub errors: Vec<FieldError>,
}

/// What a request is held against.
pub trait Rules {
    fn limits(&self) -> &Limits;
    fn default_model(&self) -> &str;
    fn card(&self, model: &str) -> Option<Arc<ModelCard>>;
    /// Why a model that is known has no card; `None` for an unknown one.
    fn fault(&self, _model: &str) -> Option<String> {
        None
    }
    /// Whether the model can be sampled with this scheduler in so many steps, or over these levels in place of them: in how
    /// many steps then. The error says what is wrong with which key (`""` where it is the choice as a whole, `steps`,
    /// `sigmas` or `timesteps` where it is they).
    fn check_scheduler(
        &self,
        card: &ModelCard,
        choice: &SchedulerChoice,
        steps: u32,
        levels: Option<&Levels>,
    ) -> Result<u32, (String, String)>;
    /// Whether a ControlNet of this name can be used with the model; the error is a code and what is wrong.
    fn check_control(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)>;
    /// Whether a LoRA of this name can be used with the model; the error is a code and what is wrong.
    fn check_lora(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)>;
    /// Whether the model can use the learned words that a prompt has; the errors are codes and what is wrong.
    fn check_words(&self, card: &ModelCard, syntax: PromptSyntax, text: &str) -> Vec<(&'static str, String)>;
    /// Whether the generation's steps can be run, by its own model and its refiner. The error is the path of the field that
    /// leaves no step or asks for what a scheduler cannot do, and what is wrong.
    fn check_stages(&self, card: &ModelCard, generation: &Generation) -> Result<(), (Vec<&'static str>, String)>;
    /// The seed of a request that names none, in 0..2^32.
    fn random_seed(&self) -> u64;
}

/// Fills every default and checks every bound.
///
/// # Errors
/// All invalid, conflicting and unknown fields at once, each with its JSON pointer and bound.
pub fn resolve(mut fields: Fields, rules: &dyn Rules) -> Result<Generation, Invalid> {
    let model = fields.text("model", 128).unwrap_or_else(|| rules.default_model().to_owned());
    let Some(card) = rules.card(&model).filter(|_| !fields.is_faulty("model")) else {
        return Err(without_model(fields, model, rules));
    };
    let generation = read(&mut fields, model, &card, rules);
    if !fields.has_errors()
        && let Err((path, detail)) = rules.check_stages(&card, &generation)
    {
        fields.error_at(&path, "out_of_range", detail);
    }
    match fields.finish() {
        errors if errors.is_empty() => Ok(generation),
        errors => Err(Invalid { errors }),
    }
}

/// The errors of a request whose model cannot be used: that, and what is wrong whatever the model.
fn without_model(mut fields: Fields, model: String, rules: &dyn Rules) -> Invalid {
    if !fields.is_faulty("model") {
        match rules.fault(&model) {
            Some(fault) => fields.error("model", "model_unavailable", format!("{model:?} cannot be used: {fault}")),
            None => {
                let detail = format!("{model:?} is not in the catalogue; GET /v1/models lists the models");
                fields.error("model", "unknown_model", detail);
            }
        }
    }
    any_model::take_exclusive(&mut fields);
    read(&mut fields, model, &any_model::card(), &AnyModel(rules));
    Invalid { errors: fields.finish() }
}

/// Reads all fields; what is wrong with them is in `fields`.
fn read(fields: &mut Fields, model: String, card: &ModelCard, rules: &dyn Rules) -> Generation {
    let limits = rules.limits();
    let prompt = prompt(fields, limits);
    let (prompt, loras) = LoraUse::read(fields, prompt, card, rules);
    let negative_prompt = fields.text("negative_prompt", limits.max_prompt_chars);
    let source = Source::read(fields, card);
    let default_size = match &source {
        Some(source) => source.size(card, limits),
        None => (card.default_width, card.default_height),
    };
    let (width, height) = size::read(fields, default_size, card, limits);
    let n = integer(fields, "n", 1, limits.max_images, 1);
    let levels = Levels::read(fields, limits);
    let steps = steps(fields, card, limits, levels.as_ref());
    let (scheduler, steps) = scheduler(fields, card, rules, steps, levels.as_ref());
    // Looked at before `denoising_end` is taken, which it excludes.
    let refiner = Refiner::read(fields, card, rules, limits.max_prompt_chars);
    if let (Some(levels), Some(_)) = (&levels, &refiner) {
        fields.error(levels.name(), "conflict", "excludes refiner, whose model has a scheduler of its own");
    }
    // A refiner may take a negative prompt that nobody gave for another thing than an empty one.
    let refiner_card = refiner.as_ref().and_then(|refiner| rules.card(&refiner.model));
    let zero_negative = card.zero_negative || refiner_card.is_some_and(|card| card.zero_negative);
    let negative_prompt = negative_prompt.or_else(|| (!zero_negative).then(String::new));
    let sdxl = Sdxl::read(fields, card, (width, height), source.is_some(), limits.max_prompt_chars);
    let controls = Control::read(fields, card, rules);
    let feature_cache = FeatureCache::read(fields);
    if feature_cache.is_some() && !controls.is_empty() {
        fields.error("feature_cache", "conflict", "excludes controls, whose networks act on what it would keep");
    }
    let (encoding, metadata_level) = Encoding::read(fields);
    encoding.check_size(fields, width, height);
    let generation = Generation {
        prompt,
        negative_prompt,
        prompt_syntax: fields.choice("prompt_syntax", &["plain", "weighted"]).unwrap_or(PromptSyntax::Plain),
        loras,
        width,
        height,
        n,
        steps,
        levels,
        guidance_scale: fields
            .number("guidance_scale", 0.0, 30.0)
            .unwrap_or_else(|| card.guidance_scale(source.as_ref().is_some_and(|source| source.mask.is_some()))),
        guidance_rescale: fields.number("guidance_rescale", 0.0, 1.0).unwrap_or(0.0),
        guidance_interval: GuidanceInterval::read(fields).unwrap_or_default(),
        scheduler,
        eta: fields.number("eta", 0.0, 1.0).unwrap_or(0.0),
        clip_skip: integer(fields, "clip_skip", 0, card.max_clip_skip, 0),
        decoder: Decoder::read(fields, card).unwrap_or_default(),
        feature_cache,
        sdxl,
        refiner,
        controls,
        source,
        seed: fields.integer("seed", 0, i64::MAX as u64).unwrap_or_else(|| rules.random_seed()),
        seed_mode: fields.choice("seed_mode", &["per_image", "batch"]).unwrap_or(SeedMode::PerImage),
        previews: integer(fields, "previews", 0, 10, 0),
        encoding,
        metadata_level,
        on_disconnect: fields.choice("on_disconnect", &["auto", "keep", "cancel"]).unwrap_or(OnDisconnect::Auto),
        priority: fields.choice("priority", &["low", "normal", "high"]).unwrap_or_default(),
        run_timeout_s: fields.integer("run_timeout_s", 1, 3600).and_then(|seconds| u32::try_from(seconds).ok()),
        start_timeout_s: integer(fields, "start_timeout_s", 1, 86_400, 600),
        webhook: Webhook::read(fields),
        metadata: metadata(fields),
        model,
    };
    check_words(fields, &generation, card, rules);
    generation
}

fn integer(fields: &mut Fields, name: &str, min: u32, max: u32, default: u32) -> u32 {
    let number = fields.integer(name, u64::from(min), u64::from(max));
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
}

/// Refuses learned words that the model cannot use.
fn check_words(fields: &mut Fields, generation: &Generation, card: &ModelCard, rules: &dyn Rules) {
    let Generation { prompt, negative_prompt, sdxl, prompt_syntax, .. } = generation;
    let second = |text: fn(&Sdxl) -> &Option<String>| sdxl.as_ref().and_then(|sdxl| text(sdxl).as_ref());
    let texts = [
        ("prompt", Some(prompt)),
        ("negative_prompt", negative_prompt.as_ref()),
        ("prompt_2", second(|sdxl| &sdxl.prompt_2)),
        ("negative_prompt_2", second(|sdxl| &sdxl.negative_prompt_2)),
    ];
    for (name, text) in texts {
        for (code, detail) in text.map(|text| rules.check_words(card, *prompt_syntax, text)).unwrap_or_default() {
            fields.error(name, code, detail);
        }
    }
}

fn prompt(fields: &mut Fields, limits: &Limits) -> String {
    match fields.take("prompt") {
        None => {
            fields.error("prompt", "required", "is required (\"\" is allowed)");
            String::new()
        }
        Some(value) => {
            fields.put_back("prompt", value);
            fields.text("prompt", limits.max_prompt_chars).unwrap_or_default()
        }
    }
}

/// The steps asked for, none where levels are named in their place.
fn steps(fields: &mut Fields, card: &ModelCard, limits: &Limits, levels: Option<&Levels>) -> Option<u32> {
    let alias = fields.take("num_inference_steps");
    match (fields.take("steps"), alias) {
        (Some(_), Some(_)) => fields.error("steps", "conflict", "excludes its alias num_inference_steps"),
        (Some(value), None) | (None, Some(value)) => fields.put_back("steps", value),
        (None, None) => {}
    }
    let steps = fields.integer("steps", 1, u64::from(limits.max_steps)).and_then(|steps| u32::try_from(steps).ok());
    steps.or(if levels.is_none() { Some(card.default_steps) } else { None })
}

/// The choice, and in how many steps it is run.
fn scheduler(
    fields: &mut Fields,
    card: &ModelCard,
    rules: &dyn Rules,
    steps: Option<u32>,
    levels: Option<&Levels>,
) -> (SchedulerChoice, u32) {
    let asked = steps.unwrap_or(card.default_steps);
    let choice = match fields.take("scheduler") {
        None => card.default_scheduler.clone(),
        Some(Value::String(name)) => {
            fields.put_back("scheduler", Value::String(name));
            match fields.text("scheduler", 128) {
                Some(name) => SchedulerChoice::Name(name),
                None => return (card.default_scheduler.clone(), asked),
            }
        }
        Some(Value::Object(map)) => {
            if let Some(key) = SchedulerChoice::key_of_long_text(&map) {
                fields.error_below("scheduler", key, "out_of_range", "must not hold texts of more than 128 characters");
                return (card.default_scheduler.clone(), asked);
            }
            SchedulerChoice::Object(map)
        }
        Some(other) => {
            fields.wrong_type::<()>("scheduler", "a name or an object", &other);
            return (card.default_scheduler.clone(), asked);
        }
    };
    match rules.check_scheduler(card, &choice, asked, levels) {
        Ok(run) => {
            // A request that names levels may say again what they come to, as `params` does.
            if levels.is_some() && steps.is_some_and(|steps| steps != run) {
                fields.error(
                    "steps",
                    "conflict",
                    format!("must be left out or the {run} that its list of levels makes"),
                );
            }
            return (choice, run);
        }
        Err((key, _)) if fields.is_faulty(&key) && !key.is_empty() => {}
        Err((key, detail)) => match key.as_str() {
            "steps" | "sigmas" | "timesteps" => fields.error(&key, "out_of_range", detail),
            "" => fields.error("scheduler", "invalid_value", detail),
            key => fields.error_below("scheduler", key, "invalid_value", detail),
        },
    }
    (choice, asked)
}

/// At most 16 labels with keys up to 64 and values up to 512 characters.
fn metadata(fields: &mut Fields) -> BTreeMap<String, String> {
    let map: Map<String, Value> = fields.object("metadata").unwrap_or_default();
    if map.len() > 16 {
        fields.error("metadata", "out_of_range", format!("must have at most 16 pairs, not {}", map.len()));
        return BTreeMap::new();
    }
    let mut metadata = BTreeMap::new();
    for (key, value) in map {
        match value {
            Value::String(text) if text.chars().count() <= 512 && (1..=64).contains(&key.chars().count()) => {
                metadata.insert(key, text);
            }
            _ => fields.error_below(
                "metadata",
                &key,
                "invalid_value",
                "must be a string of at most 512 characters under a key of 1 to 64 characters",
            ),
        }
    }
    metadata
}
