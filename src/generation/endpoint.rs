//! What the ledger knows of a registered receiver of webhooks.

use time::OffsetDateTime;

use super::{EndpointId, WebhookEvent};

/// A registered receiver, without its secrets.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    pub terms: EndpointTerms,
    /// It has answered 410 and is disabled for that.
    pub gone: bool,
    /// Until then the secret before the present one signs too.
    pub old_secret_until: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// What an endpoint's owner decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTerms {
    pub url: String,
    pub events: Vec<WebhookEvent>,
    /// The owner's own words.
    pub description: String,
    pub enabled: bool,
}
