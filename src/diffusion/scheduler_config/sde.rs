//! Options that the score SDE classes share.

use super::keys::Keys;
use crate::diffusion::error::InvalidScheduler;

/// The largest number of corrections per step.
const MAX_CORRECT_STEPS: usize = 100;

impl Keys<'_> {
    /// The time of the last step; the first step is at time 1.
    pub(in crate::diffusion) fn sampling_eps(self, default: f64) -> Result<f64, InvalidScheduler> {
        let key = "sampling_eps";
        Ok(self.number(key, "from 1e-6 to 1", |eps| (1e-6..=1.0).contains(&eps))?.unwrap_or(default))
    }

    /// The number of corrections before each prediction.
    pub(in crate::diffusion) fn correct_steps(self, default: usize) -> Result<usize, InvalidScheduler> {
        self.integer("correct_steps", default, 0, MAX_CORRECT_STEPS)
    }
}
