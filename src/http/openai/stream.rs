//! The events of a generation as OpenAI's clients read them: partial pictures, and each finished picture.

use std::{collections::VecDeque, convert::Infallible};

use axum::response::{IntoResponse, Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};

use super::{
    Operation,
    answer::{Picture, base64_bytes, format, size},
    client::Client,
    face,
    request::Wanted,
    usage::Usage,
};
use crate::{
    generation::{Artifact, Record},
    http::{
        AppState, create,
        error::ApiError,
        follower::{Follower, Seen},
        listener::AnswerRoom,
        presence::Presence,
        sse,
        sse::Frame,
        url::Location,
    },
    service::Preview,
};

/// Answers with the events of a generation. The stream has no `id`, no `retry` and no events without data, because
/// OpenAI's clients do not read them. Comments keep the connection alive.
pub fn respond(
    state: AppState,
    operation: Operation,
    client: Client,
    wanted: Wanted,
    record: Record,
    presence: Presence,
) -> Response {
    let (headers, metrics) = (create::headers(Location::of(&record)), state.metrics.clone());
    let follower = Follower::new(state.clone(), record, presence);
    let feed = Feed { state, operation, client, wanted, follower, due: VecDeque::new(), room: None, ended: false };
    let frames = stream::unfold(feed, async |mut feed| Some((Ok::<_, Infallible>(feed.next().await?), feed)));
    (headers, sse::respond(&metrics, frames)).into_response()
}

/// The events of one generation for one client.
struct Feed {
    state: AppState,
    operation: Operation,
    client: Client,
    wanted: Wanted,
    follower: Follower,
    /// Finished pictures that are not sent yet, each with the record of the generation.
    due: VecDeque<(Box<Record>, Artifact)>,
    /// The memory that is reserved for the last finished picture until the client takes the next event.
    room: Option<AnswerRoom>,
    ended: bool,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.room = None;
            if let Some((record, artifact)) = self.due.pop_front() {
                return Some(match self.completed(&record, &artifact).await {
                    Ok(frame) => frame.encode(),
                    Err(error) => self.fail(&error),
                });
            }
            if self.ended {
                return None;
            }
            match self.follower.next().await {
                Seen::Progress(_) => {}
                Seen::Preview(preview) => return Some(self.partial(&preview).encode()),
                Seen::Ping => return Some(Frame::comment()),
                Seen::Failed(error) => return Some(self.fail(&error)),
                Seen::Succeeded(record, artifacts) => {
                    self.due = artifacts.into_iter().map(|artifact| (record.clone(), artifact)).collect();
                    self.ended = true;
                }
            }
        }
    }

    fn partial(&self, preview: &Preview) -> Frame {
        let [name, _] = self.operation.events();
        let mut data = self.data(name, self.follower.record());
        data["b64_json"] = BASE64_STANDARD.encode(&preview.bytes).into();
        data["partial_image_index"] = preview.preview_index.into();
        data["image_index"] = preview.index.into();
        // Previews are PNG files, whatever the format of the finished picture.
        data["output_format"] = preview.media_type.to_string().trim_start_matches("image/").into();
        Frame::ephemeral(name, &data)
    }

    async fn completed(&mut self, record: &Record, artifact: &Artifact) -> Result<Frame, ApiError> {
        self.room = AnswerRoom::of(&self.client.extensions, base64_bytes(artifact.bytes)).await?;
        // The event always contains the bytes of the picture, because OpenAI's clients cannot read an event without
        // them.
        let forms = (true, self.wanted.url);
        let picture = Picture::read(&self.state, &self.client, forms, record, artifact).await?;
        let [_, name] = self.operation.events();
        let mut data = self.data(name, record);
        if let (Value::Object(data), Ok(Value::Object(picture))) = (&mut data, serde_json::to_value(picture)) {
            data.extend(picture);
        }
        data["image_index"] = artifact.index.into();
        if !record.job.warnings.is_empty() {
            data["warnings"] = json!(record.job.warnings);
        }
        data["usage"] = json!(Usage::of(&record.job, std::slice::from_ref(artifact)));
        Ok(Frame::ephemeral(name, &data))
    }

    /// The members that all events have.
    fn data(&self, name: &str, record: &Record) -> Value {
        json!({
            "type": name,
            "created_at": record.created_at.unix_timestamp(),
            "size": size(record),
            "quality": self.wanted.quality,
            "background": "opaque",
            "output_format": format(record),
        })
    }

    /// Ends the stream with an error. The status of the answer has already been sent.
    fn fail(&mut self, error: &ApiError) -> Bytes {
        self.ended = true;
        self.due.clear();
        let problem = error.problem();
        if let Some(cause) = &problem.cause {
            tracing::error!(id = %self.follower.record().id, cause, "an event stream failed");
        }
        Frame::ephemeral("error", &json!({"type": "error", "error": face::error(&problem)})).encode()
    }
}

impl Operation {
    /// The names of the events of a partial and of a finished picture.
    fn events(self) -> [&'static str; 2] {
        match self {
            Operation::Generation => ["image_generation.partial_image", "image_generation.completed"],
            Operation::Edit | Operation::Variation => ["image_edit.partial_image", "image_edit.completed"],
        }
    }
}
