//! A schedule: the noise levels that a run passes through, from noise to picture.
//!
//! Built here and nowhere else, from a configuration and a number of steps, and rounded to float32 where diffusers
//! rounds.  What it hands out is sound: finite, falling, inside of the timesteps that the model was trained on.

use std::ops::Range;

use super::error::InvalidSteps;
use super::latents::Latents;
use super::point::Point;
use super::prediction::Prediction;
use super::scheduler_config::{EulerLevels, FinalSigma, Sampler, SchedulerConfig, ScoreSdeVe, ScoreSdeVp};
use super::sigmas::{Respacing, SigmaTable};
use super::spacing::Spacing;
use crate::generation::{Draw, Levels};
use dpm_levels::{DpmLevels, Last, dpm_points};
use edm_levels::{consistency_points, edm_points};
use euler_levels::euler_points;
use flow_levels::flow_points;
pub(super) use sde_levels::ve_steps;
use sde_levels::{ve_points, vp_points};
use trained::{Trained, distilled_points, ipndm_points, trained_points};

mod dpm_levels;
mod edm_levels;
mod euler_levels;
mod flow_levels;
mod sde_levels;
mod trained;

/// The steps that PNDM needs where it begins with three Runge-Kutta steps.
const MIN_PRK_STEPS: usize = 4;

/// One [`Point`] per step and one for the end, and which of the steps are taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    points: Vec<Point>,
    run: Range<usize>,
    init_noise_sigma: f64,
    trained: Trained,
}

/// What a run goes by: a number of steps, or levels of its own.
#[derive(Clone, Copy)]
enum Course<'a> {
    Steps(usize),
    Over(&'a Levels),
}

impl Schedule {
    /// Fails where the steps do not fit the configuration, or where the configuration leads to levels that no sampler
    /// could use.
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Schedule, InvalidSteps> {
        Schedule::along(config, Course::Steps(steps))
    }

    /// Fails also where the class takes no such list: only some of diffusers' `set_timesteps` do.
    pub fn over(config: &SchedulerConfig, levels: &Levels) -> Result<Schedule, InvalidSteps> {
        Schedule::along(config, Course::Over(levels))
    }

    /// The levels that a generation asks for.
    pub fn of(config: &SchedulerConfig, draw: &Draw) -> Result<Schedule, InvalidSteps> {
        match &draw.levels {
            Some(levels) => Schedule::over(config, levels),
            None => Schedule::new(config, draw.steps as usize),
        }
    }

