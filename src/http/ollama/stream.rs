//! The lines of a generation as Ollama's clients read them: JSON objects with the progress, then an object with the
//! picture.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::{Extensions, HeaderName, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use serde_json::Value;

use super::{answer, request::About};
use crate::{
    generation::Record,
    http::{
        AppState,
        error::ApiError,
        follower::{Follower, Seen},
        listener::AnswerRoom,
        presence::Presence,
    },
};

/// Answers with the lines of a generation.
pub fn respond(state: AppState, about: About, record: Record, extensions: Extensions, presence: Presence) -> Response {
    let (at, follower) = ((0, record.job.work.steps()), Follower::new(state.clone(), record, presence));
    let lines = Lines { state, about, extensions, follower, at, begun: false, ended: false, room: None };
    let lines = stream::unfold(lines, async |mut lines| Some((Ok::<_, Infallible>(lines.next().await?), lines)));
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        // Widely used reverse proxies would otherwise hold lines back to fill their buffers.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(lines)).into_response()
}

/// The lines of one generation for one client.
struct Lines {
    state: AppState,
    about: About,
    extensions: Extensions,
    follower: Follower,
    /// Completed steps, and all steps.
    at: (u32, u32),
    begun: bool,
    ended: bool,
    /// Room for the picture, until the client has taken it.
    room: Option<AnswerRoom>,
}

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !self.begun {
            self.begun = true;
            return Some(self.progress());
        }
        loop {
            match self.follower.next().await {
                Seen::Progress(progress) if progress.steps > 0 && (progress.step, progress.steps) != self.at => {
                    self.at = (progress.step, progress.steps);
                    return Some(self.progress());
                }
                Seen::Progress(_) | Seen::Preview(_) => {}
                // These lines have no comments that could keep the connection alive, so the same progress is sent
                // again.
                Seen::Ping => return Some(self.progress()),
                Seen::Succeeded(record, artifacts) => {
                    self.ended = true;
                    let last = answer::last(&self.state, &self.about, &record, &artifacts, &self.extensions).await;
                    return Some(match last {
                        Ok((room, line)) => {
                            self.room = room;
                            encoded(&line)
                        }
                        Err(error) => failed(&error),
                    });
                }
                Seen::Failed(error) => {
                    self.ended = true;
                    return Some(failed(&error));
                }
            }
        }
    }

    fn progress(&self) -> Bytes {
        encoded(&answer::progress(&self.about, self.at.0, self.at.1))
    }
}

/// The line of an error. The status of the answer has already been sent.
fn failed(error: &ApiError) -> Bytes {
    let problem = error.problem();
    if let Some(cause) = &problem.cause {
        tracing::error!(cause, "a stream failed");
    }
    encoded(&super::error(&problem))
}

fn encoded(line: &Value) -> Bytes {
    format!("{line}\n").into()
}
