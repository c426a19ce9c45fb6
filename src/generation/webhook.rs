//! The field `webhook` of a request: the receiver of messages about the generation, and the events that the receiver
//! gets.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{EndpointId, EventKind, Fields, table};

/// The receiver of a request's webhook messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Webhook {
    /// A registered endpoint with its own address, events and secret.
    Endpoint { endpoint: EndpointId },
    /// An address that the request itself contains. Messages to it are signed with the secret of the settings.
    Url { url: String, events: Vec<WebhookEvent> },
}

/// An event that a receiver can subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookEvent {
    /// A worker has started the generation. Every attempt sends this event.
    Started,
    /// The generation has reached a final state.
    Completed,
}

impl WebhookEvent {
    pub const WORDS: [&str; 2] = ["started", "completed"];
    /// Maximum length of a list of events. Repeated words are allowed.
    pub const MOST: usize = 8;

    /// The webhook event for a durable event; `None` if no webhook reports it.
    pub fn of(kind: EventKind) -> Option<WebhookEvent> {
        match kind {
            EventKind::Queued | EventKind::Retrying => None,
            EventKind::Started => Some(WebhookEvent::Started),
            EventKind::Succeeded | EventKind::Failed | EventKind::Canceled | EventKind::Expired => {
                Some(WebhookEvent::Completed)
            }
        }
    }

    /// Reads the field `events`: one or more of [`WebhookEvent::WORDS`]; the default is `completed`.
    pub fn read(fields: &mut Fields) -> Vec<WebhookEvent> {
        let words = match fields.take("events") {
            None => return vec![WebhookEvent::Completed],
            Some(Value::Array(words)) if (1..=WebhookEvent::MOST).contains(&words.len()) => words,
            Some(Value::Array(words)) => {
                fields.error(
                    "events",
                    "out_of_range",
                    format!("must have 1 to {} entries, not {}", WebhookEvent::MOST, words.len()),
                );
                return Vec::new();
            }
            Some(other) => {
                fields.wrong_type::<()>("events", "a list of words", &other);
                return Vec::new();
            }
        };
        let mut events = BTreeSet::new();
        for (at, word) in words.into_iter().enumerate() {
            match serde_json::from_value(word) {
                Ok(event) => {
                    events.insert(event);
                }
                Err(_) => {
                    let detail = format!("must be one of {}", WebhookEvent::WORDS.join(", "));
                    fields.error_at(&["events", &at.to_string()], "invalid_value", detail);
                }
            }
        }
        events.into_iter().collect()
    }
}

impl Webhook {
    /// Longest address, in characters.
    pub const MAX_URL_CHARS: usize = 2048;

    /// A name of the receiver, by which its messages in flight are counted: the endpoint's id, or scheme, host and port
    /// of the address.
    pub fn receiver(&self) -> String {
        match self {
            Webhook::Endpoint { endpoint } => endpoint.to_string(),
            Webhook::Url { url, .. } => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
                let host = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
                format!("{scheme}://{host}").to_ascii_lowercase()
            }
        }
    }

    /// Reads the field `webhook`. The function checks neither whether the endpoint exists nor whether the address is
    /// allowed.
    pub(super) fn read(fields: &mut Fields) -> Option<Webhook> {
        let webhook = fields.nested(&table::WEBHOOK, |webhook| {
            let endpoint = webhook.text("endpoint", 64);
            let url = webhook.text("url", Webhook::MAX_URL_CHARS);
            match (endpoint, url) {
                (Some(_), Some(_)) => webhook.error("url", "conflict", "excludes endpoint"),
                (Some(endpoint), None) => match endpoint.parse() {
                    Ok(endpoint) => return Some(Webhook::Endpoint { endpoint }),
                    Err(_) => webhook.error("endpoint", "invalid_value", "must be the id of a webhook endpoint"),
                },
                (None, Some(url)) => return Some(Webhook::Url { url, events: WebhookEvent::read(webhook) }),
                (None, None) if !webhook.has_errors() => {
                    webhook.error("endpoint", "required", "or url is required");
                }
                (None, None) => {}
            }
            None
        });
        webhook.flatten()
    }
}

