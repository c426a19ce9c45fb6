//! The ids of webhook endpoints and deliveries.

use super::named_id::named_id;

named_id! {
    /// The id of a webhook receiver that a tenant has registered.
    EndpointId, "whe_"
}

named_id! {
    /// The id of one message to one receiver: the header `webhook-id` of the message. All tries to send the message
    /// have the same id.
    DeliveryId, "msg_"
}
