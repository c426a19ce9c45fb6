//! Linear multistep method on the ODE of Karras et al. (2022, arXiv:2206.00364): diffusers' `LMSDiscreteScheduler`.

use std::{collections::VecDeque, sync::Arc};

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Clip;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::euler_points;
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, SPACING, TRAINING};
use crate::diffusion::scheduler_config::{Class, EulerLevels, Label, Name, Sampler, SchedulerConfig};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("lms", "Linear multistep method of up to four steps")],
    keeps_karras_ends: true,
    is_over_alpha: true,
    ..Class::new("LMSDiscreteScheduler", &[&TRAINING, &SPACING, &RESPACING], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lms {
    respacing: Option<Respacing>,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(Lms { respacing: keys.respacing()? }))
}

impl Sampler for Lms {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        euler_points(config, step_source.without_lists(config)?, &EulerLevels::plain(self.respacing))
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }

    fn label(&self) -> Label {
        Label::WithLevels("LMS")
    }
}

/// The largest number of slopes that a step uses, including the slope at its own start.
const ORDER: usize = 4;

/// Adams-Bashforth of up to fourth order on `dx/dσ = (x − D(x; σ))/σ` (equation 1 of Karras et al. 2022), with weights
/// for uneven steps and states `x = x0 + σ ε`.
pub(super) async fn sample<D: Denoise>(_: &Lms, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, .. } = run;
    // The slopes of the last steps, the newest first.
    let mut d = VecDeque::with_capacity(ORDER);
    for (i, (now, _)) in schedule.steps().enumerate() {
        let sigma = now.noise();
        let denoised = network.denoised(&x, &now, Clip::Nothing).await?;
        d.truncate(ORDER - 1);
        d.push_front(Latents::combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]));
        // The weights depend on the step's position in the whole schedule. A run that starts late has no slopes for the
        // steps before its start and leaves these terms out.
        let weights = weights(schedule.points(), schedule.run().start + i);
        let slopes = weights.into_iter().zip(&d);
        x = Latents::combine(&std::iter::once((1.0, &x)).chain(slopes).collect::<Vec<_>>());
        x = network.adjusted(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}

/// The integrals over step `i` of the Lagrange polynomials through the step's start point and earlier points, the
/// newest first.
fn weights(points: &[Point], i: usize) -> Vec<f64> {
    let order = ORDER.min(i + 1);
    let (from, to) = (points[i].noise(), points[i + 1].noise());
    let weight = |j: usize| {
        let own = points[i - j].noise();
        let others = || (0..order).filter(move |k| *k != j).map(|k| points[i - k].noise());
        let polynomial = |sigma: f64| others().map(|other| (sigma - other) / (own - other)).product::<f64>();
        // Simpson's rule is exact for polynomials of up to third degree.
        (to - from) / 6.0 * (polynomial(from) + 4.0 * polynomial(0.5 * (from + to)) + polynomial(to))
    };
    (0..order).map(weight).collect()
}