impl Fields {
    /// Reads the field `webhook` without taking it, so that the caller can check the endpoint or the address. `None` if
    /// the field is absent or malformed.
    pub fn webhook(&self) -> Option<Webhook> {
        let value = self.peek("webhook")?.clone();
        let mut alone = Fields::new(Map::from_iter([("webhook".to_owned(), value)]));
        let webhook = Webhook::read(&mut alone);
        webhook.filter(|_| alone.finish().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Option<Webhook>, Vec<(String, &'static str)>> {
        let mut fields = Fields::new(Map::from_iter([("webhook".to_owned(), value)]));
        let peeked = fields.webhook();
        let webhook = Webhook::read(&mut fields);
        let errors: Vec<_> = fields.finish().into_iter().map(|error| (error.pointer, error.code)).collect();
        if errors.is_empty() {
            assert_eq!(peeked, webhook);
            Ok(webhook)
        } else {
            assert_eq!(peeked, None);
            Err(errors)
        }
    }

    #[test]
    fn a_webhook_is_an_endpoint_or_an_address() {
        let endpoint = EndpointId::new();
        assert_eq!(read(json!({"endpoint": endpoint})), Ok(Some(Webhook::Endpoint { endpoint })));
        let url = || "https://example.org/".to_owned();
        assert_eq!(
            read(json!({"url": url()})),
            Ok(Some(Webhook::Url { url: url(), events: vec![WebhookEvent::Completed] }))
        );
        assert_eq!(
            read(json!({"url": url(), "events": ["completed", "started", "completed"]})),
            Ok(Some(Webhook::Url { url: url(), events: vec![WebhookEvent::Started, WebhookEvent::Completed] }))
        );
        assert_eq!(read(json!(null)), Ok(None));
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        let url = "https://example.org/";
        let refused = |value: Value, pointer: &str, code: &'static str| {
            assert_eq!(read(value.clone()), Err(vec![(pointer.to_owned(), code)]), "{value}");
        };
        refused(json!({}), "/webhook/endpoint", "required");
        refused(json!("https://example.org/"), "/webhook", "wrong_type");
        refused(json!({"endpoint": "img_x"}), "/webhook/endpoint", "invalid_value");
        refused(json!({"endpoint": EndpointId::new(), "url": url}), "/webhook/url", "conflict");
        refused(json!({"endpoint": EndpointId::new(), "events": ["started"]}), "/webhook/events", "unknown_field");
        refused(json!({"url": "x".repeat(2049)}), "/webhook/url", "out_of_range");
        refused(json!({"url": 5}), "/webhook/url", "wrong_type");
        refused(json!({"url": url, "events": []}), "/webhook/events", "out_of_range");
        refused(json!({"url": url, "events": vec!["started"; 9]}), "/webhook/events", "out_of_range");
        refused(json!({"url": url, "events": "started"}), "/webhook/events", "wrong_type");
        refused(json!({"url": url, "events": ["started", "ended"]}), "/webhook/events/1", "invalid_value");
        refused(json!({"url": url, "secret": "x"}), "/webhook/secret", "unknown_field");
    }

    #[test]
    fn a_receiver_is_an_endpoint_or_a_host() {
        let endpoint = EndpointId::new();
        assert_eq!(Webhook::Endpoint { endpoint }.receiver(), endpoint.to_string());
        for (url, receiver) in [
            ("https://Example.org/a?b", "https://example.org"),
            ("https://example.org:8443?b", "https://example.org:8443"),
            ("https://example.org\\a", "https://example.org"),
            ("http://[::1]#c", "http://[::1]"),
        ] {
            let webhook = Webhook::Url { url: url.to_owned(), events: Vec::new() };
            assert_eq!(webhook.receiver(), receiver, "{url}");
        }
    }

    #[test]
    fn a_stored_webhook_is_read_unchanged() {
        let endpoint = Webhook::Endpoint { endpoint: EndpointId::new() };
        let url = Webhook::Url { url: "https://example.org/".to_owned(), events: vec![WebhookEvent::Started] };
        for webhook in [endpoint, url] {
            let text = serde_json::to_string(&webhook).unwrap();
            assert_eq!(serde_json::from_str::<Webhook>(&text).unwrap(), webhook);
        }
    }
}
