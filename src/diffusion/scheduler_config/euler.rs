//! Options of the Euler family's noise levels.

use super::keys::Keys;
use crate::diffusion::error::InvalidScheduler;
use crate::diffusion::sigmas::Respacing;

/// `final_sigmas_type`: whether the last step ends without noise or at the level of timestep 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum FinalSigma {
    Zero,
    SigmaMin,
}

/// How the Euler family chooses its noise levels.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::diffusion) struct EulerLevels {
    pub respacing: Option<Respacing>,
    /// Whether levels are evenly spaced in `ln σ`, from the level of the last training timestep to the level of the
    /// first one (`interpolation_type`).
    pub log_linear: bool,
    /// Whether a network that predicts v receives `0.25 ln σ` as timestep (`timestep_type`).
    pub continuous: bool,
    pub end: FinalSigma,
}

impl EulerLevels {
    /// The levels of classes that have only respacing options.
    pub(in crate::diffusion) fn plain(respacing: Option<Respacing>) -> EulerLevels {
        EulerLevels { respacing, log_linear: false, continuous: false, end: FinalSigma::Zero }
    }
}

impl Keys<'_> {
    pub(in crate::diffusion) fn final_sigma(self) -> Result<FinalSigma, InvalidScheduler> {
        self.word("final_sigmas_type", "zero", &[("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::SigmaMin)])
    }
}
