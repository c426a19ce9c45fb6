//! Sends notifications about generations to clients' HTTP servers, according to Standard Webhooks 1.0.0.
//!
//! [`EndpointRegistry`] manages endpoints and checks the webhook of a request. [`Deliverer`] sends the messages that
//! the ledger holds. [`Guard`] decides which addresses may be contacted.

mod address;
mod deliverer;
mod guard;
mod receivers;
mod registry;
mod resolver;
mod retry_after;
mod retry_schedule;
mod sender;
mod signing;

pub use address::is_global;
pub use deliverer::Deliverer;
pub use guard::{Forbidden, Guard};
pub use receivers::Receivers;
pub use registry::{EndpointRegistry, RegistryError};
pub use resolver::{Resolver, SystemResolver};
pub use retry_after::retry_after;
pub use retry_schedule::RetrySchedule;
pub use sender::{Message, Sender, Sent};
pub use signing::{headers, signature};
