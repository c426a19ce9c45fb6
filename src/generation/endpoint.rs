//! A registered receiver of webhooks, as the ledger stores it.

use time::OffsetDateTime;

use super::{EndpointId, WebhookEvent};

/// A registered receiver, without its secrets.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    pub terms: EndpointSettings,
    /// Whether the receiver has answered 410 and was disabled for that reason.
    pub gone: bool,
    /// Until this time, messages are also signed with the previous secret.
    pub old_secret_until: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// The properties of an endpoint that its owner sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    pub url: String,
    pub events: Vec<WebhookEvent>,
    /// The owner's description; free text.
    pub description: String,
    pub enabled: bool,
}
