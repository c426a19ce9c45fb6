//! Pseudo numerical methods (PNDM, Liu et al. 2022, arXiv:2202.09778): diffusers' `PNDMScheduler`.

use std::{collections::VecDeque, sync::Arc};

use super::SamplerInputs;
use crate::diffusion::denoiser::Denoiser;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::{Schedule, trained_points};
use crate::diffusion::scheduler_config::keys::{Keys, SPACING, TRAINING};
use crate::diffusion::scheduler_config::{
    Class, Label, Name, RunPoints, Sampler, SchedulerConfig, epsilon_or_velocity,
};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("pndm", "Pseudo numerical method of Liu et al. (2022)")],
    prediction: epsilon_or_velocity,
    spacing: "leading",
    ..Class::new("PNDMScheduler", &[&TRAINING, &SPACING, &["set_alpha_to_one", "skip_prk_steps"]], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pndm {
    /// Whether the last step ends without noise; otherwise it ends at the noise level of training timestep 0.
    set_alpha_to_one: bool,
    skip_prk_steps: bool,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(Pndm {
        set_alpha_to_one: keys.flag("set_alpha_to_one", false)?,
        skip_prk_steps: keys.flag("skip_prk_steps", false)?,
    }))
}

impl Sampler for Pndm {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        let stride = config.stride(step_source.len());
        Ok((trained_points(config, step_source.without_lists(config)?, |last| last - stride)?, 1.0))
    }

    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        let points = run.begins();
        let timeline: Vec<Point> = if !self.skip_prk_steps {
            // The first three steps have four calls each.
            let half = (run.stride / 2.0).floor();
            let four = |pair: &[Point]| {
                let middle = run.config.level(pair[1].t + half);
                [pair[0], middle, middle, pair[1]]
            };
            points.windows(2).take(3).flat_map(four).chain(points[3..].iter().copied()).collect()
        } else if points.len() > 1 {
            // The first multistep step is done twice, so its second point occurs twice.
            points[..2].iter().chain(&points[1..]).copied().collect()
        } else {
            points.to_vec()
        };
        timeline[run.run.start..].to_vec()
    }

    fn label(&self) -> Label {
        if self.skip_prk_steps { Label::AtOwnLevels("PLMS") } else { Label::FirstName }
    }

    fn ends_at_first_timestep(&self) -> bool {
        !self.set_alpha_to_one
    }

    fn has_runge_kutta_steps(&self) -> bool {
        !self.skip_prk_steps
    }
}

/// Algorithm 2 of Liu et al. (2022) with states `x = α x0 + σ ε`: three pseudo Runge-Kutta steps, then pseudo linear
/// multistep steps. With `skip_prk_steps` the multistep steps start with lower order, as in Stable Diffusion. Each step
/// goes down by one stride, even if the next step starts elsewhere.
pub(super) async fn sample<D: Denoise>(options: &Pndm, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, .. } = run;
    let skip_prk_steps = options.skip_prk_steps;
    let delta = schedule.stride();
    // The network outputs of the last steps, the newest first.
    let mut e = VecDeque::with_capacity(4);
    let mut done = 0;
    if !skip_prk_steps {
        for (now, next) in schedule.steps().take(3) {
            e.push_front(network.raw(&x, now.t).await?);
            let raw = runge_kutta(network, schedule, &x, (&now, &next), &e[0]).await?;
            let denoised = network.prediction.x0(&x, &raw, &now, 1.0);
            x = network.adjusted(transfer(network.prediction, &x, &raw, &now, &next));
            network.stepped(done, &denoised);
            done += 1;
        }
    }
    let timeline = schedule.timeline();
    let multisteps = if skip_prk_steps { &timeline[..] } else { &timeline[12..] };
    // With `skip_prk_steps`, the state before the first multistep step. After this step, the loop repeats the step from
    // this state, with the mean of the network outputs at the start and the end of the step.
    let mut begin = None;
    for (i, now) in multisteps.iter().enumerate() {
        let answer = network.raw(&x, now.t).await?;
        let (from, to, raw);
        if let Some(begin) = begin.take() {
            x = begin;
            (from, to) = (schedule.level(now.t + delta), *now);
            raw = Latents::combine(&[(0.5, &answer), (0.5, &e[0])]);
        } else {
            e.push_front(answer);
            e.truncate(4);
            (from, to) = (*now, schedule.level(now.t - delta));
            raw = linear_multistep(&e);
            begin = (skip_prk_steps && i == 0 && multisteps.len() > 1).then(|| x.clone());
        }
        let denoised = network.prediction.x0(&x, &raw, &from, 1.0);
        x = network.adjusted(transfer(network.prediction, &x, &raw, &from, &to));
        if begin.is_none() {
            network.stepped(done, &denoised);
            done += 1;
        }
    }
    Ok(x)
}

/// Equation 13: the Runge-Kutta mean of four network outputs between two points; `e1` is the first output. The timestep
/// in the middle is half a stride above the next point.
async fn runge_kutta<D: Denoise>(
    network: &Denoiser<'_, D>,
    schedule: &Schedule,
    x: &Latents,
    (now, next): (&Point, &Point),
    e1: &Latents,
) -> Result<Latents, Error> {
    let half = (schedule.stride() / 2.0).floor();
    let middle = schedule.level(next.t + half);
    let x1 = network.adjusted(transfer(network.prediction, x, e1, now, &schedule.level(now.t - half)));
    let e2 = network.raw(&x1, middle.t).await?;
    let x2 = network.adjusted(transfer(network.prediction, x, &e2, now, &middle));
    let e3 = network.raw(&x2, middle.t).await?;
    let x3 = network.adjusted(transfer(network.prediction, x, &e3, now, next));
    let e4 = network.raw(&x3, next.t).await?;
    Ok(Latents::combine(&[(1.0 / 6.0, e1), (1.0 / 3.0, &e2), (1.0 / 3.0, &e3), (1.0 / 6.0, &e4)]))
}

/// Equation 12: the Adams-Bashforth formula, whose order is the number of outputs (at most 4, the newest first).
fn linear_multistep(e: &VecDeque<Latents>) -> Latents {
    match e.len() {
        0 | 1 => e[0].clone(),
        2 => Latents::combine(&[(3.0 / 2.0, &e[0]), (-1.0 / 2.0, &e[1])]),
        3 => Latents::combine(&[(23.0 / 12.0, &e[0]), (-16.0 / 12.0, &e[1]), (5.0 / 12.0, &e[2])]),
        _ => {
            Latents::combine(&[(55.0 / 24.0, &e[0]), (-59.0 / 24.0, &e[1]), (37.0 / 24.0, &e[2]), (-9.0 / 24.0, &e[3])])
        }
    }
}

/// Equation 11: moves the state from one level to another along a network output.
fn transfer(prediction: Prediction, x: &Latents, raw: &Latents, from: &Point, to: &Point) -> Latents {
    let epsilon = prediction.epsilon(x, raw, from);
    let (a, a_to) = (from.alpha * from.alpha, to.alpha * to.alpha);
    let divisor = a * to.sigma + from.alpha * from.sigma * to.alpha;
    Latents::combine(&[(to.alpha / from.alpha, x), (-(a_to - a) / divisor, &epsilon)])
}
