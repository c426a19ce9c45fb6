//! Noise levels of the DPM-Solver classes: DPM-Solver, UniPC, DEIS and SA-Solver.

use super::flow_levels::stretch;
use super::{points, rounded};
use crate::diffusion::error::InvalidSteps;
use crate::diffusion::point::Point;
use crate::diffusion::scheduler_config::flow::{Flow, shifted};
use crate::diffusion::scheduler_config::{FinalSigma, SchedulerConfig};
use crate::diffusion::sigmas::{Respacing, SigmaTable};
use crate::diffusion::spacing::Spacing;
use crate::diffusion::step_source::{StepSource, listed};
use crate::generation::Levels;

/// How a DPM-Solver class chooses its levels.
pub(in crate::diffusion) struct DpmLevels {
    pub(in crate::diffusion) spacing: Spacing,
    pub(in crate::diffusion) steps_offset: usize,
    pub(in crate::diffusion) respacing: Option<Respacing>,
    /// Whether the timesteps of respaced levels are rounded to integers; otherwise they are truncated.
    pub(in crate::diffusion) rounds: bool,
    pub(in crate::diffusion) lambda_min_clipped: f64,
    pub(in crate::diffusion) last: Last,
    /// Whether the levels of a flow start just below 1; otherwise they start at 1 − 1/T (before the shift).
    pub(in crate::diffusion) below_one: bool,
}

/// The noise level at the end of the last step.
#[derive(Clone, Copy)]
pub(in crate::diffusion) enum Last {
    /// No noise.
    Zero,
    /// The level of timestep 0.
    SigmaMin,
    /// The level at the start of the last step.
    Repeated,
}

impl From<FinalSigma> for Last {
    fn from(end: FinalSigma) -> Last {
        match end {
            FinalSigma::Zero => Last::Zero,
            FinalSigma::SigmaMin => Last::SigmaMin,
        }
    }
}

impl DpmLevels {
    /// The choices that most of these classes share.
    pub(in crate::diffusion) fn of(config: &SchedulerConfig, respacing: Option<Respacing>, last: Last) -> DpmLevels {
        DpmLevels {
            spacing: config.spacing,
            steps_offset: config.steps_offset,
            respacing,
            rounds: respacing == Some(Respacing::Karras),
            lambda_min_clipped: f64::NEG_INFINITY,
            last,
            below_one: false,
        }
    }
}

/// The points of a DPM-Solver class: one per step, and the end. Fails if the configuration cannot run the steps.
pub(in crate::diffusion) fn dpm_points(
    config: &SchedulerConfig,
    step_source: StepSource<'_>,
    levels: &DpmLevels,
) -> Result<Vec<Point>, InvalidSteps> {
    let alphas_cumprod = config.betas.alphas_cumprod();
    let table = SigmaTable::new(alphas_cumprod);
    if let Some(flow) = &config.flow {
        return dpm_flow_points(config, step_source, levels, flow, &table);
    }
    let kept = SigmaTable::with_lambda_from(alphas_cumprod, levels.lambda_min_clipped);
    let mut timesteps = match step_source {
        StepSource::Over(Levels::Timesteps(_)) if levels.respacing.is_some() => {
            return Err(InvalidSteps::ListAndRespacing);
        }
        StepSource::Over(Levels::Timesteps(timesteps)) => listed(timesteps, config)?,
        other => {
            let n = other.steps(config)?;
            levels.spacing.dpm_timesteps(kept, config.num_train_timesteps(), n, levels.steps_offset)?
        }
    };
    let n = timesteps.len();
    let mut sigmas: Vec<f64> = timesteps.iter().map(|t| table.at(*t)).collect();
    if let Some(respacing) = levels.respacing {
        sigmas = config.range.levels(respacing, table.max(), table.min(), n);
        let whole = |t: f64| {
            if levels.rounds { t.round_ties_even() } else { t.trunc() }
        };
        timesteps = sigmas.iter().map(|sigma| whole(table.timestep_of(*sigma))).collect();
    }
    sigmas.push(last_sigma(levels.last, &sigmas, &table));
    Ok(points(timesteps, sigmas.into_iter().map(rounded).collect()))
}

/// The points with `use_flow_sigmas`: flow levels, and their timesteps truncated to integers.
fn dpm_flow_points(
    config: &SchedulerConfig,
    step_source: StepSource<'_>,
    levels: &DpmLevels,
    flow: &Flow,
    table: &SigmaTable,
) -> Result<Vec<Point>, InvalidSteps> {
    let train = config.num_train_timesteps() as f64;
    let factor = flow.factor().ok_or(InvalidSteps::NoSize)?;
    let unshifted: Vec<f64> = match step_source {
        StepSource::Over(Levels::Sigmas(sigmas)) => sigmas.clone(),
        other => {
            let n = other.steps(config)?;
            // `level(0)` is 1 and `level(n)` is 1/T. UniPC uses `level(i)` for i from 0 to n − 1. The other classes use
            // `1 − level(i)` for i from n down to 1.
            let level = |i: usize| 1.0 - (1.0 - 1.0 / train) * i as f64 / n as f64;
            let level = |i: usize| if levels.below_one { level(i) } else { 1.0 - level(n - i) };
            (0..n).map(level).collect()
        }
    };
    let mut sigmas: Vec<f64> = unshifted.into_iter().map(|sigma| shifted(factor, sigma)).collect();
    stretch(&mut sigmas, flow.terminal());
    if levels.below_one
        && let Some(first) = sigmas.first_mut().filter(|first| (**first - 1.0).abs() < 1e-6)
    {
        *first -= 1e-6;
    }
    let timesteps: Vec<f64> = sigmas.iter().map(|sigma| (sigma * train).trunc()).collect();
    sigmas.push(last_sigma(levels.last, &sigmas, table));
    let ends = timesteps.into_iter().chain([0.0]);
    Ok(ends.zip(sigmas).map(|(t, sigma)| Point::of_flow(t, rounded(sigma))).collect())
}

fn last_sigma(last: Last, sigmas: &[f64], table: &SigmaTable) -> f64 {
    match last {
        Last::Zero => 0.0,
        Last::SigmaMin => table.min(),
        Last::Repeated => sigmas[sigmas.len() - 1],
    }
}
