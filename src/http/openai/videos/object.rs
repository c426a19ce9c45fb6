//! OpenAI's object of a film.

use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    generation::{GenerationId, Status},
    service::View,
};

/// The beginning of the ids in OpenAI's form. The rest is the same as in the native id.
pub const PREFIX: &str = "video_";
const NATIVE: &str = "img_";

/// A generation of films as OpenAI shows a video.
#[derive(Debug, Serialize)]
pub struct Video {
    pub id: String,
    object: &'static str,
    /// Seconds since 1970, as all times of this object.
    created_at: i64,
    completed_at: Option<i64>,
    expires_at: Option<i64>,
    status: &'static str,
    /// Percent, 0..=100.
    progress: u32,
    model: String,
    prompt: String,
    /// The length of the film.
    seconds: String,
    /// Pixels, such as `1024x576`.
    size: String,
    error: Option<Failure>,
    remixed_from_video_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Failure {
    code: String,
    message: String,
}

impl Video {
    pub fn of(view: &View) -> Video {
        let record = &view.record;
        let film = record.job.work.film();
        let percent = match (&record.status, view.progress) {
            (Status::Succeeded { .. }, _) => 100,
            (_, Some(progress)) => progress.percent.clamp(0.0, 100.0) as u32,
            (_, None) => 0,
        };
        let seconds = film.map_or(0.0, |film| f64::from(film.frames) / f64::from(film.fps.max(1)));
        Video {
            id: id(record.id),
            object: "video",
            created_at: record.created_at.unix_timestamp(),
            completed_at: record.finished_at.map(OffsetDateTime::unix_timestamp),
            expires_at: record.expires_at.map(OffsetDateTime::unix_timestamp),
            status: match record.status {
                Status::Queued => "queued",
                Status::Running => "in_progress",
                Status::Succeeded { .. } => "completed",
                Status::Failed { .. } | Status::Canceled | Status::Expired => "failed",
            },
            progress: percent,
            model: record.job.model.clone(),
            prompt: record.job.work.prompt().to_owned(),
            seconds: ((seconds * 1000.0).round() / 1000.0).to_string(),
            size: film.map(|film| format!("{}x{}", film.width, film.height)).unwrap_or_default(),
            error: failure(&record.status),
            remixed_from_video_id: None,
        }
    }
}

fn failure(status: &Status) -> Option<Failure> {
    let failed = |code: &str, message: &str| Failure { code: code.to_owned(), message: message.to_owned() };
    match status {
        Status::Failed { problem } => Some(failed(&problem.code, &problem.message)),
        Status::Canceled => Some(failed("generation_canceled", "the generation was canceled")),
        Status::Expired => Some(failed("overloaded", "the generation was not started in time")),
        Status::Queued | Status::Running | Status::Succeeded { .. } => None,
    }
}

/// The id of a generation in OpenAI's form.
pub fn id(id: GenerationId) -> String {
    let native = id.to_string();
    format!("{PREFIX}{}", native.strip_prefix(NATIVE).unwrap_or(&native))
}

/// The generation of an id in OpenAI's form; `None` for any other text.
pub fn id_of(text: &str) -> Option<GenerationId> {
    format!("{NATIVE}{}", text.strip_prefix(PREFIX)?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ids_name_the_same_generation() {
        let native = GenerationId::new();
        assert_eq!(id_of(&id(native)), Some(native));
        assert_eq!(id_of(&native.to_string()), None);
        assert_eq!(id_of("video_x"), None);
    }
}
