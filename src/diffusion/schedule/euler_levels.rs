//! Noise levels of the Euler family.

use super::{points, rounded};
use crate::diffusion::error::InvalidSteps;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::scheduler_config::{EulerLevels, FinalSigma, SchedulerConfig};
use crate::diffusion::sigmas::{Respacing, SigmaRange, SigmaTable};
use crate::diffusion::spacing::Spacing;
use crate::diffusion::step_source::{StepSource, listed};
use crate::generation::Levels;

/// The points of the Euler family, one per step and one for the end, and the `init_noise_sigma`. The levels are
/// explicit or respaced, or belong to explicit or spaced timesteps. Fails if the configuration cannot run the steps.
pub(in crate::diffusion) fn euler_points(
    config: &SchedulerConfig,
    step_source: StepSource<'_>,
    levels: &EulerLevels,
) -> Result<(Vec<Point>, f64), InvalidSteps> {
    let table = SigmaTable::new(config.betas.alphas_cumprod());
    let continuous = levels.continuous && config.prediction == Prediction::Velocity;
    let (mut timesteps, sigmas) = match step_source {
        StepSource::Over(Levels::Sigmas(sigmas)) => {
            let sigmas: Vec<f64> = sigmas.iter().copied().map(rounded).collect();
            let [begin @ .., _] = &sigmas[..] else { return Err(InvalidSteps::Degenerate) };
            if begin.is_empty() {
                return Err(InvalidSteps::OneSigma { class: config.class_name() });
            }
            (begin.iter().map(|sigma| rounded(table.timestep_of(*sigma))).collect(), sigmas)
        }
        StepSource::Over(Levels::Timesteps(_)) if levels.respacing.is_some() || continuous => {
            return Err(InvalidSteps::ListAndRespacing);
        }
        StepSource::Over(Levels::Timesteps(timesteps)) => {
            of_timesteps(listed(timesteps, config)?, levels, config.range, &table)
        }
        StepSource::Steps(n) => {
            let timesteps = config.spacing.timesteps(config.num_train_timesteps(), n, config.steps_offset, false)?;
            of_timesteps(timesteps, levels, config.range, &table)
        }
    };
    let n = timesteps.len();
    if continuous {
        timesteps = sigmas[..n].iter().map(|sigma| rounded(0.25 * libm::log(*sigma))).collect();
    }
    let max = sigmas[0];
    let init_noise_sigma = match config.spacing {
        Spacing::Linspace | Spacing::Trailing => max,
        Spacing::Leading => rounded(libm::sqrt(max * max + 1.0)),
    };
    Ok((points(timesteps, sigmas), init_noise_sigma))
}

/// The timesteps and levels of a run over these timesteps; there is one level more than timesteps.
fn of_timesteps(
    mut timesteps: Vec<f64>,
    levels: &EulerLevels,
    range: SigmaRange,
    table: &SigmaTable,
) -> (Vec<f64>, Vec<f64>) {
    let n = timesteps.len();
    let mut sigmas: Vec<f64> = if levels.log_linear {
        Respacing::Exponential.levels(table.max(), table.min(), n + 1)
    } else {
        timesteps.iter().map(|t| table.at(*t)).collect()
    };
    if let Some(respacing) = levels.respacing {
        sigmas = range.levels(respacing, sigmas[0], sigmas[sigmas.len() - 1], n);
        timesteps = sigmas.iter().map(|sigma| rounded(table.timestep_of(*sigma))).collect();
    }
    sigmas.push(final_sigma(levels.end, table));
    (timesteps, sigmas.into_iter().take(n + 1).map(rounded).collect())
}

fn final_sigma(end: FinalSigma, table: &SigmaTable) -> f64 {
    match end {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => table.min(),
    }
}
