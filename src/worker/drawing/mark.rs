//! Marks frames with the invisible watermark, before they are encoded.

use crate::{
    config,
    generation::Job,
    imaging::request_text,
    pipelines::Frame,
    watermark::{Payload, embed},
};

/// Whether and for whom a server marks its pictures and films.
#[derive(Clone, Debug)]
pub struct Marking {
    /// The owner whom the watermark names; `None` if the server does not mark pictures.
    owner: Option<String>,
}

impl Marking {
    pub fn of(settings: &config::Provenance) -> Marking {
        Marking { owner: settings.watermark.is_on().then(|| settings.watermark_owner.clone()) }
    }
}

/// Marks frame `index` of a generation, with all pictures of a clip, and returns the payload of the mark. The payload
/// depends only on the owner and on the request for this one result, so equal requests give equal results. Sounds are
/// not marked. Nothing is marked if the server marks no pictures or if the request wants no mark. Then the result is
/// `None`. Call this function on a blocking thread.
pub fn mark(frame: &mut Frame, job: &Job, index: u32, marking: &Marking) -> Option<Payload> {
    let owner = marking.owner.as_ref().filter(|_| job.output.provenance)?;
    let pictures = frame.pictures_mut();
    if pictures.is_empty() {
        return None;
    }
    let payload = Payload::of(owner, &request_text(job, index));
    pictures.iter_mut().for_each(|picture| embed(picture, payload));
    Some(payload)
}
