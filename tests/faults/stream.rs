//! Reads server-sent events and checks whether they form a complete history.

use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::Value;

/// A server-sent event. Only durable events have an id.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: Option<i64>,
    pub name: String,
}

/// The complete events of a stream; a truncated last event is dropped.
pub fn parse(stream: &str) -> Vec<Event> {
    let whole = stream.rfind("\n\n").map_or("", |end| &stream[..end]);
    whole.split("\n\n").filter_map(event).collect()
}

fn event(block: &str) -> Option<Event> {
    let value = |field: &str| {
        let found = block.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.map(|rest| rest.strip_prefix(' ').unwrap_or(rest))
    };
    // The data of every event must be JSON.
    serde_json::from_str::<Value>(value("data")?).ok()?;
    Some(Event { name: value("event")?.to_owned(), id: value("id").and_then(|id| id.parse().ok()) })
}

/// Reads a stream for at most this time; returns the status and the events that have arrived. `None` without an answer.
pub async fn read(client: &Client, url: &str, last: i64, time: Duration) -> Option<(StatusCode, Vec<Event>)> {
    let deadline = Instant::now() + time;
    let request = client.get(url).header("Last-Event-ID", last.to_string()).send();
    let mut response = tokio::time::timeout_at(deadline.into(), request).await.ok()?.ok()?;
    let mut text = Vec::new();
    while let Ok(Ok(Some(piece))) = tokio::time::timeout_at(deadline.into(), response.chunk()).await {
        text.extend_from_slice(&piece);
    }
    Some((response.status(), parse(&String::from_utf8_lossy(&text))))
}

/// Whether an event of this name ends its generation.
pub fn is_terminal(name: &str) -> bool {
    let ends = ["generation.succeeded", "generation.failed", "generation.canceled", "generation.expired"];
    ends.contains(&name)
}

/// Whether the durable events form a complete history: ids without gaps, and exactly one terminal event, which is the
/// last.
pub fn is_history(events: &[Event]) -> bool {
    let durable: Vec<&Event> = events.iter().filter(|event| event.id.is_some()).collect();
    let numbered = durable.iter().zip(1..).all(|(event, number)| event.id == Some(number));
    let ends: Vec<bool> = durable.iter().map(|event| is_terminal(&event.name)).collect();
    numbered && ends.iter().filter(|is_end| **is_end).count() == 1 && ends.last() == Some(&true)
}

#[test]
fn histories_with_gaps_repetitions_or_no_end_are_rejected() {
    let history = |ids: &[i64], last: &str| {
        let blocks = ids.iter().map(|id| {
            let name = if Some(id) == ids.last() { last } else { "generation.started" };
            format!("id: {id}\nevent: {name}\ndata: {{}}\n\n")
        });
        is_history(&parse(&blocks.collect::<String>()))
    };
    assert!(history(&[1, 2, 3], "generation.failed"));
    assert!(!history(&[1, 3], "generation.failed"), "a gap");
    assert!(!history(&[1, 2, 2], "generation.failed"), "a repetition");
    assert!(!history(&[1, 2, 3], "generation.retrying"), "no end");
    assert!(!history(&[], "generation.failed"), "nothing");
    let cut = "id: 1\nevent: generation.queued\ndata: {}\n\nid: 2\nevent: generation.started\nda";
    assert_eq!(parse(cut).len(), 1);
}
