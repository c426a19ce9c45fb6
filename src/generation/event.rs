//! The durable events of a generation.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::GenerationId;

/// One entry of a generation's history. `seq` counts from 1 without gaps, so that a reader can resume after any event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    pub seq: i64,
    pub kind: EventKind,
    /// The `data` of the server-sent event.
    pub data: Value,
}

/// An event with its number among the events of all generations of a tenant.
#[derive(Clone, Debug)]
pub struct TenantEvent {
    /// Counts the tenant's events from 1. Events of erased generations are missing.
    pub number: i64,
    /// The generation and its event; `None` if the store cannot read them.
    pub event: Option<(GenerationId, Event)>,
}

/// The kind of an event. The text of a kind is the name of the server-sent event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    #[serde(rename = "generation.queued")]
    Queued,
    #[serde(rename = "generation.started")]
    Started,
    #[serde(rename = "generation.retrying")]
    Retrying,
    #[serde(rename = "generation.succeeded")]
    Succeeded,
    #[serde(rename = "generation.failed")]
    Failed,
    #[serde(rename = "generation.canceled")]
    Canceled,
    #[serde(rename = "generation.expired")]
    Expired,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Queued => "generation.queued",
            EventKind::Started => "generation.started",
            EventKind::Retrying => "generation.retrying",
            EventKind::Succeeded => "generation.succeeded",
            EventKind::Failed => "generation.failed",
            EventKind::Canceled => "generation.canceled",
            EventKind::Expired => "generation.expired",
        }
    }

    /// The inverse of [`EventKind::as_str`].
    pub fn parse(text: &str) -> Option<EventKind> {
        serde_json::from_value(Value::String(text.to_owned())).ok()
    }

    /// Whether this event ends the generation. An operator can still revive a dead generation afterwards.
    pub fn is_terminal(self) -> bool {
        match self {
            EventKind::Queued | EventKind::Started | EventKind::Retrying => false,
            EventKind::Succeeded | EventKind::Failed | EventKind::Canceled | EventKind::Expired => true,
        }
    }
}
