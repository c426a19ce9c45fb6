//! The priority of a generation in the queue.

use serde::{Deserialize, Serialize};

/// The priority of a generation. The queue is ordered by priority first; among equal priorities, the fair shares of the
/// tenants decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

impl Priority {
    /// The word of requests and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }

    /// The number by which the ledger orders the queue. Generations with larger ranks start earlier.
    pub fn rank(self) -> i16 {
        self as i16
    }
}
