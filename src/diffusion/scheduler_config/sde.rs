//! The options of the score SDEs.

use super::keys::{Keys, MAX_TRAIN_TIMESTEPS};
use crate::diffusion::error::InvalidScheduler;

/// The options of `ScoreSdeVeScheduler`, and `probability_flow`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::diffusion) struct ScoreSdeVe {
    pub(in crate::diffusion) sigma_min: f64,
    pub(in crate::diffusion) sigma_max: f64,
    /// The time of the last step; the first is at 1.
    pub(in crate::diffusion) sampling_eps: f64,
    pub(in crate::diffusion) snr: f64,
    /// Corrections before each prediction.
    pub(in crate::diffusion) correct_steps: usize,
    pub(in crate::diffusion) probability_flow: bool,
}

/// The options of `ScoreSdeVpScheduler`, and `snr`, `correct_steps` and `probability_flow`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::diffusion) struct ScoreSdeVp {
    beta_min: f64,
    beta_max: f64,
    pub(in crate::diffusion) sampling_eps: f64,
    pub(in crate::diffusion) snr: f64,
    /// Corrections before each prediction.
    pub(in crate::diffusion) correct_steps: usize,
    pub(in crate::diffusion) probability_flow: bool,
    /// The timestep that the network is told at time 1.
    last_timestep: f64,
}

impl ScoreSdeVp {
    /// `β(t)` at a time in (0, 1].
    pub(in crate::diffusion) fn beta(&self, time: f64) -> f64 {
        self.beta_min + time * (self.beta_max - self.beta_min)
    }

    /// `ln α`, where α is how much of the signal is left at a time.
    pub(in crate::diffusion) fn log_alpha(&self, time: f64) -> f64 {
        -0.25 * time * time * (self.beta_max - self.beta_min) - 0.5 * time * self.beta_min
    }

    pub(in crate::diffusion) fn timestep(&self, time: f64) -> f64 {
        time * self.last_timestep
    }

    pub(in crate::diffusion) fn time(&self, timestep: f64) -> f64 {
        timestep / self.last_timestep
    }
}

/// A step makes at most this many corrections.
const MAX_CORRECT_STEPS: usize = 100;

impl Keys<'_> {
    pub(super) fn score_sde_ve(self) -> Result<ScoreSdeVe, InvalidScheduler> {
        let sigma_min = self.positive("sigma_min")?.unwrap_or(0.01);
        let sigma_max = self.positive("sigma_max")?.unwrap_or(1348.0);
        if sigma_min > sigma_max {
            return Err(InvalidScheduler::Conflict { keys: "sigma_min and sigma_max", why: "the levels would rise" });
        }
        Ok(ScoreSdeVe {
            sigma_min,
            sigma_max,
            sampling_eps: self.sampling_eps(1e-5)?,
            snr: self.positive("snr")?.unwrap_or(0.15),
            correct_steps: self.integer("correct_steps", 1, 0, MAX_CORRECT_STEPS)?,
            probability_flow: self.flag("probability_flow", false)?,
        })
    }

    pub(super) fn score_sde_vp(self) -> Result<ScoreSdeVp, InvalidScheduler> {
        let beta = |key: &str, default: f64| -> Result<f64, InvalidScheduler> {
            let bound = "a number from 1e-6 to 1000";
            Ok(self.number(key, bound, |beta| (1e-6..=1000.0).contains(&beta))?.unwrap_or(default))
        };
        let (beta_min, beta_max) = (beta("beta_min", 0.1)?, beta("beta_max", 20.0)?);
        if beta_min > beta_max {
            return Err(InvalidScheduler::Conflict { keys: "beta_min and beta_max", why: "the noise would shrink" });
        }
        Ok(ScoreSdeVp {
            beta_min,
            beta_max,
            sampling_eps: self.sampling_eps(1e-3)?,
            snr: self.positive("snr")?.unwrap_or(0.16),
            correct_steps: self.integer("correct_steps", 0, 0, MAX_CORRECT_STEPS)?,
            probability_flow: self.flag("probability_flow", false)?,
            last_timestep: (self.integer("num_train_timesteps", 2000, 2, MAX_TRAIN_TIMESTEPS)? - 1) as f64,
        })
    }

    fn sampling_eps(self, default: f64) -> Result<f64, InvalidScheduler> {
        let key = "sampling_eps";
        Ok(self.number(key, "from 1e-6 to 1", |eps| (1e-6..=1.0).contains(&eps))?.unwrap_or(default))
    }
}
