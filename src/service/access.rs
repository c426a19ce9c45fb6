//! Which generations a caller may see.

use crate::generation::{Record, WorkKind};

/// The generations that a caller may see and change. Other generations do not exist for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// The generations of this tenant.
    Tenant(&'a str),
    /// All generations: for the operator, and for a request whose access was checked before, such as a request with a
    /// signed URL.
    Full,
}

impl<'a> Access<'a> {
    /// Restricts the access to generations of this kind.
    pub fn of_kind(self, kind: WorkKind) -> Reach<'a> {
        Reach { access: self, kind: Some(kind) }
    }
}

/// The generations that a request can reach: the generations of an access, of one kind or of all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach<'a> {
    access: Access<'a>,
    /// `None` for all kinds.
    kind: Option<WorkKind>,
}

impl<'a> From<Access<'a>> for Reach<'a> {
    fn from(access: Access<'a>) -> Reach<'a> {
        Reach { access, kind: None }
    }
}

impl Reach<'_> {
    pub(super) fn admits(self, record: &Record) -> bool {
        let is_admitted = match self.access {
            Access::Tenant(tenant) => record.tenant == tenant,
            Access::Full => true,
        };
        is_admitted && self.kind.is_none_or(|kind| record.job.work.kind() == kind)
    }
}
