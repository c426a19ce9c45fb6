//! The delivery of one webhook message, as the ledger stores it.

use time::OffsetDateTime;

use super::{DeliveryId, EventKind, GenerationId};

/// One message to one receiver of webhooks.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: DeliveryId,
    pub generation: GenerationId,
    pub kind: EventKind,
    pub state: DeliveryState,
    /// Number of attempts that were started.
    pub attempts: u32,
    /// HTTP status of the last answer, if there was one.
    pub last_status: Option<u16>,
    /// Why the last attempt had no answer.
    pub last_error: Option<String>,
    pub last_at: Option<OffsetDateTime>,
    /// When the next attempt is due; `None` unless the delivery is pending.
    pub due_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub ended_at: Option<OffsetDateTime>,
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    Pending,
    Delivered,
    /// No further attempts are made.
    Dead,
}

impl DeliveryState {
    /// The name in the API and in SQL.
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
