//! The tables of all fields of a request that draws pictures, makes sounds or makes films.
//!
//! A field that only some models take says so with [`Field::only`], which looks at the model's card.

mod delivery;
mod film;
mod sound;

use serde_json::{Value, json};

pub use delivery::*;
pub use film::*;
pub use sound::*;

use super::{
    ControlUse, Decoder, LoraUse, ModelCard, Task,
    field::{Bounds, Field, Integers, Kind, Numbers},
};

/// All fields, in the order in which documentation and forms show them.
pub static FIELDS: &[&Field] = &[
    &PROMPT,
    &NEGATIVE_PROMPT,
    &PROMPT_SYNTAX,
    &CLASS_LABEL,
    &MODEL,
    &WIDTH,
    &HEIGHT,
    &SIZE,
    &N,
    &STEPS,
    &NUM_INFERENCE_STEPS,
    &SIGMAS,
    &TIMESTEPS,
    &GUIDANCE_SCALE,
    &TRUE_GUIDANCE_SCALE,
    &GUIDANCE_RESCALE,
    &GUIDANCE_INTERVAL,
    &CFG_NORMALIZATION,
    &CFG_TRUNCATION,
    &SKIP_GUIDANCE_LAYERS,
    &SKIP_LAYER_GUIDANCE_SCALE,
    &SKIP_LAYER_GUIDANCE_START,
    &SKIP_LAYER_GUIDANCE_STOP,
    &SCHEDULER,
    &CLASS_GUIDANCE_SCALE,
    &ETA,
    &SEED,
    &SEED_MODE,
    &IMAGE,
    &STRENGTH,
    &IMAGE_GUIDANCE_SCALE,
    &MASK,
    &MASK_BLUR,
    &MASK_INVERT,
    &PADDING_MASK_CROP,
    &KEEP_UNMASKED,
    &LORAS,
    &CONTROLS,
    &CLIP_SKIP,
    &DECODER,
    &FEATURE_CACHE,
    &PROMPT_2,
    &NEGATIVE_PROMPT_2,
    &PROMPT_3,
    &NEGATIVE_PROMPT_3,
    &MAX_SEQUENCE_LENGTH,
    &ORIGINAL_SIZE,
    &CROP_TOP_LEFT,
    &TARGET_SIZE,
    &NEGATIVE_ORIGINAL_SIZE,
    &NEGATIVE_CROP_TOP_LEFT,
    &NEGATIVE_TARGET_SIZE,
    &AESTHETIC_SCORE,
    &NEGATIVE_AESTHETIC_SCORE,
    &DENOISING_END,
    &REFINER,
    &PRECISION,
    &PREVIEWS,
    &OUTPUT,
    &ON_DISCONNECT,
    &PRIORITY,
    &START_TIMEOUT_S,
    &RUN_TIMEOUT_S,
    &WEBHOOK,
    &METADATA,
];

pub static PROMPT: Field = Field::new("prompt", PROMPT_TEXT, "What the picture shows. May be empty.")
    .only(takes_prompt, NO_PROMPT)
    .required(takes_prompt)
    .default(|on| (!on.card.takes_prompt).then(|| "".into()));
pub static NEGATIVE_PROMPT: Field = Field::new("negative_prompt", PROMPT_TEXT, "What the picture does not show.")
    .default(|on| (!on.card.zero_negative).then(|| "".into()))
    .only(takes_prompt, NO_PROMPT);
pub static PROMPT_SYNTAX: Field = Field::new(
    "prompt_syntax",
    Kind::Word(|on| if on.card.weighted_prompts { vec!["plain", "weighted"] } else { vec!["plain"] }),
    "weighted: brackets in prompts weight words; plain: brackets are text.",
)
.default(|_| Some("plain".into()))
.only(takes_prompt, NO_PROMPT);
pub static CLASS_LABEL: Field = Field::new(
    "class_label",
    Kind::Classes,
    "The class that the picture shows: a number or a name, or a list with one class for each image.",
)
.only(|card| !card.classes.is_empty(), Some("it draws no classes"))
.required(|card| !card.classes.is_empty());
pub static MODEL: Field =
    Field::new("model", NAME, "The model: a name from /v1/models.").default(|on| some_name(&on.card.name));

