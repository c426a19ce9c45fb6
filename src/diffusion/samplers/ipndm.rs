//! Improved pseudo numerical methods (iPNDM, Liu et al. 2022, arXiv:2202.09778): diffusers' `IPNDMScheduler`.

use std::{collections::VecDeque, sync::Arc};

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sample::Denoise;
use crate::diffusion::scheduler_config::keys::{Keys, refused};
use crate::diffusion::scheduler_config::{Class, Name, Sampler, SchedulerConfig, ZeroSignal};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new(
        "ipndm",
        "Linear multistep method of up to four steps on a schedule of its own, for models trained on it",
    )],
    prediction: |_, _| Ok(Prediction::Velocity),
    zero_signal: ZeroSignal::Allowed,
    ..Class::new("IPNDMScheduler", &[&["num_train_timesteps", "trained_betas"]], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ipndm;

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    match keys.get("trained_betas") {
        Some(value) => Err(refused("trained_betas", value, "null, because this class has its own betas".to_owned())),
        None => Ok(Arc::new(Ipndm)),
    }
}

impl Sampler for Ipndm {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok((points(step_source.steps(config)?), 1.0))
    }
}

/// The linear multistep method of Liu et al. (2022), which starts with lower orders instead of Runge-Kutta steps.
/// States are `x = α x0 + σ ε` on a schedule of the class itself, which starts without signal; the network predicts v.
pub(super) async fn sample<D: Denoise>(_: &Ipndm, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, .. } = run;
    // ε at the last steps, the newest first.
    let mut known: VecDeque<Latents> = VecDeque::with_capacity(WEIGHTS.len());
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, Clip::Nothing).await?;
        known.truncate(WEIGHTS.len() - 1);
        known.push_front(epsilon);
        let terms: Vec<_> = WEIGHTS[known.len() - 1].iter().copied().zip(&known).collect();
        let epsilon = Latents::combine(&terms);
        // Without signal, the state itself is ε, and x0 cannot be computed from the state and ε.
        let kept = if now.alpha > 0.0 { next.alpha / now.alpha } else { 0.0 };
        x = Latents::combine(&[(kept, &x), (next.sigma - kept * now.sigma, &epsilon)]);
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// Adams-Bashforth weights of first to fourth order.
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// The schedule of this class: `σ = sin²(share · π/2)`, where `share` falls evenly from 1 to 0; `α = √(1 − σ²)`; and
/// the timestep `2/π · atan2(σ, α)`. All are computed in float32, because its rounding near the start is visible in
/// pictures.
fn points(steps: usize) -> Vec<Point> {
    use std::f32::consts::PI;
    let share = |i: usize| 1.0 - i as f64 / steps as f64;
    let point = |i: usize| {
        let sine = libm::sinf(share(i) as f32 * PI / 2.0);
        let beta = sine * sine;
        let alpha = libm::sqrtf(1.0 - beta * beta);
        let t = libm::atan2f(beta, alpha) / PI * 2.0;
        Point { t: t.into(), alpha: alpha.into(), sigma: beta.into() }
    };
    (0..=steps).map(point).collect()
}
