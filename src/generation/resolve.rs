//! Turns the fields of a request into a job, or into the list of all errors.

mod film;
mod sound;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{
    ControlUse, Decoder, Draw, FeatureCache, FieldError, Fields, FurtherPrompts, GuidanceLimits, ImageInfluence, Job,
    Levels, Limits, LoraUse, MAX_CHUNKS, MicroConditioning, ModelCard, Output, PromptSyntax, Refiner, SafetyPolicy,
    SchedulerChoice, SkipLayerGuidance, Source, Webhook, Work, WorkKind,
    any_model::{self, AnyModel},
    class_label,
    field::{Bounds, Kind},
    least_chunks, size, table, weighted,
};

/// All errors of an invalid request; at least one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", FieldError::summary(errors))]
pub struct Invalid {
    pub errors: Vec<FieldError>,
}

/// The rules that a request must comply with.
pub trait Rules {
    fn limits(&self) -> &Limits;
    fn default_model(&self) -> &str;
    /// The card of a model; `None` if the model is unknown or cannot be used.
    fn card(&self, model: &str) -> Option<Arc<ModelCard>>;
    /// Why a known model cannot be used and has no card; `None` for an unknown model.
    fn fault(&self, _model: &str) -> Option<String> {
        None
    }
    /// Checks whether this scheduler can sample the model in `steps` steps or, if there are `levels`, over these noise
    /// levels. Returns the number of steps.
    ///
    /// # Errors
    /// The wrong key of the scheduler's object, and a description. The key is `""` if the choice as a whole is wrong,
    /// and `steps`, `sigmas` or `timesteps` if one of these fields is wrong.
    fn check_scheduler(
        &self,
        card: &ModelCard,
        choice: &SchedulerChoice,
        steps: u32,
        levels: Option<&Levels>,
    ) -> Result<u32, (String, String)>;
    /// Checks whether a ControlNet of this name can be used with the model. The error is a code and a description.
    fn check_control(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)>;
    /// Checks whether a LoRA of this name can be used with the model. The error is a code and a description.
    fn check_lora(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)>;
    /// Checks whether the model can make films with the motion adapter of this name. The error is a code and a
    /// description.
    fn check_motion_adapter(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)>;
    /// Checks whether the model can use the textual inversions in a prompt. Each error is a code and a description.
    fn check_words(&self, card: &ModelCard, syntax: PromptSyntax, text: &str) -> Vec<(&'static str, String)>;
    /// Checks that the model and the refiner each have a step to compute, and that their schedulers can compute these
    /// steps. The error is the path of the field that prevents this, and a description.
    fn check_stages(&self, card: &ModelCard, draw: &Draw) -> Result<(), (Vec<&'static str>, String)>;
    /// A seed, in 0..2^32, for a request without a seed.
    fn random_seed(&self) -> u64;
}

/// [`resolve_work`] for a request that draws pictures.
///
/// # Errors
/// As [`resolve_work`].
pub fn resolve(fields: Fields, rules: &dyn Rules) -> Result<Job, Invalid> {
    resolve_work(WorkKind::Draw, fields, rules)
}

/// Sets all defaults and checks all bounds of a request for work of this kind.
///
/// # Errors
/// All invalid, conflicting and unknown fields at once, each with its JSON pointer and bound.
pub fn resolve_work(kind: WorkKind, mut fields: Fields, rules: &dyn Rules) -> Result<Job, Invalid> {
    let named = fields.text("model", 128);
    let is_named = named.is_some();
    let model = named.unwrap_or_else(|| rules.default_model().to_owned());
    let card = rules.card(&model).filter(|_| !fields.is_faulty("model"));
    let Some(card) = card.filter(|card| is_of_kind(&mut fields, kind, is_named, card)) else {
        return Err(without_model(kind, fields, model, rules));
    };
    let on = Bounds { card: &card, limits: rules.limits() };
    let job = read(kind, &mut fields, model, &on, rules);
    if !fields.has_errors()
        && let Some(draw) = job.work.draw()
        && let Err((path, detail)) = rules.check_stages(&card, draw)
    {
        fields.error_at(&path, "out_of_range", detail);
    }
    match fields.finish() {
        errors if errors.is_empty() => Ok(job),
        errors => Err(Invalid { errors }),
    }
}

/// Whether the model does this kind of work. If not, adds an error.
fn is_of_kind(fields: &mut Fields, kind: WorkKind, is_named: bool, card: &ModelCard) -> bool {
    let other = card.work_kind();
    if card.does(kind) {
        return true;
    }
    let may_move = kind == WorkKind::Film && card.motion_groups.is_some();
    let hint = if may_move { ", and makes films only with a motion adapter that fits it" } else { "" };
    if is_named {
        let (root, name) = (other.root(), &card.name);
        let detail = format!("cannot be {name:?} here: this model {}{hint}; send the request to {root}", other.does());
        fields.error("model", "unsupported_for_model", detail);
    } else {
        let detail =
            format!("is required, because the default model {}{hint}; GET /v1/models lists the models", other.does());
        fields.error("model", "required", detail);
    }
    false
}

/// The errors of a request whose model cannot be used, including all errors that do not depend on the model.
fn without_model(kind: WorkKind, mut fields: Fields, model: String, rules: &dyn Rules) -> Invalid {
    if !fields.is_faulty("model") {
        match rules.fault(&model) {
            Some(fault) => fields.error("model", "model_unavailable", format!("{model:?} cannot be used: {fault}")),
            None => {
                let detail = format!("{model:?} is not in the catalogue; GET /v1/models lists the models");
                fields.error("model", "unknown_model", detail);
            }
        }
    }
    let card = any_model::card(kind);
    let on = Bounds { card: &card, limits: rules.limits() };
    if kind == WorkKind::Draw {
        any_model::take_exclusive(&mut fields, &on);
    }
    read(kind, &mut fields, model, &on, &AnyModel(rules, kind));
    Invalid { errors: fields.finish() }
}

/// Reads all fields. The errors are in `fields`.
fn read(kind: WorkKind, fields: &mut Fields, model: String, on: &Bounds<'_>, rules: &dyn Rules) -> Job {
    fields.expect(kind.fields());
    fields.refuse_untaken(kind.fields(), on);
    match kind {
        WorkKind::Draw => {
            let draw = read_draw(fields, on, rules);
            let output = Output::read(fields, on);
            output.encoding.check_size(fields, draw.width, draw.height);
            let previews = fields.get_or_default(&table::PREVIEWS, on);
            envelope(fields, model, on, Work::Draw(draw), (previews, output))
        }
        WorkKind::Sound => sound::read(fields, model, on, rules),
        WorkKind::Film => film::read(fields, model, on, rules),
    }
}

/// Reads the fields that do not depend on the kind of work.
fn envelope(fields: &mut Fields, model: String, on: &Bounds<'_>, work: Work, (previews, output): (u32, Output)) -> Job {
    Job {
        model,
        work,
        precision: fields.get_or_default(&table::PRECISION, on),
        previews,
        output,
        on_disconnect: fields.get_or_default(&table::ON_DISCONNECT, on),
        priority: fields.get_or_default(&table::PRIORITY, on),
        start_timeout_s: fields.get_or_default(&table::START_TIMEOUT_S, on),
        run_timeout_s: fields.get(&table::RUN_TIMEOUT_S, on),
        webhook: Webhook::read(fields),
        metadata: metadata(fields),
        warnings: Vec::new(),
        safety: SafetyPolicy::Off,
        trace: None,
    }
}

fn read_draw(fields: &mut Fields, on: &Bounds<'_>, rules: &dyn Rules) -> Draw {
    let Bounds { card, limits } = *on;
    let prompt = prompt(fields, on);
    let (prompt, loras) = LoraUse::read(fields, prompt, on, rules);
    let negative_prompt: Option<String> = fields.get(&table::NEGATIVE_PROMPT, on);
    let source = Source::read(fields, on);
    let default_size = match &source {
        Some(source) => source.size(card, limits),
        None => (card.default_width, card.default_height),
    };
    let (width, height) = size::read(fields, default_size, on);
    let n = fields.get_or_default(&table::N, on);
    let class_labels = class_label::read(fields, on, n);
    let levels = Levels::read(fields, limits);
    let steps = steps(fields, on, levels.as_ref());
    let (scheduler, steps) = scheduler(fields, card, rules, steps, levels.as_ref());
    // `Refiner::read` reports a conflict if the request also has `denoising_end`, so it must run before
    // `MicroConditioning::read` takes that field.
    let refiner = Refiner::read(fields, on, rules);
    if let (Some(levels), Some(_)) = (&levels, &refiner) {
        fields.error(levels.name(), "conflict", "excludes refiner, whose model has a scheduler of its own");
    }
    // A missing negative prompt must stay missing if the model or the refiner treats it differently from an empty one.
    let refiner_card = refiner.as_ref().and_then(|refiner| rules.card(&refiner.model));
    let zero_negative = card.zero_negative || refiner_card.is_some_and(|card| card.zero_negative);
    let negative_prompt = negative_prompt.or_else(|| (!zero_negative).then(String::new));
    let micro_conditioning = MicroConditioning::read(fields, on, (width, height), source.is_some());
    let further_prompts = FurtherPrompts::read(fields, on);
    let skip_layer_guidance = SkipLayerGuidance::read(fields, on);
    let controls = ControlUse::read(fields, on, rules);
    let feature_cache = FeatureCache::read(fields, on);
    if feature_cache.is_some() && !controls.is_empty() {
        fields.error("feature_cache", "conflict", "excludes controls: ControlNets change the cached features");
    }
    let has_mask = source.as_ref().is_some_and(|source| source.mask.is_some());
    let draw = Draw {
        prompt,
        negative_prompt,
        further_prompts,
        max_sequence_length: card.sequence_lengths.map(|_| fields.get_or_default(&table::MAX_SEQUENCE_LENGTH, on)),
        prompt_syntax: fields.get_or_default(&table::PROMPT_SYNTAX, on),
        loras,
        class_labels,
        class_guidance_scale: card.classifier_guidance.then(|| fields.get_or_default(&table::CLASS_GUIDANCE_SCALE, on)),
        width,
        height,
        n,
        steps,
        levels,
        guidance_scale: fields.get(&table::GUIDANCE_SCALE, on).unwrap_or_else(|| card.guidance_scale(has_mask)),
        true_guidance_scale: card.true_guidance.then(|| fields.get_or_default(&table::TRUE_GUIDANCE_SCALE, on)),
        guidance_rescale: fields.get_or_default(&table::GUIDANCE_RESCALE, on),
        always_guided: card.always_guided && !card.is_distilled,
        guidance_interval: fields.get_or_default(&table::GUIDANCE_INTERVAL, on),
        guidance_limits: GuidanceLimits::read(fields, on),
        skip_layer_guidance,
        scheduler,
        eta: fields.get_or_default(&table::ETA, on),
        clip_skip: fields.get_or_default(&table::CLIP_SKIP, on),
        decoder: Decoder::read(fields, on),
        feature_cache,
        micro_conditioning,
        refiner,
        controls,
        source,
        seed: fields.get(&table::SEED, on).unwrap_or_else(|| rules.random_seed()),
        seed_mode: fields.get_or_default(&table::SEED_MODE, on),
    };
    let has_two_scales = matches!(draw.source, Some(Source { hold: ImageInfluence::Guidance { .. }, .. }));
    if has_two_scales && draw.guidance_rescale > 0.0 {
        fields.error("guidance_rescale", "conflict", "has no effect on guidance with image_guidance_scale");
    }
    check_prompts(fields, &draw, card, rules);
    draw
}

/// Adds errors for textual inversions that the model cannot use, and for weighted prompts with more than `MAX_CHUNKS`
/// segments between `BREAK`s.
fn check_prompts(fields: &mut Fields, draw: &Draw, card: &ModelCard, rules: &dyn Rules) {
    let Draw { prompt, negative_prompt, further_prompts, prompt_syntax, .. } = draw;
    let negative = negative_prompt.iter().map(|text| ("negative_prompt", text.as_str()));
    for (name, text) in [("prompt", prompt.as_str())].into_iter().chain(negative).chain(further_prompts.named()) {
        for (code, detail) in rules.check_words(card, *prompt_syntax, text) {
            fields.error(name, code, detail);
        }
        let parts = if *prompt_syntax == PromptSyntax::Weighted { least_chunks(&weighted(text)) } else { 1 };
        if parts > MAX_CHUNKS {
            let detail = format!("must have at most {MAX_CHUNKS} parts between BREAKs, not {parts}");
            fields.error(name, "out_of_range", detail);
        }
    }
}

fn prompt(fields: &mut Fields, on: &Bounds<'_>) -> String {
    if !fields.has(table::PROMPT.name) && (table::PROMPT.required)(on.card) {
        fields.error(table::PROMPT.name, "required", "is required (\"\" is allowed)");
    }
    fields.get(&table::PROMPT, on).unwrap_or_default()
}

/// The number of steps; `None` if the request lists levels and no steps.
fn steps(fields: &mut Fields, on: &Bounds<'_>, levels: Option<&Levels>) -> Option<u32> {
    let alias = fields.take(table::NUM_INFERENCE_STEPS.name);
    match (fields.take(table::STEPS.name), alias) {
        (Some(_), Some(_)) => fields.error("steps", "conflict", "excludes its alias num_inference_steps"),
        (Some(value), None) | (None, Some(value)) => fields.put_back("steps", value),
        (None, None) => {}
    }
    let steps = fields.get(&table::STEPS, on);
    steps.or(if levels.is_none() { Some(on.card.default_steps) } else { None })
}

/// Reads the scheduler; returns it with the number of steps.
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
                fields.error_below("scheduler", key, "out_of_range", "must have no text of more than 128 characters");
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
            // A request with levels may also contain the number of steps that follows from the levels: `params` in the
            // answer contains both, and a client may send them again.
            if levels.is_some() && steps.is_some_and(|steps| steps != run) {
                fields.error(
                    "steps",
                    "conflict",
                    format!("must be absent or {run}, the number of steps that the listed noise levels make"),
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

/// Reads at most 16 labels with keys of at most 64 and values of at most 512 characters.
fn metadata(fields: &mut Fields) -> BTreeMap<String, String> {
    let map: Map<String, Value> = fields.object(table::METADATA.name).unwrap_or_default();
    if map.len() > Kind::MAX_LABELS {
        let detail = format!("must have at most {} pairs, not {}", Kind::MAX_LABELS, map.len());
        fields.error("metadata", "out_of_range", detail);
        return BTreeMap::new();
    }
    let mut metadata = BTreeMap::new();
    for (key, value) in map {
        match value {
            Value::String(text)
                if text.chars().count() <= Kind::MAX_LABEL_VALUE_CHARS
                    && (1..=Kind::MAX_LABEL_CHARS).contains(&key.chars().count()) =>
            {
                metadata.insert(key, text);
            }
            _ => {
                let (chars, key_chars) = (Kind::MAX_LABEL_VALUE_CHARS, Kind::MAX_LABEL_CHARS);
                let detail = format!(
                    "must be a string of at most {chars} characters under a key of 1 to {key_chars} characters"
                );
                fields.error_below("metadata", &key, "invalid_value", detail);
            }
        }
    }
    metadata
}
