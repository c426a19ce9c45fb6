//! The generation object: the form of a generation in the API.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use time::OffsetDateTime;

use super::{
    base::Base,
    signed::{Signer, now},
    url::Location,
};
use crate::{
    generation::{
        Artifact, Facts, GenerationId, MediaType, Priority, Problem, Status, Warning, Webhook, WorkKind, rfc3339,
    },
    ledger::QueuePosition,
    service::{Pace, Progress, View},
};

/// A generation as the API shows it.
#[derive(Debug, Serialize)]
pub struct Object {
    id: GenerationId,
    object: &'static str,
    status: &'static str,
    created_at: String,
    queued_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    starred: bool,
    expires_at: Option<String>,
    model: String,
    params: Map<String, Value>,
    /// Names of the approximations in use, which change the pictures.
    approximations: Vec<&'static str>,
    progress: Option<Progress>,
    queue: Option<QueueStanding>,
    attempt: u32,
    max_attempts: u32,
    priority: Priority,
    /// Maximum seconds of one attempt.
    run_timeout_s: u32,
    /// Only for pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<Vec<ImageObject>>,
    /// Only for sounds and films.
    #[serde(skip_serializing_if = "Option::is_none")]
    artifacts: Option<Vec<ArtifactObject>>,
    error: Option<Problem>,
    /// Only for generations with a safety policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'static str>,
    links: Links,
    /// `None` also for the holder of a signed URL, because an address may contain a secret of its receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<Webhook>,
    metadata: BTreeMap<String, String>,
    /// Reasons why the pictures may differ from what the client expects.
    warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
struct QueueStanding {
    /// Number of generations before this one.
    position: usize,
    estimated_start_s: Option<f64>,
}

/// A picture of a generation.
#[derive(Debug, Serialize)]
struct ImageObject {
    index: u32,
    url: String,
    /// When a signed URL expires; `None` if the URL is not signed.
    url_expires_at: Option<String>,
    width: u32,
    height: u32,
    seed: u64,
    content_type: MediaType,
    bytes: u64,
    sha256: String,
    /// The digest of the file without its content credentials. An equal request gives the same digest on servers with
    /// the same build, kind of CPU, model files and watermark settings.
    unsigned_sha256: String,
    /// The payload of the watermark.
    watermark: Option<String>,
    /// Whether the safety checker flagged the picture; `None` if the picture was not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    flagged: Option<bool>,
}

/// A sound or a film of a generation.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ArtifactObject {
    Sound(SoundObject),
    Film(FilmObject),
}

/// A sound of a generation.
#[derive(Debug, Serialize)]
struct SoundObject {
    index: u32,
    url: String,
    /// When a signed URL expires; `None` if the URL is not signed.
    url_expires_at: Option<String>,
    seconds: f64,
    sample_rate: u32,
    channels: u32,
    seed: u64,
    content_type: MediaType,
    bytes: u64,
    sha256: String,
    /// The digest of the file without its content credentials. An equal request gives the same digest on servers with
    /// the same build, kind of CPU, model files and watermark settings.
    unsigned_sha256: String,
}

/// A film of a generation.
#[derive(Debug, Serialize)]
struct FilmObject {
    index: u32,
    url: String,
    /// When a signed URL expires; `None` if the URL is not signed.
    url_expires_at: Option<String>,
    width: u32,
    height: u32,
    frames: u32,
    /// Frames per second.
    fps: u32,
    seconds: f64,
    seed: u64,
    content_type: MediaType,
    bytes: u64,
    sha256: String,
    /// The digest of the file without its content credentials. An equal request gives the same digest on servers with
    /// the same build, kind of CPU, model files and watermark settings.
    unsigned_sha256: String,
    /// The payload of the watermark in every frame.
    watermark: Option<String>,
    /// Whether the safety checker flagged a frame; `None` if the frames were not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    flagged: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Links {
    #[serde(rename = "self")]
    itself: String,
    events: String,
    /// When the signed URL of the events expires; `None` if the URL is not signed.
    events_expires_at: Option<String>,
    /// Not for sounds.
    #[serde(flatten)]
    preview: Option<PreviewLink>,
    cancel: String,
}

#[derive(Debug, Serialize)]
struct PreviewLink {
    preview: String,
    /// When the signed URL of the preview expires; `None` if the URL is not signed.
    preview_expires_at: Option<String>,
}

