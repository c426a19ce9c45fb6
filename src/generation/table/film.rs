//! The table of all fields of a request that makes films.

use serde_json::Value;

use super::{
    GUIDANCE_SCALE, HEIGHT, IMAGE, LORAS, MAX_SEQUENCE_LENGTH, METADATA, MODEL, N, NAME, NEGATIVE_PROMPT,
    NUM_INFERENCE_STEPS, ON_DISCONNECT, OUTPUT, OUTPUT_METADATA, OUTPUT_PROVENANCE, PRECISION, PREVIEWS, PRIORITY,
    PROMPT, RUN_TIMEOUT_S, SCHEDULER, SEED, SEED_MODE, SIZE, START_TIMEOUT_S, STEPS, WEBHOOK, WIDTH, takes_prompt,
    upto,
};
use crate::generation::{
    Format, ModelCard, Motion, Task,
    field::{Bounds, Field, Integers, Kind},
};

/// All fields, in the order in which documentation shows them.
pub static FILM_FIELDS: &[&Field] = &[
    &FILM_PROMPT,
    &FILM_NEGATIVE_PROMPT,
    &MODEL,
    &MOTION_ADAPTER,
    &FILM_LORAS,
    &FILM_IMAGE,
    &FRAMES,
    &FPS,
    &FILM_WIDTH,
    &FILM_HEIGHT,
    &SIZE,
    &FILM_N,
    &STEPS,
    &NUM_INFERENCE_STEPS,
    &FILM_GUIDANCE_SCALE,
    &GUIDANCE_SCALE_2,
    &MIN_GUIDANCE_SCALE,
    &MOTION_BUCKET_ID,
    &NOISE_AUG_STRENGTH,
    &DECODE_CHUNK_SIZE,
    &FILM_MAX_SEQUENCE_LENGTH,
    &SCHEDULER,
    &FILM_SEED,
    &FILM_SEED_MODE,
    &PRECISION,
    &FILM_PREVIEWS,
    &FILM_OUTPUT,
    &ON_DISCONNECT,
    &PRIORITY,
    &START_TIMEOUT_S,
    &RUN_TIMEOUT_S,
    &WEBHOOK,
    &METADATA,
];

pub static FILM_PROMPT: Field =
    Field { doc: "What the film shows. May be empty.", ..PROMPT }.only(takes_prompt, NO_PROMPT).required(needs_prompt);
pub static FILM_NEGATIVE_PROMPT: Field =
    Field { doc: "What the film does not show.", ..NEGATIVE_PROMPT }.only(takes_prompt, NO_PROMPT);
pub static MOTION_ADAPTER: Field = Field::new(
    "motion_adapter",
    NAME,
    "The motion adapter with which a model of pictures makes the film: a name from motion_adapters of the model.",
)
.only(has_motion_adapters, Some("it needs no motion adapter"))
.required(|card| has_motion_adapters(card) && card.default_motion_adapter.is_none())
.default(|on| on.card.default_motion_adapter.as_deref().map(Value::from));
pub static FILM_LORAS: Field =
    Field { ..LORAS }.only(has_motion_adapters, Some("it takes no LoRAs for films")).default(|_| None);
