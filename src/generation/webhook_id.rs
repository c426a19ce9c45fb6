//! The names of what sends webhooks.

use super::named_id::named_id;

named_id! {
    /// A receiver of webhooks that a tenant has registered.
    EndpointId, "whe_"
}

named_id! {
    /// One message to one receiver, the same on every try: its `webhook-id`.
    DeliveryId, "msg_"
}
