//! The events of a generation as OpenAI's clients read them: partial pictures, and each finished picture.

use std::{collections::VecDeque, convert::Infallible, pin::Pin};

use axum::response::{IntoResponse, Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::Interval;

use super::{
    Operation,
    answer::{Picture, base64_bytes, format, size},
    client::Client,
    face,
    request::Wanted,
    usage::Usage,
};
use crate::{
    generation::{Artifact, Event, Record},
    http::{
        AppState, create, error::ApiError, events::pings, listener::AnswerRoom, presence::Presence, sse, sse::Frame,
    },
    service::{Access, Preview, ServiceError, Watched},
};

/// Answers with the events of a generation. The stream has neither `id` nor `retry` nor events without data, which
/// OpenAI's clients do not read; comments keep the connection alive.
pub fn respond(
    state: AppState,
    operation: Operation,
    client: Client,
    wanted: Wanted,
    record: Record,
    presence: Presence,
) -> Response {
    let headers = create::headers(record.id);
    let watched = Box::pin(state.service.watch(&record, 0));
    let ping = pings(&state);
    let feed = Feed {
        state,
        operation,
        client,
        wanted,
        record,
        presence,
        watched,
        ping,
        seen: 0,
        due: VecDeque::new(),
        room: None,
        ended: false,
    };
    let frames = stream::unfold(feed, async |mut feed| Some((Ok::<_, Infallible>(feed.next().await?), feed)));
    (headers, sse::respond(frames)).into_response()
}

/// The events of one generation for one client.
struct Feed {
    state: AppState,
    operation: Operation,
    client: Client,
    wanted: Wanted,
    record: Record,
    presence: Presence,
    watched: Pin<Box<dyn Stream<Item = Result<Watched, ServiceError>> + Send>>,
    ping: Interval,
    /// The number of the last event of the generation.
    seen: i64,
    /// Finished pictures that are not sent yet.
    due: VecDeque<Artifact>,
    /// Room for the last finished picture, until the client takes the next event.
    room: Option<AnswerRoom>,
    ended: bool,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.room = None;
            if let Some(artifact) = self.due.pop_front() {
                return Some(match self.completed(&artifact).await {
                    Ok(frame) => frame.encode(),
                    Err(error) => self.fail(&error),
                });
            }
            if self.ended {
                return None;
            }
            let id = self.record.id;
            tokio::select! {
                biased;
                () = self.state.draining.cancelled() => return Some(self.fail(&ApiError::Draining(Some(id)))),
                watched = self.watched.next() => match watched {
                    Some(Ok(Watched::Preview(preview))) => return Some(self.partial(&preview).encode()),
                    Some(Ok(Watched::Event(event))) => {
                        if let Err(error) = self.event(&event).await {
                            return Some(self.fail(&error));
                        }
                    }
                    Some(Ok(Watched::Progress(_))) => {}
                    Some(Err(error)) => return Some(self.fail(&error.into())),
                    None => return Some(self.fail(&ApiError::NotFound("generation"))),
                },
                // Comes after `watched`, so that all known events are sent first.
                () = self.state.service.stands_still(id, self.seen) => {
                    return Some(self.fail(&ApiError::Draining(Some(id))));
                }
                _ = self.ping.tick() => return Some(Frame::comment()),
            }
        }
    }

    async fn event(&mut self, event: &Event) -> Result<(), ApiError> {
        self.seen = event.seq;
        if event.kind.is_terminal() {
            self.presence.keep();
            self.record = self.state.service.find(Access::Full, self.record.id).await?;
            self.due = self.state.artifacts(&self.record)?.into();
            self.ended = true;
        }
        Ok(())
    }

    fn partial(&self, preview: &Preview) -> Frame {
        let [name, _] = self.operation.events();
        let mut data = self.data(name);
        data["b64_json"] = BASE64_STANDARD.encode(&preview.bytes).into();
        data["partial_image_index"] = preview.preview_index.into();
        data["image_index"] = preview.index.into();
        // Previews are PNG files, whatever the format of the finished picture.
        data["output_format"] = preview.media_type.to_string().trim_start_matches("image/").into();
        Frame::ephemeral(name, &data)
    }

    async fn completed(&mut self, artifact: &Artifact) -> Result<Frame, ApiError> {
        self.room = AnswerRoom::of(&self.client.extensions, base64_bytes(artifact.bytes)).await?;
        // An event without bytes cannot be read by OpenAI's clients.
        let forms = (true, self.wanted.url);
        let picture = Picture::read(&self.state, &self.client, forms, &self.record, artifact).await?;
        let [_, name] = self.operation.events();
        let mut data = self.data(name);
        if let (Value::Object(data), Ok(Value::Object(picture))) = (&mut data, serde_json::to_value(picture)) {
            data.extend(picture);
        }
        data["image_index"] = artifact.index.into();
        data["usage"] = json!(Usage::of(&self.record.job, std::slice::from_ref(artifact)));
        Ok(Frame::ephemeral(name, &data))
    }

    /// The members that all events have.
    fn data(&self, name: &str) -> Value {
        json!({
            "type": name,
            "created_at": self.record.created_at.unix_timestamp(),
            "size": size(&self.record),
            "quality": self.wanted.quality,
            "background": "opaque",
            "output_format": format(&self.record),
        })
    }

    /// Ends the stream with an error. The status of the answer has already been sent.
    fn fail(&mut self, error: &ApiError) -> Bytes {
        self.presence.keep();
        self.ended = true;
        self.due.clear();
        let problem = error.problem();
        if let Some(cause) = &problem.cause {
            tracing::error!(id = %self.record.id, cause, "an event stream failed");
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
