//! Improved pseudo numerical methods.

use std::{collections::VecDeque, sync::Arc};

use super::Run;
use crate::diffusion::course::Course;
use crate::diffusion::denoise::Denoise;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::scheduler_config::keys::{Keys, refused};
use crate::diffusion::scheduler_config::{Class, Name, Sampler, SchedulerConfig, ZeroSignal};

pub(super) static CLASS: Class = Class {
    names: &[Name::new(
        "ipndm",
        "Linear multistep method of up to four steps on a schedule of its own, for models trained on it",
    )],
    prediction: |_, _| Ok(Prediction::Velocity),
    zero_signal: ZeroSignal::Taken,
    ..Class::new("IPNDMScheduler", &[&["num_train_timesteps", "trained_betas"]], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ipndm;

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    match keys.get("trained_betas") {
        Some(value) => Err(refused("trained_betas", value, "null, this class has betas of its own".to_owned())),
        None => Ok(Arc::new(Ipndm)),
    }
}

impl Sampler for Ipndm {
    fn levels(&self, config: &SchedulerConfig, course: Course<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok((points(course.steps(config)?), 1.0))
    }
}

/// The linear multistep method of Liu et al. (2022), arXiv:2202.09778, started with lower orders instead of Runge-Kutta steps;
/// `IPNDMScheduler`.  `x = α x0 + σ ε` along a schedule of its own, without signal at first; the network predicts v.
pub(super) async fn sample<D: Denoise>(_: &Ipndm, run: Run<'_, D>) -> Result<Latents, Error> {
    let Run { network, schedule, mut x, .. } = run;
    // ε at the last steps, the newest first.
    let mut known: VecDeque<Latents> = VecDeque::with_capacity(WEIGHTS.len());
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (x0, epsilon) = network.x0_and_epsilon(&x, &now, Clip::Nothing).await?;
        known.truncate(WEIGHTS.len() - 1);
        known.push_front(epsilon);
        let terms: Vec<_> = WEIGHTS[known.len() - 1].iter().copied().zip(&known).collect();
        let epsilon = Latents::combine(&terms);
        // Without signal ε is the state itself, and nothing is known of x0.
        let kept = if now.alpha > 0.0 { next.alpha / now.alpha } else { 0.0 };
        x = Latents::combine(&[(kept, &x), (next.sigma - kept * now.sigma, &epsilon)]);
        x = network.amended(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// Adams-Bashforth, of first to fourth order.
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// Betas of its own, `sin²` of shares of a right angle; the network is told the angle's share of the whole.  In
/// float32, whose rounding near the start the pictures show.
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
