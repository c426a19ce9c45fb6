//! Webhooks as the ledger keeps them: who is told, and what is still to be told.
//!
//! A delivery is written in the very transaction that appends the event which it tells of, so none is lost between the
//! two. It is sent at least once, by one process at a time, and after those of the same generation that came before it.

use std::time::Duration;

use time::OffsetDateTime;

use crate::generation::{DeliveryId, EndpointId, EventKind, GenerationId, SigningSecret, WebhookEvent};

/// What an endpoint's owner decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTerms {
    pub url: String,
    pub events: Vec<WebhookEvent>,
    /// The owner's own words.
    pub description: String,
    pub enabled: bool,
}

#[derive(Clone, Debug)]
pub struct NewEndpoint<'a> {
    pub id: EndpointId,
    pub tenant: &'a str,
    pub terms: &'a EndpointTerms,
    pub secret: &'a SigningSecret,
}

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

/// One message to one receiver.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: DeliveryId,
    pub generation: GenerationId,
    pub kind: EventKind,
    pub state: DeliveryState,
    /// Tries that were begun.
    pub attempts: u32,
    /// Status of the last answer, where there was one.
    pub last_status: Option<u16>,
    /// Why there was none.
    pub last_error: Option<String>,
    pub last_at: Option<OffsetDateTime>,
    /// When it is tried next; of a pending one.
    pub due_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub ended_at: Option<OffsetDateTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    Pending,
    Delivered,
    /// Given up.
    Dead,
}

impl DeliveryState {
    /// The word of the API and the SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Pending => "pending",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Dead => "dead",
        }
    }

    /// The inverse of [`DeliveryState::as_str`].
    pub fn parse(text: &str) -> Option<DeliveryState> {
        [DeliveryState::Pending, DeliveryState::Delivered, DeliveryState::Dead]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

#[derive(Clone, Debug)]
pub struct DeliveryPage {
    pub deliveries: Vec<Delivery>,
    pub has_more: bool,
}

/// The right to write what one try has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryClaim {
    pub(in crate::ledger) id: DeliveryId,
    pub(in crate::ledger) fence: i64,
}

impl DeliveryClaim {
    pub fn id(&self) -> DeliveryId {
        self.id
    }
}

/// A delivery to be tried now.
#[derive(Clone, Debug)]
pub struct ClaimedDelivery {
    pub claim: DeliveryClaim,
    pub generation: GenerationId,
    /// As [`Webhook::receiver`](crate::generation::Webhook::receiver) has it.
    pub receiver: String,
    pub url: String,
    /// Those of its endpoint that sign at present, the newest first; empty where the address is the request's own.
    pub secrets: Vec<SigningSecret>,
    pub body: String,
    /// With this one.
    pub attempts: u32,
}

/// What a receiver has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: Option<u16>,
    /// Why there is no status.
    pub error: Option<String>,
}

/// What becomes of a delivery after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    Retry {
        after: Duration,
    },
    Dead,
    /// Dead, and its endpoint is disabled with all that is pending for it.
    Gone,
}
