//! Who comes first.

use serde::{Deserialize, Serialize};

/// The place of a generation before and behind others, whatever their tenants' shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

impl Priority {
    /// As the ledger orders it: the greater, the earlier.
    pub fn rank(self) -> i16 {
        self as i16
    }
}
