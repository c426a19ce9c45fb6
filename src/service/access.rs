//! Who may see a generation.

use crate::generation::Record;

/// Whose generations somebody may see and change. To everybody else they are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// This tenant's.
    Tenant(&'a str),
    /// All: the operator, and whoever shows a right of its own to the one thing that it asks for.
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
