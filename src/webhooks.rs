//! The messenger: tells receivers of generations by HTTP, as Standard Webhooks 1.0.0 has it.
//!
//! [`Registry`] is the desk for endpoints and for what a request names; [`Courier`] sends what the ledger has for it. Between
//! the server and a receiver stands the [`Guard`]: what may not be reached is not connected to.

mod address;
mod courier;
mod guard;
mod receivers;
mod registry;
mod resolver;
mod retry_after;
mod schedule;
mod sender;
mod signing;

pub use address::is_global;
pub use courier::Courier;
pub use guard::{Forbidden, Guard};
pub use receivers::Receivers;
pub use registry::{Registry, RegistryError};
pub use resolver::{Resolver, SystemResolver};
pub use retry_after::retry_after;
pub use schedule::Schedule;
pub use sender::{Parcel, Sender, Sent};
pub use signing::{headers, signature};