/// Builds the object of a generation. The speed of recent generations (`pace`) gives the estimated start. Links begin
/// with `base`.
pub fn object(view: &View, pace: Option<Pace>, signer: &Signer, base: &Base) -> Object {
    let record = &view.record;
    let at = Location::of(record);
    let expiry = signer.expiry(now());
    let (artifacts, error) = match &record.status {
        Status::Succeeded { artifacts } => (&artifacts[..], None),
        Status::Failed { problem } => (&[][..], Some(problem.clone())),
        Status::Queued | Status::Running | Status::Canceled | Status::Expired => (&[][..], None),
    };
    let (images, others) = match at.kind {
        WorkKind::Draw => {
            let images = artifacts.iter().filter_map(|artifact| image_object(at, artifact, signer, base, expiry));
            (Some(images.collect()), None)
        }
        WorkKind::Sound | WorkKind::Film => {
            let others = artifacts.iter().filter_map(|artifact| artifact_object(at, artifact, signer, base, expiry));
            (None, Some(others.collect()))
        }
    };
    let queue = view.place.map(|QueuePosition { position, cost }| QueueStanding {
        position,
        estimated_start_s: pace.map(|pace| tenths(pace.until_start(cost))),
    });
    Object {
        id: record.id,
        object: match at.kind {
            WorkKind::Draw => "image.generation",
            WorkKind::Sound => "audio.generation",
            WorkKind::Film => "video.generation",
        },
        status: record.status.as_str(),
        created_at: rfc3339(record.created_at),
        queued_at: rfc3339(record.created_at),
        started_at: record.started_at.map(rfc3339),
        finished_at: record.finished_at.map(rfc3339),
        starred: record.starred,
        expires_at: record.expires_at.map(rfc3339),
        model: record.job.model.clone(),
        params: record.job.params(),
        approximations: record.job.approximations(),
        progress: view.progress,
        queue,
        attempt: record.attempt,
        max_attempts: view.max_attempts,
        priority: record.job.priority,
        run_timeout_s: view.run_timeout_s,
        images,
        artifacts: others,
        error,
        finish_reason: record.finish_reason(),
        links: Links {
            itself: base.link(&at.path()),
            events: base.link(&signed(&at.events(), signer, expiry)),
            events_expires_at: time_of(expiry),
            preview: (at.kind != WorkKind::Sound).then(|| PreviewLink {
                preview: base.link(&signed(&at.preview(), signer, expiry)),
                preview_expires_at: time_of(expiry),
            }),
            cancel: base.link(&at.cancel()),
        },
        webhook: record.job.webhook.clone().filter(|_| !signer.is_of_holder()),
        metadata: record.job.metadata.clone(),
        warnings: record.job.warnings.clone(),
    }
}

fn image_object(
    at: Location,
    artifact: &Artifact,
    signer: &Signer,
    base: &Base,
    expiry: Option<i64>,
) -> Option<ImageObject> {
    let Facts::Picture { width, height, seed } = artifact.facts else { return None };
    Some(ImageObject {
        index: artifact.index,
        url: base.link(&signed(&at.artifact(artifact.index), signer, expiry)),
        url_expires_at: time_of(expiry),
        width,
        height,
        seed,
        content_type: artifact.media_type.clone(),
        bytes: artifact.bytes,
        sha256: artifact.sha256.clone(),
        unsigned_sha256: artifact.unsigned_sha256.as_ref().unwrap_or(&artifact.sha256).clone(),
        watermark: artifact.watermark.clone(),
        flagged: artifact.flagged,
    })
}

fn artifact_object(
    at: Location,
    artifact: &Artifact,
    signer: &Signer,
    base: &Base,
    expiry: Option<i64>,
) -> Option<ArtifactObject> {
    let index = artifact.index;
    let url = base.link(&signed(&at.artifact(index), signer, expiry));
    let url_expires_at = time_of(expiry);
    let (content_type, bytes, sha256) = (artifact.media_type.clone(), artifact.bytes, artifact.sha256.clone());
    let unsigned_sha256 = artifact.unsigned_sha256.as_ref().unwrap_or(&artifact.sha256).clone();
    match artifact.facts {
        Facts::Picture { .. } => None,
        Facts::Sound { sample_rate, channels, samples, seed } => Some(ArtifactObject::Sound(SoundObject {
            index,
            url,
            url_expires_at,
            seconds: samples as f64 / f64::from(sample_rate.max(1)),
            sample_rate,
            channels,
            seed,
            content_type,
            bytes,
            sha256,
            unsigned_sha256,
        })),
        Facts::Clip { width, height, frames, fps, seed } => Some(ArtifactObject::Film(FilmObject {
            index,
            url,
            url_expires_at,
            width,
            height,
            frames,
            fps,
            seconds: f64::from(frames) / f64::from(fps.max(1)),
            seed,
            content_type,
            bytes,
            sha256,
            unsigned_sha256,
            watermark: artifact.watermark.clone(),
            flagged: artifact.flagged,
        })),
    }
}

/// The path, signed if there is an expiry.
fn signed(path: &str, signer: &Signer, expiry: Option<i64>) -> String {
    expiry.map_or_else(|| path.to_owned(), |expiry| signer.sign(path, expiry))
}

/// The time of an expiry in seconds since 1970.
pub fn time_of(expiry: Option<i64>) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(expiry?).ok().map(rfc3339)
}

/// Seconds after which the client should ask again: the estimated time to the end, in 1..=60.
pub fn retry_after_s(view: &View, pace: Option<Pace>) -> u64 {
    let left = match (&view.progress, view.place, pace) {
        (Some(Progress { eta_s: Some(eta), .. }), _, _) => f64::from(*eta),
        (_, place, Some(pace)) => pace.until_end(place.unwrap_or_default().cost),
        _ => 1.0,
    };
    left.ceil().clamp(1.0, 60.0) as u64
}

/// The `ETag` of the object. The tag changes with the record. For the same record, the tag changes with the queue
/// position, with the phase and the step of the progress, and with the expiry of signed URLs.
pub fn etag(view: &View, signer: &Signer) -> String {
    let version = view.record.version;
    let expiry = signer.expiry(now()).map(|expiry| format!("-{expiry}")).unwrap_or_default();
    match (&view.progress, view.place) {
        (Some(progress), _) => format!("W/\"{version}-{:?}-{}{expiry}\"", progress.phase, progress.step),
        (None, Some(QueuePosition { position, .. })) => format!("W/\"{version}-q{position}{expiry}\""),
        (None, None) => format!("W/\"{version}{expiry}\""),
    }
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
