//! `GET /v1/images/{id}/events`: the events of a generation as server-sent events, which a reader can resume.

use std::{pin::Pin, time::Duration};

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::{
    AppState,
    base::Base,
    caller::Caller,
    error::{ApiError, success},
    generation,
    path::Id,
    presence::Presence,
    signed::Reader,
    sse,
    sse::Frame,
    urlencoded,
};
use crate::{
    generation::{Event, EventKind, GenerationId, Invalid, Record, Status},
    service::{Access, Preview, Progress, ServiceError, View, Watched},
};

/// Time after which a reader should reconnect.
pub(super) const RETRY_MS: u32 = 2000;
/// Pause between progress events, so there are at most four per second. The newest progress replaces older ones.
const PROGRESS_PAUSE: Duration = Duration::from_millis(250);
/// Largest preview in an event, in bytes of base64. Readers fetch larger previews from `/preview`.
const MAX_PREVIEW_BYTES: usize = 64 << 10;

/// The event stream of a generation, from the event after the last one that the reader has. If the generation has ended
/// and no event is left, the answer is 204.
pub async fn events(
    State(mut state): State<AppState>,
    caller: Result<Caller, ApiError>,
    base: Base,
    Id(at): Id,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let reader = state.signer.reader(&at.events(), query.as_deref(), caller).map_err(|error| match error {
        ApiError::ImageExpired => ApiError::UrlExpired,
        error => error,
    })?;
    let after = resume_point(&headers, query.as_deref(), &["exp", "sig"])?.unwrap_or(0);
    let record = state.service.find(reader.access().of_kind(at.kind), at.id).await?;
    state.signer = state.signer.for_reader(&reader);
    if after > 0 {
        state.metrics.event_streams_resumed.inc();
    }
    let mut watched = Box::pin(state.service.watch(&record, after).peekable());
    // 204 tells a browser to stop reconnecting.
    if record.status.is_terminal() && watched.as_mut().peek().await.is_none() {
        return Ok(success::NO_CONTENT.into_response());
    }
    let feed = Feed::new((state, base), record, after, watched, Presence::indifferent());
    Ok(respond(Feed { reader: Some(reader), ..feed }))
}

/// The event stream of a generation that the same request created.
pub fn stream(state: AppState, base: Base, record: &Record, presence: Presence) -> Response {
    let watched = Box::pin(state.service.watch(record, 0));
    respond(Feed::new((state, base), record.clone(), 0, watched, presence))
}

/// The number of the last event that the reader has: from `Last-Event-ID`, which browsers send when they reconnect,
/// otherwise from the query's `after`. `None` if the reader names no event. An invalid header means that the reader has
/// no event. `signed` lists the parameters of the signature, which the handler has already checked.
pub(super) fn resume_point(headers: &HeaderMap, query: Option<&str>, signed: &[&str]) -> Result<Option<i64>, ApiError> {
    let mut fields = urlencoded::query(query)?;
    signed.iter().for_each(|name| drop(fields.take(name)));
    let after = fields.integer("after", 0, i64::MAX as u64).and_then(|after| i64::try_from(after).ok());
    let errors = fields.finish();
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Invalid { errors }));
    }
    let Some(last) = headers.get("last-event-id") else { return Ok(after) };
    let seq = last.to_str().ok().and_then(|text| text.trim().parse::<i64>().ok());
    Ok(Some(seq.filter(|seq| *seq >= 0).unwrap_or(0)))
}

/// The timer of a stream's pings.
pub(super) fn pings(state: &AppState) -> Interval {
    let pause: Duration = state.http.ping_interval_s.into();
    let mut ping = interval_at(Instant::now() + pause, pause);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping
}

/// The event that shows that the stream is alive; `None` if the reader may no longer read, because its key was revoked
/// or its URL has expired.
pub(super) async fn pong(state: &AppState, reader: Option<&Reader>) -> Result<Option<Frame>, ServiceError> {
    let may_go_on = match reader {
        Some(reader) => reader.may_go_on(&state.service).await?,
        None => true,
    };
    Ok(may_go_on.then(|| Frame::ephemeral("ping", &json!({}))))
}

