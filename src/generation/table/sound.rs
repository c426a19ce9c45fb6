//! The table of all fields of a request that makes sounds.

use super::{
    GUIDANCE_SCALE, METADATA, MODEL, N, NEGATIVE_PROMPT, NUM_INFERENCE_STEPS, ON_DISCONNECT, OUTPUT, OUTPUT_METADATA,
    OUTPUT_PROVENANCE, PRECISION, PRIORITY, PROMPT, RUN_TIMEOUT_S, SCHEDULER, SEED, SEED_MODE, START_TIMEOUT_S, STEPS,
    WEBHOOK,
};
use crate::generation::{
    Format, LogSnr, ModelCard, SampleFormat,
    field::{Bounds, Field, Kind, Numbers},
};

/// All fields, in the order in which documentation shows them.
pub static SOUND_FIELDS: &[&Field] = &[
    &SOUND_PROMPT,
    &SOUND_NEGATIVE_PROMPT,
    &MODEL,
    &SECONDS,
    &PADDING_SECONDS,
    &SOUND_N,
    &STEPS,
    &NUM_INFERENCE_STEPS,
    &SOUND_GUIDANCE_SCALE,
    &SCHEDULER,
    &SOUND_ETA,
    &LOGSNR_MIN,
    &LOGSNR_MAX,
    &SOUND_SEED,
    &SOUND_SEED_MODE,
    &PRECISION,
    &SOUND_OUTPUT,
    &ON_DISCONNECT,
    &PRIORITY,
    &START_TIMEOUT_S,
    &RUN_TIMEOUT_S,
    &WEBHOOK,
    &METADATA,
];

pub static SOUND_PROMPT: Field = Field { doc: "What the sound is. May be empty.", ..PROMPT };
pub static SOUND_NEGATIVE_PROMPT: Field = Field { doc: "What the sound is not.", ..NEGATIVE_PROMPT };
pub static SECONDS: Field = Field::new("seconds", Kind::Seconds(seconds), "The length of the sound in seconds.")
    .default(|on| on.card.sound.map(|sound| sound.default_seconds.clamp(sound.least_seconds, seconds(on).max).into()));
pub static PADDING_SECONDS: Field = Field::new(
    "padding_seconds",
    Kind::Seconds(padding),
    "The model makes the sound longer by this number of seconds, and this part is then cut off.",
)
.default(|on| log_snr(on.card).map(|_| 0.0.into()))
.only(|card| log_snr(card).is_some(), Some(NO_FLOW));
pub static SOUND_N: Field = Field { doc: "The number of sounds.", ..N };
pub static SOUND_GUIDANCE_SCALE: Field = Field {
    doc: "How closely the sound follows the prompt: uncond + s · (cond − uncond). 1 or less switches guidance off.",
    ..GUIDANCE_SCALE
};
pub static SOUND_ETA: Field = Field {
    doc: "η: for DDIM, the fraction of DDPM's noise that each step adds. Must be 0 for models of flow matching.",
    ..super::ETA
};
pub static LOGSNR_MIN: Field = Field::new(
    "logsnr_min",
    Kind::number(-LARGEST_LOGSNR, 0.0),
    "The logarithm of the ratio of signal to noise at the first step, whose noise level is nevertheless always 1.",
)
.default(|on| log_snr(on.card).map(|range| range.min.into()))
.only(|card| log_snr(card).is_some(), Some(NO_FLOW));
pub static LOGSNR_MAX: Field = Field::new(
    "logsnr_max",
    Kind::number(0.0, LARGEST_LOGSNR),
    "The upper end of the range of logarithms that begins at logsnr_min. The steps divide the range evenly.",
)
.default(|on| log_snr(on.card).map(|range| range.max.into()))
.only(|card| log_snr(card).is_some(), Some(NO_FLOW));
pub static SOUND_SEED: Field =
    Field { doc: "Sound i uses seed + i. The default is a random number below 2^32.", ..SEED };
pub static SOUND_SEED_MODE: Field =
    Field { doc: "per_image: each sound has its own random generator; batch: all sounds share one.", ..SEED_MODE };
pub static SOUND_OUTPUT: Field =
    Field { kind: Kind::Object(&[&SOUND_FORMAT, &SAMPLE_FORMAT, &SOUND_METADATA, &SOUND_PROVENANCE]), ..OUTPUT };
pub static SOUND_FORMAT: Field =
    Field::new("format", Kind::Word(|_| Format::SOUNDS.map(Format::name).to_vec()), "The file format.")
        .default(|_| Some("wav".into()));
pub static SAMPLE_FORMAT: Field = Field::new(
    "sample_format",
    Kind::Word(|_| SampleFormat::ALL.map(SampleFormat::name).to_vec()),
    "Only for the format wav. s16: samples are integers of 16 bits; f32: floats of 32 bits, exactly as the model makes \
     them.",
)
.default(|_| Some("s16".into()));
pub static SOUND_METADATA: Field =
    Field { doc: "full: the file contains the request; seed: only the seed; none: nothing.", ..OUTPUT_METADATA };
pub static SOUND_PROVENANCE: Field = Field {
    doc: "Whether the file is signed with content credentials, if the server signs files and the format has them. They say that a model made the \
          sound.",
    ..OUTPUT_PROVENANCE
};

/// The largest absolute value of a logarithm of signal to noise. At this value, a noise level still differs from 0.
const LARGEST_LOGSNR: f64 = 20.0;

/// Why a model refuses fields of flow matching.
const NO_FLOW: &str = "it was not trained by flow matching";

fn log_snr(card: &ModelCard) -> Option<LogSnr> {
    card.sound.and_then(|sound| sound.log_snr)
}

fn padding(on: &Bounds<'_>) -> Numbers {
    Numbers { min: 0.0, max: on.limits.max_seconds, min_is_open: false, max_is_open: false }
}

fn seconds(on: &Bounds<'_>) -> Numbers {
    let min = on.card.sound.map_or(0.0, |sound| sound.least_seconds);
    Numbers { min, max: on.limits.max_seconds.max(min), min_is_open: false, max_is_open: false }
}
