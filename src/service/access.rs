//! Which generations a caller may see.

use crate::generation::Record;

/// The generations that a caller may see and change. Other generations do not exist for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// The generations of this tenant.
    Tenant(&'a str),
    /// All generations: for the operator, and for a request whose access was checked before, such as a request with a
    /// signed URL.
    Full,
}

impl Access<'_> {
    pub(super) fn admits(self, record: &Record) -> bool {
        match self {
            Access::Tenant(tenant) => record.tenant == tenant,
            Access::Full => true,
        }
    }
}
