//! Heun's method for flow matching (Liu et al. 2023, arXiv:2209.03003): diffusers' `FlowMatchHeunDiscreteScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::flow_points;
use crate::diffusion::scheduler_config::flow::FlowKeys;
use crate::diffusion::scheduler_config::keys::Keys;
use crate::diffusion::scheduler_config::{Class, Name, RunPoints, Sampler, SchedulerConfig, ZeroSignal};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new(
        "flow_heun",
        "Heun's method, two network calls a step, for models that were trained by flow matching",
    )],
    prediction: |_, _| Ok(Prediction::Flow),
    flow: FlowKeys { is_always: true, ..FlowKeys::OPTIONAL },
    zero_signal: ZeroSignal::Allowed,
    ..Class::new("FlowMatchHeunDiscreteScheduler", &[&["num_train_timesteps", "shift"]], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FlowHeun;

fn read(_: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(FlowHeun))
}

impl Sampler for FlowHeun {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok((flow_points(config, step_source.without_lists(config)?, None, false)?, 1.0))
    }

    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        run.at_both_ends()
    }
}

/// The trapezoidal rule along the velocity of Liu et al. (2023), with states `x = (1 − σ) x0 + σ ε`. Each step has two
/// network calls; the last step has one, because there is no velocity at its end.
pub(super) async fn sample<D: Denoise>(_: &FlowHeun, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, .. } = run;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let h = next.sigma - now.sigma;
        let mut v = network.raw(&x, now.t).await?;
        let mut x0 = Prediction::Flow.x0(&x, &v, &now, 1.0);
        if next.sigma > 0.0 {
            let euler = network.adjusted(Latents::combine(&[(1.0, &x), (h, &v)]));
            let v_next = network.raw(&euler, next.t).await?;
            x0 = Prediction::Flow.x0(&euler, &v_next, &next, 1.0);
            v = Latents::combine(&[(0.5, &v), (0.5, &v_next)]);
        }
        x = network.adjusted(Latents::combine(&[(1.0, &x), (h, &v)]));
        network.stepped(i, &x0);
    }
    Ok(x)
}
