//! Reads the fields of a request for films.

use super::{Rules, envelope};
use crate::generation::{Fields, Film, Job, Output, SeedMode, Work, field::Bounds};

/// The film that the model makes by default: a request for films has no fields of its own.
pub(super) fn read(fields: &mut Fields, model: String, on: &Bounds<'_>, rules: &dyn Rules) -> Job {
    let of_films = on.card.film;
    let (width, height) = (on.card.default_width, on.card.default_height);
    let film = Film {
        prompt: String::new(),
        negative_prompt: String::new(),
        image: None,
        frames: of_films.map_or(1, |films| films.default_frames),
        fps: of_films.map_or(1, |films| films.default_fps),
        width,
        height,
        n: 1,
        steps: on.card.default_steps,
        guidance_scale: on.card.default_guidance_scale,
        guidance_scale_2: None,
        motion: of_films.and_then(|films| films.motion),
        decode_chunk_size: None,
        max_sequence_length: None,
        scheduler: on.card.default_scheduler.clone(),
        seed: rules.random_seed(),
        seed_mode: SeedMode::PerImage,
    };
    let output = Output::read(fields, on);
    envelope(fields, model, on, Work::Film(film), (0, output))
}
