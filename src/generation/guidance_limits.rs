//! Limits of guidance, for models of the family Z-Image.

use serde::{Deserialize, Serialize};

use super::{Fields, field::Bounds, table};

/// Limits of guidance, with the names and the meaning that diffusers' `ZImagePipeline` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuidanceLimits {
    /// Whether a guided prediction that has a larger norm than the prediction for the prompt is scaled down to the same
    /// norm.
    pub cfg_normalization: bool,
    /// The time, from 0 for noise to 1 for the picture, after which there is no guidance.
    pub cfg_truncation: f64,
}

impl GuidanceLimits {
    /// The limits of a request; `None` for models without them.
    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>) -> Option<GuidanceLimits> {
        on.card.limits_guidance.then(|| GuidanceLimits {
            cfg_normalization: fields.get_or_default(&table::CFG_NORMALIZATION, on),
            cfg_truncation: fields.get_or_default(&table::CFG_TRUNCATION, on),
        })
    }

    /// Whether the call at this training timestep has no guidance.
    pub fn truncates(&self, t: f64) -> bool {
        f64::from((1000.0 - t as f32) / 1000.0) > self.cfg_truncation
    }
}
