//! Reads the fields of a request for sounds.

use super::{Rules, envelope, prompt, scheduler, steps};
use crate::generation::{Fields, Job, Output, Sound, Work, field::Bounds, table};

/// Reads all fields. The errors are in `fields`.
pub(super) fn read(fields: &mut Fields, model: String, on: &Bounds<'_>, rules: &dyn Rules) -> Job {
    let sound = read_sound(fields, on, rules);
    let output = Output::read_sound(fields, on);
    if let Some(card) = &on.card.sound {
        output.encoding.check_sound(fields, card);
    }
    envelope(fields, model, on, Work::Sound(sound), (0, output))
}

fn read_sound(fields: &mut Fields, on: &Bounds<'_>, rules: &dyn Rules) -> Sound {
    let prompt = prompt(fields, on);
    let asked = steps(fields, on, None);
    let (scheduler, steps) = scheduler(fields, on.card, rules, asked, None);
    let seconds: f64 = fields.get_or_default(&table::SECONDS, on);
    let is_flow = on.card.sound.is_some_and(|sound| sound.log_snr.is_some());
    let eta: f64 = fields.get_or_default(&table::SOUND_ETA, on);
    // The card of any model has no range of levels.
    let adds_no_noise = on.card.sound.and_then(|sound| sound.log_snr).is_some_and(|levels| levels.min < levels.max);
    if adds_no_noise && eta > 0.0 {
        fields.error(table::SOUND_ETA.name, "out_of_range", "must be 0: the sampler of this model adds no noise");
    }
    Sound {
        prompt,
        negative_prompt: fields.get(&table::SOUND_NEGATIVE_PROMPT, on).unwrap_or_default(),
        seconds,
        padding_seconds: is_flow.then(|| fields.get_or_default(&table::PADDING_SECONDS, on)),
        n: fields.get_or_default(&table::SOUND_N, on),
        steps,
        guidance_scale: fields.get_or_default(&table::SOUND_GUIDANCE_SCALE, on),
        scheduler,
        eta,
        logsnr_min: is_flow.then(|| fields.get_or_default(&table::LOGSNR_MIN, on)),
        logsnr_max: is_flow.then(|| fields.get_or_default(&table::LOGSNR_MAX, on)),
        seed: fields.get(&table::SOUND_SEED, on).unwrap_or_else(|| rules.random_seed()),
        seed_mode: fields.get_or_default(&table::SOUND_SEED_MODE, on),
    }
}