pub static WIDTH: Field =
    Field::new("width", Kind::Integer(side), "Pixels. With image, the default is the size of image.")
        .default(|on| own_size(on, on.card.default_width));
pub static HEIGHT: Field =
    Field::new("height", Kind::Integer(side), "Pixels. With image, the default is the size of image.")
        .default(|on| own_size(on, on.card.default_height));
pub static SIZE: Field = Field::new("size", Kind::Size, "WIDTHxHEIGHT in pixels, in place of width and height.")
    .excludes(&["width", "height"])
    .hidden();
pub static N: Field = Field::new("n", Kind::Integer(|on| upto(1, on.limits.max_images)), "The number of images.")
    .default(|_| Some(1.into()));
pub static STEPS: Field =
    Field::new("steps", Kind::Integer(|on| upto(1, on.limits.max_steps)), "The number of sampling steps.")
        .default(|on| Some(on.card.default_steps.into()));
pub static NUM_INFERENCE_STEPS: Field =
    Field::new("num_inference_steps", STEPS.kind, "The name of steps in diffusers.").excludes(&["steps"]).hidden();
pub static SIGMAS: Field = Field::new("sigmas", Kind::Sigmas, "Noise levels in descending order, in place of steps.")
    .excludes(&["timesteps", "refiner"]);
pub static TIMESTEPS: Field =
    Field::new("timesteps", Kind::Timesteps, "Training timesteps in descending order, in place of steps.")
        .excludes(&["refiner"]);
pub static GUIDANCE_SCALE: Field = Field::new(
    "guidance_scale",
    Kind::number(0.0, 30.0),
    "How closely the picture follows the prompt: uncond + s · (cond − uncond). 1 or less switches guidance off. For \
     Z-Image cond + s · (cond − uncond), and 0 switches it off. Some models draw with guidance at every scale.",
)
.default(|on| on.card.inpaint_guidance_scale.is_none().then(|| on.card.default_guidance_scale.into()))
.only(|card| is_guided(card) && !card.no_guidance_scale, Some("it draws without guidance"));
pub static TRUE_GUIDANCE_SCALE: Field = Field::new(
    "true_guidance_scale",
    Kind::number(0.0, 30.0),
    "Guidance by negative_prompt in addition to guidance_scale: uncond + s · (cond − uncond). 1 or less switches it off.",
)
.default(|on| on.card.true_guidance.then(|| 1.0.into()))
.only(|card| card.true_guidance, Some("its guidance_scale is the scale of this guidance"));
pub static GUIDANCE_RESCALE: Field = Field::new(
    "guidance_rescale",
    SHARE,
    "How far the guided prediction is rescaled to the standard deviation of the conditional prediction.",
)
.default(|_| Some(0.0.into()))
.only(is_guided, NO_PROMPT);
pub static GUIDANCE_INTERVAL: Field =
    Field::new("guidance_interval", Kind::Interval, "The steps with guidance: start and end as shares of all steps.")
        .default(|_| Some(json!([0.0, 1.0])))
        .only(is_guided, NO_PROMPT);
pub static CFG_NORMALIZATION: Field = Field::new(
    "cfg_normalization",
    Kind::Flag,
    "Whether a guided prediction with a larger norm than the conditional prediction is scaled down to this norm.",
)
.default(|on| on.card.limits_guidance.then(|| false.into()))
.only(|card| card.limits_guidance, Some("its guidance has no limits"));
pub static CFG_TRUNCATION: Field = Field::new(
    "cfg_truncation",
    SHARE,
    "The time, from 0 for noise to 1 for the picture, after which guidance is off.",
)
.default(|on| on.card.limits_guidance.then(|| 1.0.into()))
.only(|card| card.limits_guidance, Some("its guidance has no limits"));
pub static SKIP_GUIDANCE_LAYERS: Field = skipping(
    "skip_guidance_layers",
    Kind::Integers { most: MOST_SKIPPED, each: |on| upto(0, on.card.skippable_layers.saturating_sub(1)) },
    "Skip-layer guidance: the picture moves away from what the network would draw without these layers.",
);
pub static SKIP_LAYER_GUIDANCE_SCALE: Field =
    skipping("skip_layer_guidance_scale", Kind::number(0.0, 30.0), "The scale of skip-layer guidance.")
        .needs(|_| Some("skip_guidance_layers"))
        .default(|_| Some(2.8.into()));