    fn along(config: &SchedulerConfig, course: Course<'_>) -> Result<Schedule, InvalidSteps> {
        let steps = course.len();
        let min = if config.sampler.has_runge_kutta_steps() { MIN_PRK_STEPS } else { 1 };
        if steps < min {
            return Err(InvalidSteps::TooFew { steps, min, class: config.class_name() });
        }
        let max = config.num_train_timesteps();
        if matches!(course, Course::Steps(steps) if steps > max) {
            return Err(InvalidSteps::TooMany { steps, max });
        }
        let trained = Trained::new(config, steps);
        let (points, init_noise_sigma) = match &config.sampler {
            Sampler::Ddpm { .. } => (trained_points(&trained, course)?, 1.0),
            Sampler::Ddim(_) | Sampler::Pndm { .. } => {
                (trained_points(&trained, Course::Steps(course.steps(config)?))?, 1.0)
            }
            Sampler::Ipndm => (ipndm_points(course.steps(config)?), 1.0),
            Sampler::Euler(levels) => euler_points(config, course, levels)?,
            Sampler::EulerAncestral => {
                euler_points(config, Course::Steps(course.steps(config)?), &EulerLevels::plain(None))?
            }
            Sampler::Heun { respacing, .. } => {
                euler_points(config, course.without_sigmas(config)?, &EulerLevels::plain(*respacing))?
            }
            Sampler::Lms { respacing } | Sampler::DpmSde { respacing, .. } => {
                euler_points(config, Course::Steps(course.steps(config)?), &EulerLevels::plain(*respacing))?
            }
            Sampler::Dpm2 { respacing, .. } => {
                let course = Course::Steps(course.steps(config)?);
                let (mut points, max) = euler_points(config, course, &EulerLevels::plain(*respacing))?;
                if *respacing == Some(Respacing::Karras) {
                    points.iter_mut().for_each(|point| point.t = point.t.round_ties_even());
                }
                (points, max)
            }
            Sampler::DpmMultistep(options) => {
                let rounds = options.rounded && matches!(options.respacing, Some(Respacing::Karras | Respacing::Lu));
                let levels = DpmLevels {
                    rounds,
                    lambda_min_clipped: options.lambda_min_clipped,
                    ..DpmLevels::of(config, options.respacing, Last::from(options.end))
                };
                (dpm_points(config, course.without_sigmas(config)?, &levels)?, 1.0)
            }
            Sampler::DpmSinglestep(options) => {
                let levels = DpmLevels {
                    spacing: Spacing::Linspace,
                    steps_offset: 0,
                    lambda_min_clipped: options.lambda_min_clipped,
                    ..DpmLevels::of(config, options.respacing, Last::from(options.end))
                };
                (dpm_points(config, course.without_sigmas(config)?, &levels)?, 1.0)
            }
            Sampler::UniPc(options) => {
                let last = match (options.end, options.respacing, config.flow) {
                    (FinalSigma::SigmaMin, Some(_), _) | (FinalSigma::SigmaMin, _, Some(_)) => Last::Repeated,
                    (end, ..) => end.into(),
                };
                let levels = DpmLevels { below_one: true, ..DpmLevels::of(config, options.respacing, last) };
                let course = if config.flow.is_some() { course } else { Course::Steps(course.steps(config)?) };
                (dpm_points(config, course, &levels)?, 1.0)
            }
            Sampler::Deis(options) => {
                let repeats = options.respacing.is_some() || config.flow.is_some();
                let last = if repeats { Last::Repeated } else { Last::SigmaMin };
                let levels = DpmLevels::of(config, options.respacing, last);
                (dpm_points(config, Course::Steps(course.steps(config)?), &levels)?, 1.0)
            }
            Sampler::SaSolver(options) => {
                let repeats = options.respacing.is_some() || config.flow.is_some();
                let last = if repeats { Last::Repeated } else { Last::SigmaMin };
                let levels = DpmLevels {
                    lambda_min_clipped: options.lambda_min_clipped,
                    ..DpmLevels::of(config, options.respacing, last)
                };
                (dpm_points(config, Course::Steps(course.steps(config)?), &levels)?, 1.0)
            }
            Sampler::Lcm { original_inference_steps, .. } => {
                (distilled_points(&trained, (*original_inference_steps, *original_inference_steps), course, -1.0)?, 1.0)
            }
            Sampler::Tcd { original_inference_steps } => {
                (distilled_points(&trained, (*original_inference_steps, *original_inference_steps), course, 0.0)?, 1.0)
            }
            Sampler::EdmEuler(levels) => edm_points(levels, course.steps(config)?, Last::Repeated),
            Sampler::EdmDpmMultistep(levels, _) => edm_points(levels, course.steps(config)?, Last::SigmaMin),
            Sampler::FlowEuler { respacing, inverted, .. } => {
                (flow_points(config, course, *respacing, *inverted)?, 1.0)
            }
            Sampler::FlowHeun => (flow_points(config, Course::Steps(course.steps(config)?), None, false)?, 1.0),
            Sampler::Consistency(options) => {
                (consistency_points(config, options, course.without_sigmas(config)?)?, options.sigma_max)
            }
            Sampler::ScoreSdeVe(options) => (ve_points(options, course.steps(config)?), options.sigma_max),
            Sampler::ScoreSdeVp(options) => (vp_points(options, course.steps(config)?), 1.0),
        };
        let run = 0..points.len() - 1;
        Schedule { points, run, init_noise_sigma, trained }.checked(config)
    }

    /// All steps of a consistency model within the part of the schedule that a picture of this `strength` begins in, in
    /// (0, 1] (Luo et al. 2023, arXiv:2310.04378, in the form of diffusers). Of other classes as [`Schedule::for_strength`].
    pub fn compressed(config: &SchedulerConfig, steps: usize, strength: f64) -> Result<Schedule, InvalidSteps> {
        let Sampler::Lcm { original_inference_steps, .. } = config.sampler else {
            return Schedule::new(config, steps)?.for_strength(strength);
        };
        let whole = Schedule::new(config, steps)?;
        let kept = (original_inference_steps as f64 * strength) as usize;
        let points = distilled_points(&whole.trained, (original_inference_steps, kept), Course::Steps(steps), -1.0)?;
        Schedule { points, ..whole }.checked(config)
    }

    /// The last steps alone, for a run that begins with a picture under noise: of n steps `⌊n · strength⌋`, `strength` in
    /// (0, 1] (Meng et al. 2022, arXiv:2108.01073, in the form of diffusers).
    pub fn for_strength(self, strength: f64) -> Result<Schedule, InvalidSteps> {
        let steps = self.run.len();
        let kept = ((steps as f64 * strength) as usize).min(steps);
        if kept == 0 {
            return Err(InvalidSteps::NothingLeft { steps, strength });
        }
        if kept < steps && self.config().sampler.has_runge_kutta_steps() {
            return Err(InvalidSteps::BeginsLate { class: self.config().class_name() });
        }
        Ok(Schedule { run: steps - kept..steps, ..self })
    }

