//! The wire format of server-sent events (WHATWG HTML, section 9.2).

use axum::{
    body::Body,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prometheus::IntGauge;
use serde::Serialize;

use crate::metrics::Metrics;

/// A response with a stream of encoded frames, which counts as open until it has ended or its reader has left.
pub fn respond<E>(metrics: &Metrics, frames: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Response
where
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // Widely used reverse proxies would otherwise hold events back to fill their buffers.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let open = Open::new(metrics.event_streams.clone());
    let frames = frames.map(move |frame| {
        let _open = &open;
        frame
    });
    (headers, Body::from_stream(frames)).into_response()
}

/// An open stream in the metrics.
struct Open(IntGauge);

impl Open {
    fn new(streams: IntGauge) -> Open {
        streams.inc();
        Open(streams)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One event. A frame without an id keeps the reader's last event id as it is, so that a reader resumes after the last
/// durable event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    retry_ms: Option<u32>,
    id: Option<i64>,
    event: Option<&'static str>,
    data: String,
}

impl Frame {
    /// The first frame of a stream: how soon to reconnect, and the id after which a reader resumes if it loses the
    /// stream at once.
    pub fn prime(retry_ms: u32, id: i64) -> Frame {
        Frame { retry_ms: Some(retry_ms), id: Some(id), ..Frame::default() }
    }

    /// An event with a number, after which a reader can resume.
    pub fn durable(seq: i64, event: &'static str, data: &impl Serialize) -> Frame {
        Frame { id: Some(seq), ..Frame::ephemeral(event, data) }
    }

    /// An event without a number.
    pub fn ephemeral(event: &'static str, data: &impl Serialize) -> Frame {
        // All data are JSON values, which always have a text.
        let data = serde_json::to_string(data).unwrap_or_default();
        Frame { event: Some(event), data, ..Frame::default() }
    }

    /// A comment, which keeps the connection alive and which readers ignore.
    pub fn comment() -> Bytes {
        Bytes::from_static(b": ping\n\n")
    }

    pub fn encode(&self) -> Bytes {
        let mut text = String::with_capacity(self.data.len() + 64);
        if let Some(retry) = self.retry_ms {
            text += &format!("retry: {retry}\n");
        }
        if let Some(id) = self.id {
            text += &format!("id: {id}\n");
        }
        if let Some(event) = self.event {
            text += &format!("event: {event}\n");
        }
        // JSON contains no raw line breaks, so one `data` line is enough.
        text += &format!("data: {}\n\n", self.data);
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn frames_read_as_the_standard_writes_them() {
        let cases = [
            (Frame::prime(2000, 0), "retry: 2000\nid: 0\ndata: \n\n"),
            (Frame::ephemeral("ping", &json!({})), "event: ping\ndata: {}\n\n"),
            (
                Frame::durable(7, "generation.started", &json!({"a": "b\nc"})),
                "id: 7\nevent: generation.started\ndata: {\"a\":\"b\\nc\"}\n\n",
            ),
        ];
        for (frame, expected) in cases {
            assert_eq!(frame.encode(), expected);
        }
    }
}