pub static SKIP_LAYER_GUIDANCE_START: Field =
    skipping("skip_layer_guidance_start", SHARE, "The share of the steps after which skip-layer guidance starts.")
        .needs(|_| Some("skip_guidance_layers"))
        .default(|_| Some(0.01.into()));
pub static SKIP_LAYER_GUIDANCE_STOP: Field =
    skipping("skip_layer_guidance_stop", SHARE, "The share of the steps after which skip-layer guidance stops.")
        .needs(|_| Some("skip_guidance_layers"))
        .default(|_| Some(0.2.into()));
pub static SCHEDULER: Field = Field::new(
    "scheduler",
    Kind::Scheduler,
    "A name from /v1/schedulers, or keys of scheduler_config.json that replace those of the model.",
)
.default(|on| Some(json!(on.card.default_scheduler)));
pub static CLASS_GUIDANCE_SCALE: Field = Field::new(
    "class_guidance_scale",
    Kind::number(0.0, 100.0),
    "The scale of the classifier's gradient; 0 switches classifier guidance off.",
)
.default(|on| on.card.classifier_guidance.then(|| 1.0.into()))
.only(|card| card.classifier_guidance, Some("it has no classifier"));
pub static ETA: Field =
    Field::new("eta", SHARE, "η: for DDIM, the fraction of DDPM's noise that each step adds; γ of TCD.")
        .default(|_| Some(0.0.into()));
pub static SEED: Field = Field::new(
    "seed",
    Kind::Integer(|_| Integers { min: 0, max: i64::MAX as u64, multiple_of: 1 }),
    "Image i uses seed + i. The default is a random number below 2^32.",
);
pub static SEED_MODE: Field = Field::new(
    "seed_mode",
    Kind::Word(|_| vec!["per_image", "batch"]),
    "per_image: each image has its own random generator; batch: all images share one.",
)
.default(|_| Some("per_image".into()));

pub static IMAGE: Field = Field::new(
    "image",
    Kind::Pictures(|on| on.card.most_pictures()),
    "The input picture. Some models take a list of pictures.",
)
.only(takes_picture, None)
.required(|card| card.tasks.iter().all(|task| task.begins_with_picture()));
pub static STRENGTH: Field = Field::new(
    "strength",
    Kind::Number(Numbers { min: 0.0, max: 1.0, min_is_open: true, max_is_open: false }),
    "How much of image is redrawn; 1 ignores image. The default is 0.75, or 1 with a mask.",
)
.only(ModelCard::draws_over_pictures, None)
// Models that edit pictures redraw from noise, except with a mask.
.needs(|card| Some(if card.tasks.contains(&Task::Edit) { "mask" } else { "image" }));
pub static IMAGE_GUIDANCE_SCALE: Field =
    Field::new("image_guidance_scale", Kind::number(1.0, 10.0), "How closely the picture follows image.")
        .only(|card| card.image_guidance_scale.is_some(), None)
        .default(|on| on.card.image_guidance_scale.map(Value::from))
        .needs(|_| Some("image"));
pub static MASK: Field =
    Field::new("mask", Kind::Picture, "A picture of the size of image: white parts are redrawn, black parts are kept.")
        .only(|card| card.tasks.contains(&Task::Inpaint), None)
        .required(|card| card.tasks == [Task::Inpaint])
        .needs(|_| Some("image"));
pub static MASK_BLUR: Field =
    of_mask("mask_blur", Kind::Integer(|_| upto(0, 64)), "Radius in pixels of the blur of mask.")
        .default(|_| Some(0.into()));
