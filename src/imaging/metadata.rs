//! The metadata of a picture file: how the picture was made.

use serde_json::{Map, Value};

use super::{
    Metadata, Note,
    infotext::{allowed, infotext},
};
use crate::{
    diffusion::SamplerLabel,
    generation::{Job, MetadataLevel, SeedMode, Work},
};

/// The metadata of image `index`, by [`MetadataLevel`]; `label` has the names that other programs give to the sampler.
pub fn metadata_of(job: &Job, label: &SamplerLabel, index: u32) -> Metadata {
    // Files of sounds and films contain no text of other image tools, see `note_of`.
    let Some(draw) = job.work.draw() else { return Metadata::None };
    match job.output.metadata_level {
        MetadataLevel::Full => {
            let parameters = infotext(&job.model, draw, &job.approximations(), label, index);
            Metadata::Full { parameters, request: request_text(job, index) }
        }
        MetadataLevel::Seed => Metadata::Seed(allowed(job.work.seed_of(index)).to_string()),
        MetadataLevel::None => Metadata::None,
    }
}

/// The note in the file of film or sound `index` about its request, by [`MetadataLevel`].
pub fn note_of(job: &Job, index: u32) -> Option<Note> {
    match job.output.metadata_level {
        MetadataLevel::Full => Some(Note::Request(request_text(job, index))),
        MetadataLevel::Seed => Some(Note::Seed(allowed(job.work.seed_of(index)).to_string())),
        MetadataLevel::None => None,
    }
}

/// The JSON of a request that makes only result `index` of a generation again. With [`SeedMode::Batch`], the text is
/// the same for all pictures of the generation.
pub fn request_text(job: &Job, index: u32) -> String {
    let mut request = Value::Object(request(job, index));
    // The order of keys, such as the keys of a scheduler, depends on the client and on the features of serde_json that
    // other crates turn on.
    request.sort_all_objects();
    request.to_string()
}

/// The request that makes exactly this result. It has only fields that shape the picture, so that equal pictures are
/// equal files, regardless of who requested them and in which form. Images of [`SeedMode::Batch`] cannot be drawn one
/// by one, so their request is the request of the whole generation.
fn request(job: &Job, index: u32) -> Map<String, Value> {
    let mut params = job.params();
    let mode = match &job.work {
        Work::Draw(draw) => draw.seed_mode,
        Work::Sound(sound) => sound.seed_mode,
        Work::Film(film) => film.seed_mode,
    };
    let beside = job.work.kind().fields().iter().filter(|field| !field.shapes_picture);
    beside.for_each(|field| drop(params.remove(field.name)));
    if mode == SeedMode::PerImage {
        params.insert("n".to_owned(), 1.into());
    }
    params.insert("seed".to_owned(), allowed(job.work.seed_of(index)).into());
    params
}
