//! Webhook endpoints and deliveries. A delivery is the row of one message. The transaction that writes an event also
//! writes its deliveries, so no crash can keep the event and lose a delivery. A delivery is sent at least once, by one
//! process at a time, and after the earlier deliveries of its generation.

use std::time::Duration;

use crate::generation::{DeliveryId, EndpointId, EndpointSettings, GenerationId, SigningSecret, TraceContext};

/// An endpoint to be registered.
#[derive(Clone, Debug)]
pub struct NewEndpoint<'a> {
    pub id: EndpointId,
    pub tenant: &'a str,
    pub terms: &'a EndpointSettings,
    pub secret: &'a SigningSecret,
}

/// The right to store the outcome of one attempt to deliver a message.
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

/// A delivery that is attempted now.
#[derive(Clone, Debug)]
pub struct ClaimedDelivery {
    pub claim: DeliveryClaim,
    pub generation: GenerationId,
    /// See [`Webhook::receiver`](crate::generation::Webhook::receiver).
    pub receiver: String,
    pub url: String,
    /// The endpoint's secrets that sign at present, newest first; empty if the request itself named the URL.
    pub secrets: Vec<SigningSecret>,
    pub body: String,
    /// Number of attempts, including this one.
    pub attempts: u32,
    /// The trace of the generation; `None` if it is unknown.
    pub trace: Option<TraceContext>,
}

/// What a receiver has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryAnswer {
    pub status: Option<u16>,
    /// Why there is no status.
    pub error: Option<String>,
}

/// What happens to a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    Retry {
        after: Duration,
    },
    Dead,
    /// The delivery is dead, its endpoint is disabled, and the pending deliveries of the endpoint are dead too.
    Gone,
}