    /// The first steps alone: those that begin before the share `end` of the training timesteps is behind, in (0, 1).
    pub fn until(self, end: f64) -> Result<Schedule, InvalidSteps> {
        let kept = self.steps_from(self.cutoff(end));
        let run = self.run.start..(self.run.start + kept).min(self.run.end);
        if run.is_empty() {
            let least = self.share_at(self.points[self.run.start].t);
            return Err(match least < 1.0 {
                true => InvalidSteps::EndsEarly { steps: self.run.len(), share: end, least },
                false => InvalidSteps::BeginsAtEnd,
            });
        }
        if run.end < MIN_PRK_STEPS && self.config().sampler.has_runge_kutta_steps() {
            let (steps, class) = (run.len(), self.config().class_name());
            return Err(InvalidSteps::TooFew { steps, min: MIN_PRK_STEPS, class });
        }
        Ok(Schedule { run, ..self })
    }

    /// The steps that [`Schedule::until`] leaves out.
    pub fn from(self, start: f64) -> Result<Schedule, InvalidSteps> {
        let left = self.steps_from(self.cutoff(start));
        let run = (self.run.start + left).min(self.run.end)..self.run.end;
        if run.is_empty() {
            let bound = self.share_at(self.points[self.run.end - 1].t);
            return Err(InvalidSteps::BeginsAfterAll { steps: self.run.len(), share: start, bound });
        }
        if run != self.run && self.config().sampler.has_runge_kutta_steps() {
            return Err(InvalidSteps::BeginsLate { class: self.config().class_name() });
        }
        Ok(Schedule { run, ..self })
    }

    /// The timestep at which the share `end` of all is behind.
    fn cutoff(&self, end: f64) -> f64 {
        let all = self.config().num_train_timesteps() as f64;
        (all - end * all).round_ties_even()
    }

    /// The share of all timesteps that is behind at timestep `t`.
    fn share_at(&self, t: f64) -> f64 {
        let all = self.config().num_train_timesteps() as f64;
        (all - t.floor()) / all
    }

    /// How many of the steps begin at timestep `t` or before, on the way down.
    fn steps_from(&self, t: f64) -> usize {
        self.steps().take_while(|(now, _)| now.t >= t).count()
    }

    pub(super) fn config(&self) -> &SchedulerConfig {
        &self.trained.config
    }

    /// One point per step, where the network is asked, and the end; of the whole schedule.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The steps that are taken: the point a step starts from and the one it goes to.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = (Point, Point)> {
        self.points[self.run.start..=self.run.end].windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Which steps of the whole schedule these are.
    pub(super) fn run(&self) -> Range<usize> {
        self.run.clone()
    }

    /// How many steps the whole schedule has.
    pub(super) fn whole(&self) -> usize {
        self.points.len() - 1
    }

    /// The point of every network call, in order: `timesteps` of diffusers, where a second-order sampler has two calls a
    /// step.  A run that begins with a picture begins at the first.
    pub fn timeline(&self) -> Vec<Point> {
        let points = &self.points[..self.run.end];
        let (timeline, begin): (Vec<Point>, usize) = match &self.config().sampler {
            // The first step of PLMS is done twice, with its second point.
            Sampler::Pndm { skip_prk_steps: true, .. } if points.len() > 1 => {
                (points[..2].iter().chain(&points[1..]).copied().collect(), self.run.start)
            }
            // The first three of PRK take four calls each.
            Sampler::Pndm { skip_prk_steps: false, .. } => {
                let half = (self.stride() / 2.0).floor();
                let four = |pair: &[Point]| {
                    let middle = self.level(pair[1].t + half);
                    [pair[0], middle, middle, pair[1]]
                };
                let first = points.windows(2).take(3).flat_map(four);
                (first.chain(points[3..].iter().copied()).collect(), self.run.start)
            }
            Sampler::Heun { .. } | Sampler::Dpm2 { .. } | Sampler::DpmSde { .. } | Sampler::FlowHeun => {
                let pairs = points[1..].iter().flat_map(|point| [*point, *point]);
                // The last step of a whole schedule has one call; where the run is cut, its last step has both.
                let cut = (self.run.end < self.whole()).then_some(self.points[self.run.end]);
                (points[..1].iter().copied().chain(pairs).chain(cut).collect(), 2 * self.run.start)
            }
            Sampler::ScoreSdeVe(ScoreSdeVe { correct_steps, .. })
            | Sampler::ScoreSdeVp(ScoreSdeVp { correct_steps, .. }) => {
                let calls = correct_steps + 1;
                (points.iter().flat_map(|point| std::iter::repeat_n(*point, calls)).collect(), calls * self.run.start)
            }
            _ => (points.to_vec(), self.run.start),
        };
        timeline[begin..].to_vec()
    }

    /// How often the network is asked.
    pub fn calls(&self) -> usize {
        self.timeline().len()
    }