pub static MASK_INVERT: Field =
    of_mask("mask_invert", Kind::Flag, "Redraw the black parts of mask and keep the white parts.")
        .default(|_| Some(false.into()));
pub static PADDING_MASK_CROP: Field = of_mask(
    "padding_mask_crop",
    Kind::Integer(|_| upto(0, 512)),
    "Draw only the white part of mask and this many pixels around it, at full size.",
);
pub static KEEP_UNMASKED: Field =
    of_mask("keep_unmasked", Kind::Flag, "Whether the kept part is copied from image without any change.")
        .default(|_| Some(true.into()));

pub static LORAS: Field = Field::new(
    "loras",
    Kind::List { most: LoraUse::MOST, of: &[&LORA_NAME, &LORA_SCALE] },
    "LoRAs that change the model's weights.",
)
.default(|_| Some(json!([])))
.only(takes_prompt, NO_PROMPT);
pub static LORA_NAME: Field = Field::new("name", NAME, "A name from /v1/loras.").required(|_| true);
pub static LORA_SCALE: Field =
    Field::new("scale", Kind::number(-LoraUse::MAX_SCALE, LoraUse::MAX_SCALE), "The factor of the LoRA's change.")
        .default(|_| Some(1.0.into()));

pub static CONTROLS: Field = Field::new(
    "controls",
    Kind::List {
        most: ControlUse::MOST,
        of: &[
            &CONTROL_MODEL,
            &CONTROL_IMAGE,
            &CONTROL_SCALE,
            &CONTROL_START,
            &CONTROL_END,
            &CONTROL_GUESS_MODE,
            &CONTROL_PREPROCESS,
        ],
    },
    "ControlNets with their pictures.",
)
.default(|_| Some(json!([])))
.only(takes_prompt, NO_PROMPT);
pub static CONTROL_MODEL: Field = Field::new("model", NAME, "A name from /v1/controlnets.").required(|_| true);
pub static CONTROL_IMAGE: Field = Field::new("image", Kind::Picture, "The input of the ControlNet.").required(|_| true);
pub static CONTROL_SCALE: Field =
    Field::new("scale", Kind::number(0.0, 2.0), "The factor of the ControlNet's output.").default(|_| Some(1.0.into()));
pub static CONTROL_START: Field =
    Field::new("start", SHARE, "The share of the steps after which the ControlNet starts.")
        .default(|_| Some(0.0.into()));
pub static CONTROL_END: Field =
    Field::new("end", SHARE, "The share of the steps after which the ControlNet stops; greater than start.")
        .default(|_| Some(1.0.into()));
pub static CONTROL_GUESS_MODE: Field = Field::new(
    "guess_mode",
    Kind::Flag,
    "Apply the ControlNet to the conditional prediction only, and weaker on fine structure.",
)
.default(|_| Some(false.into()));
pub static CONTROL_PREPROCESS: Field = Field::new(
    "preprocess",
    Kind::Word(|_| vec!["none", "canny"]),
    "How the picture is processed before the ControlNet gets it.",
)
.default(|_| Some("none".into()));

pub static CLIP_SKIP: Field = Field::new(
    "clip_skip",
    Kind::Integer(|on| upto(0, on.card.max_clip_skip)),
    "How many of the text encoder's last layers are skipped.",
)
.default(|_| Some(0.into()))
.only(takes_prompt, NO_PROMPT);
pub static DECODER: Field = Field::new(
    "decoder",
    Kind::Word(|on| if on.card.decoders.contains(&Decoder::Tiny) { vec!["full", "tiny"] } else { vec!["full"] }),
    "The network that decodes latents: full, or the smaller and faster tiny.",
)
.default(|_| Some("full".into()));
pub static FEATURE_CACHE: Field = Field::new(
    "feature_cache",
    Kind::Object(&[&CACHE_KIND, &CACHE_INTERVAL]),
    "Reuse features of the denoiser in its next calls: an approximation.",
)
.excludes(&["controls"])
.only(|card| !card.maps.is_empty(), Some("its denoiser keeps no features"));
pub static CACHE_KIND: Field = Field::new("kind", Kind::Word(|_| vec!["deepcache"]), "The method.").required(|_| true);
pub static CACHE_INTERVAL: Field = Field::new(
    "interval",
    Kind::Integer(|_| upto(2, 10)),
    "Of this number of calls, the first computes the whole denoiser.",
)
.required(|_| true);

