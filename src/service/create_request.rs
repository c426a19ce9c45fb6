//! A request to create a generation, and its result.

use super::{Caller, View};
use crate::generation::{Fields, Format, GenerationId, WorkKind};

/// A request to create a generation.
#[derive(Debug)]
pub struct CreateRequest {
    pub caller: Caller,
    /// The kind of work that the request is for.
    pub kind: WorkKind,
    pub fields: Fields,
    pub repeatable: Repeatable,
    /// The default format of the files, which is not part of the request's fingerprint.
    pub format: Option<Format>,
}

/// How a repeated request is recognized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// A repeated request is not recognized: it makes a second generation.
    No,
    /// By the client's idempotency key.
    ByKey(String),
    /// By the id that the client has chosen.
    ById(GenerationId),
}

impl Repeatable {
    /// Whether a disconnected client can repeat the request and find the same generation.
    pub fn is_repeatable(&self) -> bool {
        *self != Repeatable::No
    }
}

/// The generation of a request.
#[derive(Clone, Debug)]
pub struct Created {
    pub view: View,
    /// Whether an earlier equal request created the generation.
    pub replayed: bool,
}
