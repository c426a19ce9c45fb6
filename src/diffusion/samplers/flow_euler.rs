//! Euler's method for flow matching (Liu et al. 2023, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206):
//! diffusers' `FlowMatchEulerDiscreteScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::flow_points;
use crate::diffusion::scheduler_config::flow::FlowKeys;
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING};
use crate::diffusion::scheduler_config::{Class, Name, Sampler, SchedulerConfig, ZeroSignal};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("flow_euler", "Euler's method, for models that were trained by flow matching")],
    prediction: |_, _| Ok(Prediction::Flow),
    flow: FlowKeys { is_always: true, may_be_linear: true, ..FlowKeys::OPTIONAL },
    zero_signal: ZeroSignal::Allowed,
    ..Class::new("FlowMatchEulerDiscreteScheduler", KEYS, read)
};

const KEYS: &[&[&str]] = &[
    &RESPACING,
    &["num_train_timesteps", "shift", "shift_terminal", "invert_sigmas", "stochastic_sampling"],
    &["use_dynamic_shifting", "time_shift_type", "base_shift", "max_shift"],
    &["base_image_seq_len", "max_image_seq_len"],
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FlowEuler {
    respacing: Option<Respacing>,
    /// Whether the levels rise from the picture to noise (`invert_sigmas`).
    inverted: bool,
    stochastic: bool,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(FlowEuler {
        respacing: keys.respacing()?,
        inverted: keys.flag("invert_sigmas", false)?,
        stochastic: keys.flag("stochastic_sampling", false)?,
    }))
}

impl Sampler for FlowEuler {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok((flow_points(config, step_source, self.respacing, self.inverted)?, 1.0))
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }

    fn is_rising(&self) -> bool {
        self.inverted
    }
}

/// Straight steps along the velocity of Liu et al. (2023), as in Esser et al. (2024), with states
/// `x = (1 − σ) x0 + σ ε`. `stochastic` steps go to x0 and add new noise, drawn in every step.
pub(super) async fn sample<D: Denoise>(options: &FlowEuler, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let v = network.raw(&x, now.t).await?;
        let x0 = Prediction::Flow.x0(&x, &v, &now, 1.0);
        x = if options.stochastic {
            let z = noise.draw(x.shape());
            Latents::combine(&[(next.alpha, &x0), (next.sigma, &z)])
        } else {
            Latents::combine(&[(1.0, &x), (next.sigma - now.sigma, &v)])
        };
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}
