//! Tests of webhooks: signatures, the address guard, stored endpoints and deliveries, and messages that arrive.

#[path = "contract/conforms.rs"]
mod conforms;
#[path = "support/server.rs"]
mod harness;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "webhooks/receiver.rs"]
mod receiver;
#[path = "support/safety_checker.rs"]
mod safety_checker;

#[path = "webhooks/blocked.rs"]
mod blocked;
#[path = "webhooks/deliveries.rs"]
mod deliveries;
#[path = "webhooks/endpoints.rs"]
mod endpoints;
#[path = "webhooks/guarding.rs"]
mod guarding;
#[path = "webhooks/signing.rs"]
mod signing;
#[path = "webhooks/store.rs"]
mod store;
