//! Reads the fields of a request for films.

use super::{Rules, envelope, prompt, scheduler, steps};
use crate::generation::{
    Fields, Film, InputImage, Job, LoraUse, Motion, MotionAdapterCard, Output, PromptSyntax, Work, field::Bounds, size,
    table,
};

/// Reads all fields. The errors are in `fields`.
pub(super) fn read(fields: &mut Fields, model: String, on: &Bounds<'_>, rules: &dyn Rules) -> Job {
    let film = read_film(fields, on, rules);
    let output = Output::read_film(fields, on);
    output.encoding.check_film(fields, &film);
    let previews = fields.get_or_default(&table::FILM_PREVIEWS, on);
    envelope(fields, model, on, Work::Film(film), (previews, output))
}

fn read_film(fields: &mut Fields, on: &Bounds<'_>, rules: &dyn Rules) -> Film {
    let card = on.card;
    let prompt = prompt(fields, on);
    let (prompt, loras) = loras(fields, prompt, on, rules);
    let motion_adapter = motion_adapter(fields, on, rules);
    let image = image(fields, on);
    let frames = frames(fields, on, motion_adapter.as_deref());
    let (width, height) = size::read(fields, (card.default_width, card.default_height), on);
    let asked = steps(fields, on, None);
    let (scheduler, steps) = scheduler(fields, card, rules, asked, None);
    let of_films = card.film;
    let motion = of_films.and_then(|films| films.motion).map(|_| Motion {
        min_guidance_scale: fields.get_or_default(&table::MIN_GUIDANCE_SCALE, on),
        motion_bucket_id: fields.get_or_default(&table::MOTION_BUCKET_ID, on),
        noise_aug_strength: fields.get_or_default(&table::NOISE_AUG_STRENGTH, on),
    });
    let chunk = fields.get(&table::DECODE_CHUNK_SIZE, on);
    let guidance_scale = fields.get_or_default(&table::FILM_GUIDANCE_SCALE, on);
    let film = Film {
        prompt,
        negative_prompt: fields.get(&table::FILM_NEGATIVE_PROMPT, on).unwrap_or_default(),
        loras,
        motion_adapter,
        image,
        frames,
        fps: fields.get_or_default(&table::FPS, on),
        width,
        height,
        n: fields.get_or_default(&table::FILM_N, on),
        steps,
        guidance_scale,
        guidance_scale_2: of_films
            .filter(|films| films.has_second_guidance)
            .map(|_| fields.get(&table::GUIDANCE_SCALE_2, on).unwrap_or(guidance_scale)),
        motion,
        decode_chunk_size: of_films.filter(|films| films.decodes_in_chunks).map(|_| chunk.unwrap_or(frames)),
        max_sequence_length: card.sequence_lengths.map(|_| fields.get_or_default(&table::FILM_MAX_SEQUENCE_LENGTH, on)),
        scheduler,
        seed: fields.get(&table::FILM_SEED, on).unwrap_or_else(|| rules.random_seed()),
        seed_mode: fields.get_or_default(&table::FILM_SEED_MODE, on),
    };
    if film.motion_adapter.is_some() {
        for (name, text) in [("prompt", &film.prompt), ("negative_prompt", &film.negative_prompt)] {
            for (code, detail) in rules.check_words(card, PromptSyntax::Plain, text) {
                fields.error(name, code, detail);
            }
        }
    }
    film
}

/// The prompt without tags of LoRAs, and the LoRAs, for models that make films with a motion adapter. For other models,
/// such a tag is a part of the prompt.
fn loras(fields: &mut Fields, prompt: String, on: &Bounds<'_>, rules: &dyn Rules) -> (String, Vec<LoraUse>) {
    match table::FILM_LORAS.is_taken_by(on.card) {
        true => LoraUse::read(fields, prompt, on, rules),
        false => (prompt, Vec::new()),
    }
}

/// The motion adapter of the request, or else the motion adapter of the model.
fn motion_adapter(fields: &mut Fields, on: &Bounds<'_>, rules: &dyn Rules) -> Option<String> {
    let field = &table::MOTION_ADAPTER;
    if !field.is_taken_by(on.card) {
        return None;
    }
    let is_named = fields.has(field.name);
    if !is_named && (field.required)(on.card) {
        let names: Vec<&str> = on.card.motion_adapters.iter().map(|adapter| adapter.name.as_str()).collect();
        let detail = format!("is required: {} fit this model, and none of them is its default", names.join(", "));
        fields.error(field.name, "required", detail);
        return None;
    }
    let name = fields.get(field, on).or_else(|| on.card.default_motion_adapter.clone())?;
    if is_named && let Err((code, detail)) = rules.check_motion_adapter(on.card, &name) {
        fields.error(field.name, code, detail);
    }
    Some(name)
}

/// The picture that the film begins with.
fn image(fields: &mut Fields, on: &Bounds<'_>) -> Option<InputImage> {
    let field = &table::FILM_IMAGE;
    if !fields.has(field.name) && (field.required)(on.card) {
        fields.error(field.name, "required", "is required: the picture that the film begins with");
        return Some(InputImage::stand_in());
    }
    InputImage::read_all(fields, 1).map(|(image, _)| image)
}

fn frames(fields: &mut Fields, on: &Bounds<'_>, motion_adapter: Option<&str>) -> u32 {
    let field = &table::FRAMES;
    let is_default = !fields.has(field.name);
    let mut frames: u32 = fields.get_or_default(field, on);
    let adapter = on.card.motion_adapters.iter().find(|adapter| Some(adapter.name.as_str()) == motion_adapter);
    if let Some(adapter) = adapter.filter(|_| is_default) {
        frames = frames.min(adapter.max_frames);
    }
    if let Some(MotionAdapterCard { name, max_frames }) = adapter.filter(|adapter| frames > adapter.max_frames)
        && !fields.is_faulty(field.name)
    {
        let detail = format!("must be between 1 and {max_frames} with the motion adapter {name:?}, not {frames}");
        fields.error(field.name, "out_of_range", detail);
    }
    let multiple = on.card.film.map_or(1, |films| films.frames_multiple.max(1));
    if !frames.saturating_sub(1).is_multiple_of(multiple) && !fields.is_faulty(field.name) {
        // diffusers rounds such a number with a warning.
        let below = frames.saturating_sub(1) / multiple * multiple + 1;
        let bounds = field.integers(on);
        let near = [below, below + multiple].map(u64::from).into_iter();
        let near: Vec<String> =
            near.filter(|near| (bounds.min..=bounds.max).contains(near)).map(|near| near.to_string()).collect();
        let detail =
            format!("must be 1 more than a multiple of {multiple}, such as {}, not {frames}", near.join(" or "));
        fields.error(field.name, "out_of_range", detail);
    }
    frames
}