fn respond(feed: Feed) -> Response {
    let prime = stream::iter([Ok(Frame::prime(RETRY_MS, feed.after).encode())]);
    let metrics = feed.state.metrics.clone();
    let frames = stream::unfold(feed, async |mut feed| Some((feed.next().await?, feed)));
    sse::respond(&metrics, prime.chain(frames))
}

type WatchedStream = Pin<Box<dyn Stream<Item = Result<Watched, ServiceError>> + Send>>;

/// The event stream of one generation to one reader.
struct Feed {
    state: AppState,
    base: Base,
    id: GenerationId,
    tenant: String,
    after: i64,
    watched: WatchedStream,
    presence: Presence,
    /// `None` if the stream is the answer to the request that created the generation. The right to read such a stream
    /// is not checked again.
    reader: Option<Reader>,
    ping: Interval,
    /// The newest progress, held back until `paused_until`.
    held: Option<Progress>,
    paused_until: Instant,
    ended: bool,
}

impl Feed {
    fn new(
        (state, base): (AppState, Base),
        Record { id, tenant, .. }: Record,
        after: i64,
        watched: WatchedStream,
        presence: Presence,
    ) -> Feed {
        let ping = pings(&state);
        let (held, paused_until) = (None, Instant::now());
        Feed { state, base, id, tenant, after, watched, presence, reader: None, ping, held, paused_until, ended: false }
    }

