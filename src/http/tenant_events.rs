//! `GET /v1/events`: the events of all generations of the caller's tenant as one stream, which a reader can resume on
//! any process.

use std::pin::Pin;

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::time::Interval;

use super::{
    AppState,
    base::Base,
    caller::Caller,
    error::ApiError,
    events::{self, RETRY_MS, pings, resume_point},
    signed::Reader,
    sse,
    sse::Frame,
    url,
};
use crate::{
    generation::OwnerChange,
    service::{Access, ServiceError, TenantWatched, Watched, WatchedOfTenant},
};

/// The event stream of the caller's tenant. Without `Last-Event-ID` and `after`, the stream begins with the next event.
pub async fn events(
    State(mut state): State<AppState>,
    caller: Result<Caller, ApiError>,
    base: Base,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let reader = state.signer.tenant_reader(&state.service, url::TENANT_EVENTS, query.as_deref(), caller).await?;
    let after = resume_point(&headers, query.as_deref(), &["key", "exp", "sig"])?;
    let Access::Tenant(tenant) = reader.access() else { return Err(ApiError::SignatureInvalid) };
    if after.is_some_and(|after| after > 0) {
        state.metrics.event_streams_resumed.inc();
    }
    let (after, watched) = state.service.watch_tenant(tenant.into(), after).await?;
    state.signer = state.signer.for_reader(&reader);
    let prime = stream::iter([Ok(Frame::prime(RETRY_MS, after).encode())]);
    let feed = Feed { ping: pings(&state), state, base, reader, watched: Box::pin(watched), ended: false };
    let metrics = feed.state.metrics.clone();
    let frames = stream::unfold(feed, async |mut feed| Some((feed.next().await?, feed)));
    Ok(sse::respond(&metrics, prime.chain(frames)))
}

/// The event stream of one tenant to one reader.
struct Feed {
    state: AppState,
    base: Base,
    reader: Reader,
    watched: Pin<Box<dyn Stream<Item = Result<TenantWatched, ServiceError>> + Send>>,
    ping: Interval,
    ended: bool,
}

impl Feed {
    async fn next(&mut self) -> Option<Result<Bytes, ServiceError>> {
        while !self.ended {
            let frame = tokio::select! {
                biased;
                () = self.state.draining.cancelled() => {
                    self.ended = true;
                    Ok(Some(Frame::ephemeral("server.draining", &json!({ "retry_ms": RETRY_MS }))))
                }
                watched = self.watched.next() => match watched? {
                    Ok(watched) => frame(&self.state, &self.base, &self.reader, watched).await,
                    Err(error) => Err(error),
                },
                _ = self.ping.tick() => match events::pong(&self.state, Some(&self.reader)).await {
                    Ok(None) => return None,
                    frame => frame,
                },
            };
            match frame {
                Ok(Some(frame)) => return Some(Ok(frame.encode())),
                Ok(None) => {}
                Err(error) => {
                    // The broken stream makes the reader reconnect with its last event id.
                    tracing::error!(%error, "an event stream failed");
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// The frame to send. `None` if the preview is too large, or if the generation was erased meanwhile.
async fn frame(
    state: &AppState,
    base: &Base,
    reader: &Reader,
    TenantWatched { id, number, watched }: TenantWatched,
) -> Result<Option<Frame>, ServiceError> {
    let of = (reader.access(), id);
    let frame = match watched {
        WatchedOfTenant::Watched(Watched::Progress(progress)) => {
            return Ok(Some(events::progress_frame(&id, progress)));
        }
        WatchedOfTenant::Watched(Watched::Preview(preview)) => return Ok(events::preview_frame(&id, &preview)),
        WatchedOfTenant::Watched(Watched::Event(event)) => {
            let data = events::data(state, base, of, &event).await;
            data.map(|data| number.map(|number| Frame::durable(number, event.kind.as_str(), &data)))
        }
        WatchedOfTenant::ChangedByOwner(change) => {
            let data = match change {
                OwnerChange::Deleted => Ok(json!({ "id": id })),
                OwnerChange::Starred | OwnerChange::Unstarred => events::generation_data(state, base, of).await,
            };
            data.map(|data| Some(Frame::ephemeral(change.as_str(), &data)))
        }
    };
    match frame {
        Err(ServiceError::NotFound) => Ok(None),
        frame => frame,
    }
}
