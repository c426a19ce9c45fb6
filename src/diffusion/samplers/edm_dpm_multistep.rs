//! DPM-Solver++ multistep (Lu et al. 2022b, arXiv:2211.01095) for EDM models (Karras et al. 2022, arXiv:2206.00364):
//! diffusers' `EDMDPMSolverMultistepScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use super::dpm_multistep::{Multistep, dpm_multistep};
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::{Last, edm_points};
use crate::diffusion::scheduler_config::keys::{EDM, Keys, THRESHOLDING};
use crate::diffusion::scheduler_config::{Class, EdmLevels, Sampler, SchedulerConfig, edm_prediction};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class =
    Class { prediction: edm_prediction, ..Class::new("EDMDPMSolverMultistepScheduler", KEYS, read) };

const KEYS: &[&[&str]] =
    &[&EDM, &THRESHOLDING, &["solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final"]];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct EdmDpmMultistep {
    levels: EdmLevels,
    steps: Multistep,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    let levels = keys.edm_levels()?;
    let end = levels.end;
    let words = [("dpmsolver++", ()), ("sde-dpmsolver++", ()), ("deis", ())];
    keys.word("algorithm_type", "dpmsolver++", &words)?;
    let solver = keys.dpm_solver(end, true)?;
    if solver.sde && solver.order == 3 {
        return Err(InvalidScheduler::Conflict {
            keys: "algorithm_type and solver_order",
            why: "sde-dpmsolver++ has no third order in this class",
        });
    }
    Ok(Arc::new(EdmDpmMultistep { levels, steps: Multistep { end, clip: keys.thresholding()?, solver } }))
}

impl Sampler for EdmDpmMultistep {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok(edm_points(&self.levels, step_source.steps(config)?, Last::SigmaMin))
    }
}

/// The steps of [`dpm_multistep`]; here states are `x = x0 + σ ε`.
pub(super) async fn sample<D: Denoise>(options: &EdmDpmMultistep, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    dpm_multistep(&options.steps, run).await
}