    /// By how much unit noise is multiplied to become the first state.
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    /// The state at `point` of a picture `x0` under unit noise, in the scale in which this schedule's sampler keeps its
    /// state; both `(B, C, h, w)`.
    pub fn add_noise(&self, point: &Point, x0: &Latents, noise: &Latents) -> Latents {
        let (signal, noise_scale) = match self.trained.config.sampler {
            Sampler::Euler(_)
            | Sampler::EulerAncestral
            | Sampler::Heun { .. }
            | Sampler::Lms { .. }
            | Sampler::Dpm2 { .. }
            | Sampler::DpmSde { .. } => (1.0, point.noise()),
            _ => (point.alpha, point.sigma),
        };
        Latents::combine(&[(signal, x0), (noise_scale, noise)])
    }

    /// The level of training timestep `t`; below 0 that of the end.
    pub fn level(&self, t: f64) -> Point {
        self.trained.level(t)
    }

    /// `σ/α` of the training timesteps.
    pub(super) fn sigma_table(&self) -> SigmaTable {
        SigmaTable::new(self.config().betas.alphas_cumprod())
    }

    /// `⌊T/n⌋`, by which DDIM and PNDM go down from a point, wherever the next point is.
    pub(super) fn stride(&self) -> f64 {
        self.trained.stride
    }

    fn checked(self, config: &SchedulerConfig) -> Result<Schedule, InvalidSteps> {
        let network_points = &self.points[..self.points.len() - 1];
        let has_formula = match config.sampler {
            Sampler::Ddpm { .. } | Sampler::Ddim(_) | Sampler::Lcm { .. } | Sampler::Tcd { .. } => {
                config.prediction != Prediction::Epsilon
            }
            Sampler::Ipndm | Sampler::FlowEuler { .. } | Sampler::FlowHeun => true,
            _ => false,
        };
        if network_points[0].alpha == 0.0 && !has_formula {
            return Err(InvalidSteps::ZeroSignal { prediction_type: config.prediction.name() });
        }
        let finite = self.points.iter().all(|p| p.t.is_finite() && p.alpha.is_finite() && p.sigma.is_finite());
        let positive = self.points.iter().all(|p| p.alpha >= 0.0 && p.sigma >= 0.0);
        let sound = if let Sampler::FlowEuler { inverted: true, .. } = config.sampler {
            self.steps().all(|(now, next)| next.sigma >= now.sigma)
        } else {
            // Compared crosswise, since a quotient would be infinite where the signal is zero.
            let falling = self.steps().all(|(now, next)| next.sigma * now.alpha <= now.sigma * next.alpha);
            falling && network_points.iter().all(|p| p.sigma > 0.0)
        };
        if finite && positive && sound && self.init_noise_sigma.is_finite() {
            Ok(self)
        } else {
            Err(InvalidSteps::Degenerate)
        }
    }
}

impl<'a> Course<'a> {
    fn len(self) -> usize {
        match self {
            Course::Steps(steps) => steps,
            Course::Over(Levels::Sigmas(sigmas)) => sigmas.len(),
            Course::Over(Levels::Timesteps(timesteps)) => timesteps.len(),
        }
    }

    /// For classes that take no lists.
    fn steps(self, config: &SchedulerConfig) -> Result<usize, InvalidSteps> {
        match self {
            Course::Steps(steps) => Ok(steps),
            Course::Over(levels) => Err(InvalidSteps::NoList { class: config.class_name(), list: levels.name() }),
        }
    }

    /// For classes that take timesteps alone.
    fn without_sigmas(self, config: &SchedulerConfig) -> Result<Course<'a>, InvalidSteps> {
        if let Course::Over(Levels::Sigmas(_)) = self {
            self.steps(config)?;
        }
        Ok(self)
    }
}

/// A list of timesteps of a request, if they fall and the model was trained on them.
fn listed(timesteps: &[u32], config: &SchedulerConfig) -> Result<Vec<f64>, InvalidSteps> {
    let num_train_timesteps = config.num_train_timesteps();
    if timesteps.windows(2).any(|pair| pair[1] >= pair[0]) {
        return Err(InvalidSteps::Rising);
    }
    match timesteps.first().filter(|t| **t as usize >= num_train_timesteps) {
        Some(t) => Err(InvalidSteps::OutOfRange { t: f64::from(*t), num_train_timesteps }),
        None => Ok(timesteps.iter().map(|t| f64::from(*t)).collect()),
    }
}

/// Points of these timesteps and levels; the end, which the network never sees, is at timestep 0.
fn points(timesteps: Vec<f64>, sigmas: Vec<f64>) -> Vec<Point> {
    timesteps.into_iter().chain([0.0]).zip(sigmas).map(|(t, sigma)| Point::of_noise(t, sigma)).collect()
}

fn rounded(x: f64) -> f64 {
    f64::from(x as f32)
}