pub static PROMPT_2: Field = Field::new("prompt_2", PROMPT_TEXT, "The prompt of the second text encoder.")
    .only(takes_second_prompt, ONE_ENCODER);
pub static NEGATIVE_PROMPT_2: Field =
    Field::new("negative_prompt_2", PROMPT_TEXT, "The negative prompt of the second text encoder.")
        .only(takes_second_prompt, ONE_ENCODER);
pub static PROMPT_3: Field = Field::new("prompt_3", PROMPT_TEXT, "The prompt of the third text encoder.")
    .only(takes_third_prompt, NO_THIRD_ENCODER);
pub static NEGATIVE_PROMPT_3: Field =
    Field::new("negative_prompt_3", PROMPT_TEXT, "The negative prompt of the third text encoder.")
        .only(takes_third_prompt, NO_THIRD_ENCODER);
pub static MAX_SEQUENCE_LENGTH: Field = Field::new(
    "max_sequence_length",
    Kind::Integer(|on| upto(1, on.card.sequence_lengths.map_or(1, |(_, most)| most))),
    "How many tokens of the prompt the text encoder T5 or Qwen3 reads.",
)
.default(|on| on.card.sequence_lengths.map(|(usual, _)| usual.into()))
.only(|card| card.sequence_lengths.is_some(), Some("the length that its text encoders read cannot be chosen"));
pub static ORIGINAL_SIZE: Field =
    conditioning("original_size", Kind::Pair { min: 1 }, "[height, width] of the training picture before cropping.");
pub static CROP_TOP_LEFT: Field =
    conditioning("crop_top_left", Kind::Pair { min: 0 }, "[top, left] of the crop.").default(|_| Some(json!([0, 0])));
pub static TARGET_SIZE: Field = conditioning("target_size", Kind::Pair { min: 1 }, "[height, width] of the crop.");
pub static NEGATIVE_ORIGINAL_SIZE: Field = conditioning(
    "negative_original_size",
    Kind::Pair { min: 1 },
    "original_size for the prediction with the negative prompt.",
);
pub static NEGATIVE_CROP_TOP_LEFT: Field = conditioning(
    "negative_crop_top_left",
    Kind::Pair { min: 0 },
    "crop_top_left for the prediction with the negative prompt.",
);
pub static NEGATIVE_TARGET_SIZE: Field = conditioning(
    "negative_target_size",
    Kind::Pair { min: 1 },
    "target_size for the prediction with the negative prompt.",
);
pub static AESTHETIC_SCORE: Field = conditioning(
    "aesthetic_score",
    SCORE,
    "How pleasing the picture should look, for models that take an aesthetic score, such as refiners.",
)
.default(|_| Some(6.0.into()));
pub static NEGATIVE_AESTHETIC_SCORE: Field =
    conditioning("negative_aesthetic_score", SCORE, "aesthetic_score for the prediction with the negative prompt.")
        .default(|_| Some(2.5.into()));
pub static DENOISING_END: Field = conditioning(
    "denoising_end",
    INNER_SHARE,
    "Stop after this share of the training timesteps, with the remaining noise in the picture.",
);
pub static REFINER: Field = Field::new(
    "refiner",
    Kind::Object(&[
        &REFINER_MODEL,
        &SWITCH_AT,
        &REFINER_NEGATIVE_PROMPT,
        &REFINER_AESTHETIC_SCORE,
        &REFINER_NEGATIVE_AESTHETIC_SCORE,
    ]),
    "A model that computes the last steps.",
)
.only(is_micro_conditioned, None)
.excludes(&["denoising_end"]);
pub static REFINER_MODEL: Field = Field::new("model", NAME, "The model: a name from /v1/models.").required(|_| true);
pub static SWITCH_AT: Field =
    Field::new("switch_at", INNER_SHARE, "The share of the training timesteps after which the refiner takes over.")
        .default(|_| Some(0.8.into()));
