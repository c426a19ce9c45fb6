//! The answer with all pictures of a generation.

use axum::{
    Extension,
    http::header,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{client::Client, request::Wanted, usage::Usage};
use crate::{
    generation::{Artifact, Record, Warning},
    http::{AppState, create, error::ApiError, face::Document, listener::AnswerRoom, signed::now, url::Location},
    service::offload,
};

/// OpenAI's object of an answer, and in addition the name of the model, the id of the generation and its warnings.
#[derive(Debug, Serialize)]
struct Answer {
    /// Seconds since 1970.
    created: i64,
    data: Vec<Picture>,
    background: &'static str,
    output_format: &'static str,
    quality: &'static str,
    size: String,
    usage: Usage,
    model: String,
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// A picture of an answer or of an event, in the forms that the client wants.
#[derive(Debug, Serialize)]
pub struct Picture {
    #[serde(skip_serializing_if = "Option::is_none")]
    b64_json: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    flagged: Option<bool>,
}

/// Answers with the pictures of a generation that has ended.
///
/// # Errors
/// The generation has no pictures (the error depends on its state), a picture cannot be read, or earlier answers were
/// not read in time ([`ApiError::AnswersUnread`]).
pub async fn respond(
    state: &AppState,
    client: &Client,
    wanted: &Wanted,
    record: &Record,
) -> Result<Response, ApiError> {
    let artifacts = state.artifacts(record)?;
    let bytes = if wanted.b64 { artifacts.iter().map(|artifact| base64_bytes(artifact.bytes)).sum() } else { 0 };
    let room = AnswerRoom::of(&client.extensions, bytes).await?.map(Extension);
    let usage = Usage::of(&record.job, &artifacts);
    let mut data = Vec::with_capacity(artifacts.len());
    for artifact in &artifacts {
        data.push(Picture::read(state, client, (wanted.b64, wanted.url), record, artifact).await?);
    }
    let answer = Answer {
        created: record.created_at.unix_timestamp(),
        data,
        background: "opaque",
        output_format: format(record),
        quality: wanted.quality,
        size: size(record),
        usage,
        model: record.job.model.clone(),
        id: record.id.to_string(),
        warnings: record.job.warnings.clone(),
    };
    let document = offload(bytes as usize, move || Document::of("application/json", &answer)).await;
    Ok((room, create::headers(Location::of(record)), [(header::CACHE_CONTROL, "no-store")], document).into_response())
}

impl Picture {
    /// Reads the file of a picture if the client wants its bytes (`b64`), and makes its URL if the client wants the URL
    /// (`has_url`).
    pub async fn read(
        state: &AppState,
        client: &Client,
        (b64, has_url): (bool, bool),
        record: &Record,
        artifact: &Artifact,
    ) -> Result<Picture, ApiError> {
        let mut picture = Picture { b64_json: None, url: None, seed: artifact.facts.seed(), flagged: artifact.flagged };
        if b64 {
            let file = state.service.file(artifact).await?;
            picture.b64_json = Some(offload(file.len(), move || BASE64_STANDARD.encode(&file)).await);
        }
        if has_url {
            let path = Location::of(record).artifact(artifact.index);
            let signed = state.signer.expiry(now()).map(|expiry| state.signer.sign(&path, expiry));
            picture.url = Some(client.base.url(&signed.unwrap_or(path)));
        }
        Ok(picture)
    }
}

/// The length in base64 of a file that has `file` bytes.
pub fn base64_bytes(file: u64) -> u64 {
    file.div_ceil(3) * 4
}

/// The format of the pictures.
pub fn format(record: &Record) -> &'static str {
    record.job.output.encoding.format().name()
}

/// The size of the pictures as `WIDTHxHEIGHT`.
pub fn size(record: &Record) -> String {
    record.job.work.draw().map(|draw| format!("{}x{}", draw.width, draw.height)).unwrap_or_default()
}
