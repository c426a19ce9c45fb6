//! What the file of a picture says of its making.

use serde_json::{Map, Value};

use super::infotext::{infotext, seed};
use crate::{
    diffusion::SamplerLabel,
    generation::{Draw, Job, MetadataLevel, SeedMode, Work},
};

/// The texts in the file of one picture, by [`MetadataLevel`]. Each format has places of its own for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    Full {
        /// The lines that other image tools show and read.
        parameters: String,
        /// The JSON of a request that makes this very picture again.
        request: String,
    },
    /// The seed alone.
    Seed(String),
    None,
}

impl Metadata {
    /// The texts of image `index`; `label` is what other programs call the generation's sampler.
    pub fn of(job: &Job, label: &SamplerLabel, index: u32) -> Metadata {
        let Work::Draw(draw) = &job.work;
        match job.output.metadata_level {
            MetadataLevel::Full => Metadata::Full {
                parameters: infotext(&job.model, draw, label, index),
                request: Value::Object(request(job, draw, index)).to_string(),
            },
            MetadataLevel::Seed => Metadata::Seed(seed(draw, index).to_string()),
            MetadataLevel::None => Metadata::None,
        }
    }
}

/// What to POST for this very picture. Images of [`SeedMode::Batch`] cannot be had one by one, so their request is the
/// whole generation's.
fn request(job: &Job, draw: &Draw, index: u32) -> Map<String, Value> {
    let mut params = job.params();
    if draw.seed_mode == SeedMode::PerImage {
        params.insert("n".to_owned(), 1.into());
    }
    params.insert("seed".to_owned(), seed(draw, index).into());
    params
}