pub static FILM_IMAGE: Field = Field {
    kind: Kind::Picture,
    doc: "The picture that the film begins with. It is resized to width × height.",
    ..IMAGE
}
.only(|card| card.tasks.contains(&Task::ImageToVideo), Some("it makes films from a prompt alone"));
pub static FRAMES: Field = Field::new("frames", Kind::Integer(frames), "The number of frames.").default(default_frames);
pub static FPS: Field = Field::new(
    "fps",
    Kind::Integer(|_| upto(1, MAX_FPS)),
    "Frames per second of the file. Stable Video Diffusion also adapts the motion to this number.",
)
.default(|on| on.card.film.map(|film| film.default_fps.into()));
pub static FILM_WIDTH: Field = Field { doc: "Pixels.", ..WIDTH }.default(|on| Some(on.card.default_width.into()));
pub static FILM_HEIGHT: Field = Field { doc: "Pixels.", ..HEIGHT }.default(|on| Some(on.card.default_height.into()));
pub static FILM_N: Field = Field { doc: "The number of films.", ..N };
pub static FILM_GUIDANCE_SCALE: Field = Field {
    doc: "How closely the film follows the picture or the prompt: uncond + s · (cond − uncond). 1 or less switches \
          guidance off. With min_guidance_scale, this is the scale of the last frame.",
    ..GUIDANCE_SCALE
}
.default(|on| Some(on.card.default_guidance_scale.into()));
pub static GUIDANCE_SCALE_2: Field = Field::new(
    "guidance_scale_2",
    GUIDANCE_SCALE.kind,
    "The guidance scale of the second denoiser, which computes the last steps. The default is guidance_scale.",
)
.only(|card| card.film.is_some_and(|film| film.has_second_guidance), Some("it has one denoiser"));
pub static MIN_GUIDANCE_SCALE: Field = of_motion(
    "min_guidance_scale",
    GUIDANCE_SCALE.kind,
    "The guidance scale of the first frame; the scale changes linearly to guidance_scale at the last frame.",
    "all its frames have one guidance scale",
)
.default(|on| motion(on).map(|motion| motion.min_guidance_scale.into()));
pub static MOTION_BUCKET_ID: Field = of_motion(
    "motion_bucket_id",
    Kind::Integer(|_| upto(0, 255)),
    "The amount of motion: 0 is little, 255 is much.",
    "its motion follows from the prompt",
)
.default(|on| motion(on).map(|motion| motion.motion_bucket_id.into()));
pub static NOISE_AUG_STRENGTH: Field = of_motion(
    "noise_aug_strength",
    Kind::number(0.0, 10.0),
    "The standard deviation of the noise that is added to image, whose values are between −1 and 1. More noise makes \
     the film less like image, with more motion.",
    "it adds no noise to image",
)
.default(|on| motion(on).map(|motion| motion.noise_aug_strength.into()));
pub static DECODE_CHUNK_SIZE: Field = Field::new(
    "decode_chunk_size",
    Kind::Integer(|on| upto(1, most_frames(on))),
    "How many frames the decoder turns into pixels at a time. More frames take more memory, and look more alike. The \
     default is all frames.",
)
.only(|card| card.film.is_some_and(|film| film.decodes_in_chunks), Some("its decoder needs no choice"));
pub static FILM_MAX_SEQUENCE_LENGTH: Field = Field {
    doc: "How many tokens of the prompt UMT5 reads. A shorter prompt is filled up, and the filling changes the film.",
    ..MAX_SEQUENCE_LENGTH
}
.only(|card| card.sequence_lengths.is_some(), Some("it takes no prompt, or always reads the same number of tokens"));
pub static FILM_SEED: Field = Field { doc: "Film i uses seed + i. The default is a random number below 2^32.", ..SEED };
pub static FILM_SEED_MODE: Field =
    Field { doc: "per_image: each film has its own random generator; batch: all films share one.", ..SEED_MODE };
pub static FILM_PREVIEWS: Field = Field {
    doc: "The number of previews of each film, evenly spaced over the steps. A preview is the frame in the middle.",
    ..PREVIEWS
};
pub static FILM_OUTPUT: Field =
    Field { kind: Kind::Object(&[&FILM_FORMAT, &OUTPUT_METADATA, &FILM_PROVENANCE]), ..OUTPUT };
pub static FILM_FORMAT: Field = Field::new(
    "format",
    Kind::Word(|_| Format::FILMS.map(Format::name).to_vec()),
    "The file format: mp4 and gif lose a little, apng, webp and zip (PNG files with numbers) are exact.",
)
.default(|_| Some("mp4".into()));
pub static FILM_PROVENANCE: Field = Field {
    doc: "Whether the file is signed with content credentials, if the server signs files. They say that a model made the \
          film. A zip archive cannot be signed.",
    ..OUTPUT_PROVENANCE
};

/// Why a model refuses prompts.
const NO_PROMPT: Option<&str> = Some("it makes films without a prompt");
/// The highest rate of a request, in frames per second.
const MAX_FPS: u32 = 60;
/// The fewest frames of a film.
const MIN_FRAMES: u32 = 1;

/// Whether every request for the model needs a prompt. Models with settings of the motion ([`ModelCard::film`]) take no
/// prompt. The permissive card of `any_model` has these settings and takes a prompt, but does not need one.
fn needs_prompt(card: &ModelCard) -> bool {
    takes_prompt(card) && card.film.is_none_or(|film| film.motion.is_none())
}

/// The number of frames that the model makes by default, or the largest one that the operator's limit allows.
fn default_frames(on: &Bounds<'_>) -> Option<Value> {
    let film = on.card.film?;
    let (most, multiple) = (film.default_frames.min(most_frames(on)), film.frames_multiple.max(1));
    Some((most.saturating_sub(1) / multiple * multiple + 1).into())
}

fn frames(on: &Bounds<'_>) -> Integers {
    upto(MIN_FRAMES.into(), most_frames(on))
}

/// The most frames of a request.
fn most_frames(on: &Bounds<'_>) -> u32 {
    on.card.most_frames(on.limits)
}

/// Whether the model draws pictures and makes films with a motion adapter.
fn has_motion_adapters(card: &ModelCard) -> bool {
    !card.motion_adapters.is_empty()
}

fn motion(on: &Bounds<'_>) -> Option<Motion> {
    on.card.film.and_then(|film| film.motion)
}

/// A field of models whose motion can be chosen; `others` says why other models have no such field.
const fn of_motion(name: &'static str, kind: Kind, doc: &'static str, others: &'static str) -> Field {
    Field::new(name, kind, doc).only(has_motion, Some(others))
}

fn has_motion(card: &ModelCard) -> bool {
    card.film.is_some_and(|film| film.motion.is_some())
}