pub static REFINER_NEGATIVE_PROMPT: Field =
    Field::new("negative_prompt", PROMPT_TEXT, "The negative prompt of the refiner. The default is negative_prompt.");
pub static REFINER_AESTHETIC_SCORE: Field =
    Field::new("aesthetic_score", SCORE, "aesthetic_score for the refiner.").default(|_| Some(6.0.into()));
pub static REFINER_NEGATIVE_AESTHETIC_SCORE: Field =
    Field::new("negative_aesthetic_score", SCORE, "negative_aesthetic_score for the refiner.")
        .default(|_| Some(2.5.into()));

const NAME: Kind = Kind::Text(|_| 128);
const PROMPT_TEXT: Kind = Kind::Text(|on| on.limits.max_prompt_chars);
const SHARE: Kind = Kind::number(0.0, 1.0);
/// Numbers between 0 and 1, both excluded.
const INNER_SHARE: Kind = Kind::Number(Numbers { min: 0.0, max: 1.0, min_is_open: true, max_is_open: true });
const SCORE: Kind = Kind::number(0.0, 10.0);

const fn upto(min: u64, max: u32) -> Integers {
    Integers { min, max: max as u64, multiple_of: 1 }
}

fn side(on: &Bounds<'_>) -> Integers {
    let (least, most) = (on.card.min_side_pixels, on.limits.max_side_pixels);
    let most = on.card.max_side_pixels.map_or(most, |own| own.min(most));
    Integers { min: least.into(), max: most.into(), multiple_of: on.card.size_multiple.into() }
}

/// The default of a side. A model that always starts from a picture has no default: the size of the picture is used.
fn own_size(on: &Bounds<'_>, pixels: u32) -> Option<Value> {
    let starts_with_noise = on.card.tasks.iter().any(|task| !task.begins_with_picture());
    starts_with_noise.then(|| pixels.into())
}

fn some_name(name: &str) -> Option<Value> {
    (!name.is_empty()).then(|| name.into())
}

/// Whether the model can begin with a picture.
fn takes_picture(card: &ModelCard) -> bool {
    card.tasks.iter().any(|task| task.begins_with_picture())
}

fn is_micro_conditioned(card: &ModelCard) -> bool {
    card.time_id_count > 0
}

const fn of_mask(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field::new(name, kind, doc).only(|card| card.tasks.contains(&Task::Inpaint), None).needs(|_| Some("mask"))
}

const fn conditioning(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field::new(name, kind, doc).only(is_micro_conditioned, Some("it has no micro-conditioning"))
}

/// The most layers that a request can leave out.
const MOST_SKIPPED: usize = 16;

const fn skipping(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field::new(name, kind, doc).only(|card| card.skippable_layers > 0, Some("it has no skip-layer guidance"))
}

/// Why a model refuses texts for a second or a third text encoder.
const ONE_ENCODER: Option<&str> = Some("it has one text encoder");
const NO_THIRD_ENCODER: Option<&str> = Some("it has no third text encoder");

/// Whether the model has a second text encoder. Models with micro-conditioning also take the field if they have only
/// the second encoder.
fn takes_second_prompt(card: &ModelCard) -> bool {
    card.text_encoders >= 2 || is_micro_conditioned(card)
}

fn takes_third_prompt(card: &ModelCard) -> bool {
    card.text_encoders >= 3
}

/// Why a model refuses fields that need a prompt.
const NO_PROMPT: Option<&str> = Some("it draws without a prompt");

fn takes_prompt(card: &ModelCard) -> bool {
    card.takes_prompt
}

/// Whether the model uses guidance. A model without prompts uses guidance if the default guidance scale of its card is
/// not 1.
fn is_guided(card: &ModelCard) -> bool {
    card.takes_prompt || card.default_guidance_scale != 1.0
}