    async fn next(&mut self) -> Option<Result<Bytes, ServiceError>> {
        while !self.ended {
            let frame = tokio::select! {
                biased;
                () = self.state.draining.cancelled() => Ok(Some(self.drain())),
                watched = self.watched.next() => match watched {
                    None => return self.end(),
                    Some(Err(error)) => Err(error),
                    Some(Ok(Watched::Progress(progress))) => {
                        let replaced = self.held.replace(progress);
                        self.state.metrics.events_dropped.inc_by(replaced.is_some().into());
                        Ok(None)
                    }
                    Some(Ok(Watched::Preview(preview))) => Ok(preview_frame(&self.id, &preview)),
                    Some(Ok(Watched::Event(event))) => self.event(&event).await.map(Some),
                },
                // This branch comes after that of `watched`, so that all known events are sent first.
                () = self.state.service.stands_still(self.id, self.after) => Ok(Some(self.drain())),
                () = sleep_until(self.paused_until), if self.held.is_some() => Ok(self.progress()),
                _ = self.ping.tick() => match pong(&self.state, self.reader.as_ref()).await {
                    Ok(None) => return self.end(),
                    frame => frame,
                },
            };
            match frame {
                Ok(Some(frame)) => return Some(Ok(frame.encode())),
                Ok(None) => {}
                Err(ServiceError::NotFound) => return self.end(),
                Err(error) => {
                    // The status has already been sent. The broken stream makes the reader reconnect with its last
                    // event id.
                    tracing::error!(id = %self.id, %error, "an event stream failed");
                    self.presence.keep();
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// Ends the stream without an event: no further event will come, or the reader may no longer read the generation.
    fn end(&mut self) -> Option<Result<Bytes, ServiceError>> {
        self.presence.keep();
        self.ended = true;
        None
    }

    /// Ends the stream while the reader is still connected, because the server stops or the worker takes no more work.
    /// The generation continues after the restart, or when the worker takes work again.
    fn drain(&mut self) -> Frame {
        self.presence.keep();
        self.ended = true;
        Frame::ephemeral("server.draining", &json!({ "retry_ms": RETRY_MS }))
    }

    fn progress(&mut self) -> Option<Frame> {
        let progress = self.held.take()?;
        self.paused_until = Instant::now() + PROGRESS_PAUSE;
        Some(progress_frame(&self.id, progress))
    }

    async fn event(&mut self, event: &Event) -> Result<Frame, ServiceError> {
        self.after = event.seq;
        // The held progress is older than this event.
        self.held = None;
        let data = data(&self.state, &self.base, (Access::Tenant(&self.tenant), self.id), event).await?;
        if event.kind.is_terminal() {
            self.presence.keep();
        }
        Ok(Frame::durable(event.seq, event.kind.as_str(), &data))
    }
}

/// The data of a durable event of a generation, for a reader with this access.
pub(super) async fn data(
    state: &AppState,
    base: &Base,
    (access, id): (Access<'_>, GenerationId),
    event: &Event,
) -> Result<Value, ServiceError> {
    match event.kind {
        EventKind::Started | EventKind::Retrying => Ok(with_id(&id, event.data.clone())),
        EventKind::Queued => Ok(shown(state, base, &as_queued(state.service.get(access, id).await?))),
        EventKind::Succeeded | EventKind::Failed | EventKind::Canceled | EventKind::Expired => {
            generation_data(state, base, (access, id)).await
        }
    }
}

/// The data of the events that contain the whole generation as it is now.
pub(super) async fn generation_data(
    state: &AppState,
    base: &Base,
    (access, id): (Access<'_>, GenerationId),
) -> Result<Value, ServiceError> {
    Ok(shown(state, base, &state.service.get(access, id).await?))
}

fn shown(state: &AppState, base: &Base, view: &View) -> Value {
    json!({ "generation": generation::object(view, state.service.pace(), &state.signer, base) })
}

/// The generation as it was when it was accepted, for readers who replay its history from the beginning.
fn as_queued(view: View) -> View {
    let progress = None;
    let record = Record {
        status: Status::Queued,
        attempt: 0,
        started_at: None,
        finished_at: None,
        starred: false,
        expires_at: None,
        cancel_requested: false,
        ..view.record
    };
    View { record, progress, ..view }
}

/// The event of the newest progress.
pub(super) fn progress_frame(id: &GenerationId, progress: Progress) -> Frame {
    Frame::ephemeral("generation.progress", &with_id(id, serde_json::to_value(progress).unwrap_or_default()))
}

/// The event of a preview; `None` if the preview is too large.
pub(super) fn preview_frame(id: &GenerationId, preview: &Preview) -> Option<Frame> {
    let b64 = BASE64_STANDARD.encode(&preview.bytes);
    (b64.len() <= MAX_PREVIEW_BYTES).then(|| {
        let Preview { index, step, preview_index, media_type, .. } = preview;
        let data = json!({
            "id": id, "index": index, "step": step, "preview_index": preview_index, "content_type": media_type, "b64": b64,
        });
        Frame::ephemeral("generation.preview", &data)
    })
}

fn with_id(id: &GenerationId, mut data: Value) -> Value {
    if let Value::Object(map) = &mut data {
        map.insert("id".to_owned(), json!(id));
    }
    data
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;
    use crate::generation::Format;

    #[test]
    fn a_reader_resumes_after_what_it_has() {
        let last =
            |value: &str| HeaderMap::from_iter([(HeaderName::from_static("last-event-id"), value.parse().unwrap())]);
        let of = |headers: &HeaderMap, query| resume_point(headers, query, &["exp"]);
        assert_eq!(of(&HeaderMap::new(), None).unwrap(), None);
        assert_eq!(of(&HeaderMap::new(), Some("after=3")).unwrap(), Some(3));
        assert_eq!(of(&last("5"), Some("after=3")).unwrap(), Some(5));
        for unknown in ["", "x", "-1", "99999999999999999999"] {
            assert_eq!(of(&last(unknown), None).unwrap(), Some(0), "{unknown}");
        }
        for invalid in ["after=x", "after=-1", "after=null"] {
            assert!(of(&HeaderMap::new(), Some(invalid)).is_err(), "{invalid}");
            assert!(of(&last("5"), Some(invalid)).is_err(), "{invalid}");
        }
        assert_eq!(of(&HeaderMap::new(), Some("after=3&exp=1")).unwrap(), Some(3));
        for unknown in ["color=red", "sig=1"] {
            assert!(of(&HeaderMap::new(), Some(unknown)).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_preview_too_large_for_an_event_is_left_out() {
        let preview = |bytes| Preview {
            index: 0,
            step: 3,
            preview_index: 1,
            media_type: Format::Png.into(),
            bytes: Bytes::from(vec![0; bytes]),
        };
        let id = GenerationId::new();
        assert!(preview_frame(&id, &preview(49_152)).is_some());
        assert!(preview_frame(&id, &preview(49_153)).is_none());
    }
}
