//! A request to create a generation, and what became of it.

use std::sync::Arc;

use super::View;
use crate::generation::{Fields, Format, GenerationId};

/// A request to create a generation.
#[derive(Debug)]
pub struct Order {
    pub tenant: Arc<str>,
    pub fields: Fields,
    pub repeatable: Repeatable,
    /// The format of the pictures where the fields name none. It is no part of the request by which it is known again.
    pub format: Option<Format>,
}

/// How a request is known again that comes a second time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// Not at all: it makes a second generation.
    No,
    /// By the client's idempotency key.
    ByKey(String),
    /// By the id that the client has chosen.
    ById(GenerationId),
}

impl Repeatable {
    /// Whether a client that left can come back for the same generation without having heard of it.
    pub fn is_repeatable(&self) -> bool {
        *self != Repeatable::No
    }
}

/// The generation of a request.
#[derive(Clone, Debug)]
pub struct Created {
    pub view: View,
    /// The same request had made it before.
    pub replayed: bool,
}
