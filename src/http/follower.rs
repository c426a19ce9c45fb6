//! Follows one generation for a stream of a protocol other than the native one.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use tokio::time::Interval;

use super::{AppState, error::ApiError, events::pings, presence::Presence, url::Location};
use crate::{
    generation::{Artifact, GenerationId, Record},
    service::{Access, Preview, Progress, ServiceError, Watched},
};

/// Follows a generation until it ends, or the server stops.
pub struct Follower {
    state: AppState,
    record: Record,
    presence: Presence,
    watched: Pin<Box<dyn Stream<Item = Result<Watched, ServiceError>> + Send>>,
    ping: Interval,
    /// The number of the last event that was seen.
    seen: i64,
}

/// What happened to the generation.
#[derive(Debug)]
pub enum Seen {
    Progress(Progress),
    Preview(Preview),
    /// The generation has succeeded. Nothing follows.
    Succeeded(Box<Record>, Vec<Artifact>),
    /// The generation has no picture, or cannot be followed any longer. Nothing follows.
    Failed(ApiError),
    /// Every `http.ping_interval_s`, it is time to send something to keep the connection alive.
    Ping,
}

impl Follower {
    pub fn new(state: AppState, record: Record, presence: Presence) -> Follower {
        let (watched, ping) = (Box::pin(state.service.watch(&record, 0)), pings(&state));
        Follower { state, record, presence, watched, ping, seen: 0 }
    }

    /// The record of the generation as it was when the follower was made.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Waits for the next thing that happens. If the client disconnects before the end, the [`Presence`] is dropped
    /// with the follower and cancels the generation if the request wants that.
    pub async fn next(&mut self) -> Seen {
        let at = Location::of(&self.record);
        let id = at.id;
        let seen = loop {
            tokio::select! {
                biased;
                () = self.state.draining.cancelled() => break Err(ApiError::Draining(Some(at))),
                watched = self.watched.next() => match watched {
                    Some(Ok(Watched::Preview(preview))) => return Seen::Preview(preview),
                    Some(Ok(Watched::Progress(progress))) => return Seen::Progress(progress),
                    Some(Ok(Watched::Event(event))) => {
                        self.seen = event.seq;
                        if event.kind.is_terminal() {
                            break ended(&self.state, id).await;
                        }
                    }
                    Some(Err(error)) => break Err(error.into()),
                    None => break Err(ApiError::NotFound("generation")),
                },
                // This branch comes after that of `watched`, so that all known events are seen first.
                () = self.state.service.stands_still(id, self.seen) => break Err(ApiError::Draining(Some(at))),
                _ = self.ping.tick() => return Seen::Ping,
            }
        };
        self.presence.keep();
        match seen {
            Ok((record, artifacts)) => Seen::Succeeded(Box::new(record), artifacts),
            Err(error) => Seen::Failed(error),
        }
    }
}

/// The generation and its artifacts if it has succeeded; otherwise the error of its state.
async fn ended(state: &AppState, id: GenerationId) -> Result<(Record, Vec<Artifact>), ApiError> {
    let record = state.service.find(Access::Full, id).await?;
    let artifacts = state.artifacts(&record)?;
    Ok((record, artifacts))
}
