//! Noise levels of the flow-matching classes.

use super::rounded;
use crate::diffusion::error::InvalidSteps;
use crate::diffusion::point::Point;
use crate::diffusion::scheduler_config::SchedulerConfig;
use crate::diffusion::scheduler_config::flow::shifted;
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::{StepSource, listed};
use crate::generation::Levels;

/// The points of the flow-matching classes. The levels are listed in the request, or are evenly spaced between the
/// largest and the smallest trained level. Then all levels are shifted. If the shift does not depend on the size of the
/// picture, evenly spaced levels are shifted twice, as in diffusers: the largest and the smallest level are shifted
/// before the other levels are spaced evenly between them, and then all levels are shifted. `inverted` replaces each
/// level σ by 1 − σ, so the levels rise from the picture to noise.
pub(in crate::diffusion) fn flow_points(
    config: &SchedulerConfig,
    step_source: StepSource<'_>,
    respacing: Option<Respacing>,
    inverted: bool,
) -> Result<Vec<Point>, InvalidSteps> {
    let flow = config.flow.as_ref().ok_or(InvalidSteps::NoSize)?;
    let factor = flow.factor().ok_or(InvalidSteps::NoSize)?;
    let train = config.num_train_timesteps() as f64;
    let mut timesteps = None;
    let mut sigmas: Vec<f64> = match step_source {
        StepSource::Steps(n) => {
            let end = |sigma: f64| rounded(if flow.is_dynamic() { sigma } else { shifted(factor, sigma) });
            let (max, min) = (end(1.0), end(rounded(1.0 / train)));
            let ramp = |i: usize| if n > 1 { i as f64 / (n - 1) as f64 } else { 0.0 };
            (0..n).map(|i| max + ramp(i) * (min - max)).collect()
        }
        StepSource::Over(Levels::Sigmas(sigmas)) => sigmas.iter().copied().map(rounded).collect(),
        StepSource::Over(Levels::Timesteps(list)) => {
            let list = listed(list, config)?;
            let sigmas = list.iter().map(|t| t / train).collect();
            timesteps = Some(list);
            sigmas
        }
    };
    sigmas.iter_mut().for_each(|sigma| *sigma = shifted(factor, *sigma));
    stretch(&mut sigmas, flow.terminal());
    if let Some(respacing) = respacing {
        sigmas = config.range.levels(respacing, sigmas[0], sigmas[sigmas.len() - 1], sigmas.len());
    }
    let mut sigmas: Vec<f64> = sigmas.into_iter().map(rounded).collect();
    if inverted {
        sigmas.iter_mut().for_each(|sigma| *sigma = rounded(1.0 - *sigma));
        timesteps = None;
    }
    let timesteps = timesteps.unwrap_or_else(|| sigmas.iter().map(|sigma| rounded(sigma * train)).collect());
    let end = if inverted { 1.0 } else { 0.0 };
    let levels = timesteps.into_iter().chain([0.0]).zip(sigmas.into_iter().chain([end]));
    Ok(levels.map(|(t, sigma)| Point::of_flow(t, sigma)).collect())
}

/// Scales the distances of the levels from 1 so that the last level is `terminal`. `None` changes nothing.
pub(in crate::diffusion) fn stretch(sigmas: &mut [f64], terminal: Option<f64>) {
    if let (Some(terminal), Some(last)) = (terminal, sigmas.last().copied()) {
        let scale = (1.0 - last) / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
}
