//! How exactly the networks of a generation compute.

use serde::{Deserialize, Serialize};

/// How exactly the networks of a generation compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// With the accuracy of float32, or of `models.precision` on a GPU.
    #[default]
    Exact,
    /// With rounded numbers where the machine computes these faster: an approximation. Elsewhere this is the same as
    /// `Exact`.
    Fast,
}

impl Precision {
    /// The word of requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::Exact => "exact",
            Precision::Fast => "fast",
        }
    }
}
