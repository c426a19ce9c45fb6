//! What a credential says about a result of this server: a picture, a sound or a film.

use std::iter;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::generation::{GenerationId, Job, MetadataLevel, Work};

/// What a credential says about a result of this server.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    pub job: &'a Job,
    pub weights: &'a WeightDigests,
    /// The generation; `None` for a result that was made without a server.
    pub id: Option<GenerationId>,
    /// The index of the result in its generation.
    pub index: u32,
    /// The request that makes the result again, as JSON. It is used only if the request wants all metadata in its
    /// files.
    pub request: Option<&'a str>,
    /// SHA-256 of the file without the credential, in lower-case hexadecimal.
    pub unsigned_sha256: &'a str,
    /// The pictures of the request.
    pub inputs: &'a [Input],
}

/// The SHA-256 of the weights that a generation uses, in lower-case hexadecimal. `None` for files that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightDigests {
    pub model: Option<String>,
    /// The digests of the request's LoRAs, in the order of the request.
    pub loras: Vec<Option<String>>,
}

/// A picture of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// The field of the request, such as `image` or `controls.0.image`.
    pub title: String,
    /// SHA-256 of the stored copy.
    pub sha256: String,
    /// The result of [`Provenance::keep`](super::Provenance::keep) for the uploaded file.
    pub credentials: Option<Bytes>,
}

impl Statement<'_> {
    /// Whether the result was made from a picture, and not from noise and a text alone.
    pub fn is_composite(&self) -> bool {
        match &self.job.work {
            Work::Draw(draw) => draw.source.is_some(),
            Work::Film(film) => film.image.is_some(),
            Work::Sound(_) => false,
        }
    }

    /// The assertion of latentd about the result. It always contains the model, the generation and the digests. It also
    /// contains the seed if the request's `output.metadata` is `seed` or `full`, and LoRAs and the request if
    /// `output.metadata` is `full`.
    pub fn generation(&self) -> Value {
        let mut said = Map::new();
        said.insert("model".to_owned(), self.job.model.as_str().into());
        said.extend(self.weights.model.as_ref().map(|digest| ("model_sha256".to_owned(), digest.as_str().into())));
        if let Some(id) = self.id {
            said.insert("id".to_owned(), id.to_string().into());
            said.insert("index".to_owned(), self.index.into());
        }
        said.insert("unsigned_sha256".to_owned(), self.unsigned_sha256.into());
        let level = self.job.output.metadata_level;
        if level != MetadataLevel::None {
            said.insert("seed".to_owned(), self.job.work.seed_of(self.index).into());
        }
        if level == MetadataLevel::Full {
            let digests = self.weights.loras.iter().map(Option::as_deref).chain(iter::repeat(None));
            let loras = self.job.work.loras().iter().zip(digests);
            let loras = loras.map(|(lora, sha256)| json!({"name": lora.name, "scale": lora.scale, "sha256": sha256}));
            said.insert("loras".to_owned(), loras.collect());
            let request = self.request.and_then(|request| serde_json::from_str(request).ok());
            said.extend(request.map(|request: Value| ("request".to_owned(), request)));
        }
        Value::Object(said)
    }
}
