//! Webhooks as the ledger keeps them: who is told, and what is still to be told.
//!
//! A delivery is written in the very transaction that appends the event which it tells of, so none is lost between the
//! two. It is sent at least once, by one process at a time, and after those of the same generation that came before it.

use std::time::Duration;

use crate::generation::{DeliveryId, EndpointId, EndpointTerms, GenerationId, SigningSecret};

#[derive(Clone, Debug)]
pub struct NewEndpoint<'a> {
    pub id: EndpointId,
    pub tenant: &'a str,
    pub terms: &'a EndpointTerms,
    pub secret: &'a SigningSecret,
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
