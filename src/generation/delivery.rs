//! What the ledger knows of a message to a receiver of webhooks.

use time::OffsetDateTime;

use super::{DeliveryId, EventKind, GenerationId};

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
