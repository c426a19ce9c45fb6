//! The wire format of server-sent events (WHATWG HTML, section 9.2).

use bytes::Bytes;
use serde::Serialize;

/// One event. Without an id it leaves the reader's last event id as it is, so that a reader resumes after the last
/// durable event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    retry_ms: Option<u32>,
    id: Option<i64>,
    event: Option<&'static str>,
    data: String,
}

impl Frame {
    /// The first frame of a stream: how soon to reconnect, and an id for a reader that loses the stream at once.
    pub fn prime(retry_ms: u32, id: i64) -> Frame {
        Frame { retry_ms: Some(retry_ms), id: Some(id), ..Frame::default() }
    }

    pub fn durable(seq: i64, event: &'static str, data: &impl Serialize) -> Frame {
        Frame { id: Some(seq), ..Frame::ephemeral(event, data) }
    }

    pub fn ephemeral(event: &'static str, data: &impl Serialize) -> Frame {
        // What is sent are structs of strings and numbers, which have no way to fail.
        let data = serde_json::to_string(data).unwrap_or_default();
        Frame { event: Some(event), data, ..Frame::default() }
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
        // JSON has no raw line ends, so that one line always holds it.
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
            (Frame::durable(7, "generation.started", &json!({"a": "b\nc"})), "id: 7\nevent: generation.started\ndata: {\"a\":\"b\\nc\"}\n\n"),
        ];
        for (frame, expected) in cases {
            assert_eq!(frame.encode(), expected);
        }
    }
}
